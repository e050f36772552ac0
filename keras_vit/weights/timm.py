"""The layouts of timm: its VisionTransformer (and DINOv2, MAE, DeiT as published); BiT."""

import re

from keras_vit.weights.layout import POSITIONS, Layout, norm, row, weight_and_bias

_BLOCK = "blocks.{i}"
_STEM = "patch_embed.backbone"
_UNIT = "stages.{stage}.blocks.{unit}"  # of a ResNet


def _mlp(source, target):
    return (
        *weight_and_bias(f"{source}.fc1", f"{target}/dense_1", "transpose"),
        *weight_and_bias(f"{source}.fc2", f"{target}/dense_2", "transpose"),
    )


def _standardized_conv(source, target):
    return (row(f"{source}.weight", f"{target}/kernel", "convolution"),)


def _unit(source, target):
    rows = []
    for i in (1, 2, 3):
        rows += _standardized_conv(f"{source}.conv{i}", f"{target}/conv_{i}")
        rows += norm(f"{source}.norm{i}", f"{target}/norm_{i}")
    return rows


def _root(source):
    return (
        *_standardized_conv(f"{source}.conv", "stem_root/conv"),
        *norm(f"{source}.norm", "stem_root/norm"),
    )


def _stem_rows(source, target):
    return (
        *_root(f"{_STEM}.stem"),
        *_root(_STEM),  # where it is all of the stem
        *_unit(source, target),
        *_standardized_conv(f"{source}.downsample.conv", f"{target}/shortcut_conv"),
        *norm(f"{source}.downsample.norm", f"{target}/shortcut_norm"),
    )


def _bit_rows(source, target):
    return (
        *_standardized_conv("stem.conv", "root/conv"),
        *_unit(source, target),
        *_standardized_conv(f"{source}.downsample.conv", f"{target}/shortcut_conv"),
        *norm("norm", "norm"),
        row("head.fc.weight", "head/kernel", "convolution of one pixel in torch"),
        row("head.fc.bias", "head/bias"),
    )


ROWS = (
    *_stem_rows(f"{_STEM}.{_UNIT}", "stem_stage_{stage}_unit_{unit}"),
    *weight_and_bias("patch_embed.proj", "patch_embedding", "convolution"),
    row("cls_token", "class_token/tokens", "drop first axis"),
    row("reg_token", "registers/tokens", "drop first axis"),
    row("pos_embed", POSITIONS, "positions"),
    *norm("norm_pre", "pre_norm"),
    *norm(f"{_BLOCK}.norm1", "block_{i}/attention_norm"),
    *weight_and_bias(
        f"{_BLOCK}.attn.qkv", "block_{i}/attention/qkv", "fused weight", "fused bias"
    ),
    *norm(f"{_BLOCK}.attn.q_norm", "block_{i}/attention/query_norm"),
    *norm(f"{_BLOCK}.attn.k_norm", "block_{i}/attention/key_norm"),
    *weight_and_bias(f"{_BLOCK}.attn.proj", "block_{i}/attention/projection", "projection"),
    row(f"{_BLOCK}.ls1.gamma", "block_{i}/attention_scale/scale"),
    *norm(f"{_BLOCK}.norm2", "block_{i}/mlp_norm"),
    *_mlp(f"{_BLOCK}.mlp", "block_{i}/mlp"),
    row(f"{_BLOCK}.ls2.gamma", "block_{i}/mlp_scale/scale"),
    *norm("norm", "encoder_norm"),
    row("attn_pool.latent", "pooling/probe", "drop first axis"),
    row(
        ("attn_pool.q.weight", "attn_pool.kv.weight"),
        "pooling/attention/qkv/kernel",
        "fuse weights of q kv",
    ),
    row(
        ("attn_pool.q.bias", "attn_pool.kv.bias"),
        "pooling/attention/qkv/bias",
        "fuse biases of q kv",
    ),
    *weight_and_bias("attn_pool.proj", "pooling/attention/projection", "projection"),
    *norm("attn_pool.norm", "pooling/mlp_norm"),
    *_mlp("attn_pool.mlp", "pooling/mlp"),
    *norm("fc_norm", "fc_norm"),
    *weight_and_bias("pre_logits.fc", "pre_logits", "transpose"),
    *weight_and_bias("head", "head", "transpose"),
)


# Architectures whose GELU is the tanh approximation (timm 1.0.31).
_TANH = r"(so400m|giantopt)_patch16_siglip|base_patch32_siglip|large_patch16_siglip_\w*512"


def _num_prefix(shapes):
    class_token = int("cls_token" in shapes)
    registers = shapes["reg_token"][1] if "reg_token" in shapes else 0
    # In timm every token owns a position, or with `no_embed_class` none does; in
    # DINOv2's own files the class token does.
    return tuple(dict.fromkeys((class_token + registers, 0, class_token)))


def _gate(fields, shapes):
    """DINOv2's giant has SwiGLU; other gates have timm's default activation, GELU."""
    dinov2 = any(re.search(r"\.mlp\.w12\.", name) for name in shapes)
    giant = (fields["hidden_dim"], fields["num_layers"], fields["mlp_dim"])
    return "swiglu" if dinov2 or giant == (1536, 40, 4096) else "geglu"


def _hints(config):
    """Timm's `config.json`, or the arguments of its VisionTransformer."""
    arguments = {**config, **(config.get("model_args") or {})}
    pretrained = config.get("pretrained_cfg") or {}
    architecture = str(config.get("architecture", ""))
    activation = str(arguments.get("act_layer", ""))
    hints = {"num_heads": arguments.get("num_heads")}
    size = arguments.get("img_size") or (pretrained.get("input_size") or (None,))[1:]
    hints["image_size"] = size or None
    hints |= {"image_mean": pretrained.get("mean"), "image_std": pretrained.get("std")}
    pooling = arguments.get("global_pool")
    hints["pooling"] = {"avg": "gap", "token": "token", "map": "map"}.get(pooling)
    if "quickgelu" in architecture or activation == "quick_gelu":
        hints["mlp"] = "quick_gelu"
    elif activation == "gelu_tanh" or re.search(_TANH, architecture):
        hints["gelu_approximate"] = True
    if "silu" in activation.lower():  # timm has it with a gate alone
        hints["mlp"] = "swiglu"
    if "_clip_" in architecture:
        hints["layer_norm_epsilon"] = 1e-5
    if arguments.get("no_embed_class"):
        hints["num_prefix_positions"] = 0
    return hints


def _not_written(config, num_prefix):
    """One of the two names of the stem's root."""
    has_stages = config["stem"] and config["stem"]["num_units"]
    return {r.sources[0] for r in _root(_STEM if has_stages else f"{_STEM}.stem")}


# timm standardises with a batch norm, whose epsilon is 1e-8 here.
_RESNET = {
    "group_norm_epsilon": 1e-5,
    "standardization": "variance",
    "standardization_epsilon": 1e-8,
}

TIMM = Layout(
    name="timm",
    rows=ROWS,
    marks=(r"(patch_embed\.|pos_embed|cls_token|norm\.).*", r"blocks\.\d+\.norm1\..*"),
    aliases=(
        # DINOv2's own files, and those of its training in chunks of blocks.
        (r"^register_tokens$", "reg_token"),
        (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
        (r"\.mlp\.w12\.", ".mlp.fc1."),
        (r"\.mlp\.w3\.", ".mlp.fc2."),
        (r"\.gamma_([12])$", r".ls\1.gamma"),  # DeiT-3
    ),
    dropped={
        "mask_token": "only masked pre-training uses it",
        r"decoder_(?:embed|pos_embed|blocks|norm|pred)(?:\..*)?": (
            "it is of MAE's decoder, which only pre-training uses"
        ),
    },
    defaults={
        "gelu_approximate": False,
        "layer_norm_epsilon": 1e-6,
        "position_interpolation": "bicubic",
    },
    num_prefix=_num_prefix,
    written_prefix=lambda class_token, registers: (class_token + registers, 0),
    hints=_hints,
    gate=_gate,
    resnet=_RESNET,
    not_written=_not_written,
)


def _bit_hints(config):
    hints = _hints(config)
    return {key: hints[key] for key in ("image_size", "image_mean", "image_std")}


TIMM_BIT = Layout(
    name="timm",
    model="bit",
    rows=_bit_rows(_UNIT, "stage_{stage}_unit_{unit}"),
    marks=(r"stem\.conv\.weight", r"stages\.0\.blocks\.0\.norm1\.weight", r"norm\.weight"),
    resnet=_RESNET,
    hints=_bit_hints,
)
