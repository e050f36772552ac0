"""The layout of timm's VisionTransformer, also of DINOv2, MAE, MoCo v3 and DeiT."""

import re

from keras_vit.layers.mlp import GATED
from keras_vit.weights.layouts.layout import (
    OFFSETS,
    POSITIONS,
    TORCH_DEFAULTS,
    Layout,
    TensorRow,
    gates,
    norm,
    row,
    weight_and_bias,
)
from keras_vit.weights.layouts.moco import heads_of
from keras_vit.weights.layouts.timm_config import (
    ACTIVATIONS,
    POOLINGS,
    architecture_arguments,
    config_arguments,
)
from keras_vit.weights.layouts.timm_names import arguments_of
from keras_vit.weights.layouts.timm_resnet import RESNET, STEM_ROWS, root_sources

_BLOCK = "blocks.{i}"
_TABLE = "relative_position_bias_table"  # BEiT's


def _attention(source, target):
    """Rows of an attention, whose queries, keys and values are one tensor or three."""
    weights = tuple(f"{source}.{part}_proj.weight" for part in "qkv")
    query, key, value = (f"{source}.{part}_proj.bias" for part in "qkv")
    bias, stacked = f"{target}/query_value_bias", "stack biases of q v"
    return (
        *weight_and_bias(f"{source}.qkv", f"{target}/qkv", "fused weight", "fused bias"),
        row((f"{source}.q_bias", f"{source}.v_bias"), bias, stacked),
        row(weights, f"{target}/qkv/kernel", "fuse weights of q k v"),
        row((query, key, value), f"{target}/qkv/bias", "fuse biases of q k v"),
        row((query, value), bias, stacked, unless=key),
        *norm(f"{source}.q_norm", f"{target}/query_norm"),
        *norm(f"{source}.k_norm", f"{target}/key_norm"),
        *norm(f"{source}.norm", f"{target}/sub_norm"),
        row(f"{source}.{_TABLE}", OFFSETS, "table of offsets"),
        *weight_and_bias(f"{source}.proj", f"{target}/projection", "projection"),
    )


def _mlp(source, target):
    return (
        *weight_and_bias(f"{source}.fc1", f"{target}/dense_1", "transpose"),
        *weight_and_bias(f"{source}.fc2", f"{target}/dense_2", "transpose"),
    )


ROWS: tuple[TensorRow, ...] = (
    *STEM_ROWS,
    *weight_and_bias("patch_embed.proj", "patch_embedding", "convolution"),
    row("cls_token", "class_token/tokens", "drop first axis"),
    row("dist_token", "distillation_token/tokens", "drop first axis"),
    row("reg_token", "registers/tokens", "drop first axis"),
    row("pos_embed", POSITIONS, "positions"),
    *norm("norm_pre", "pre_norm"),
    *norm(f"{_BLOCK}.norm1", "block_{i}/attention_norm"),
    *_attention(f"{_BLOCK}.attn", "block_{i}/attention"),
    row("rope.freqs_{i}", "block_{i}/attention/frequencies", axis=1),
    row(f"{_BLOCK}.ls1.gamma", "block_{i}/attention_scale/scale"),
    *norm(f"{_BLOCK}.norm2", "block_{i}/mlp_norm"),
    *gates(f"{_BLOCK}.mlp.fc1_g", f"{_BLOCK}.mlp.fc1_x", "block_{i}/mlp/dense_1"),
    *_mlp(f"{_BLOCK}.mlp", "block_{i}/mlp"),
    *norm(f"{_BLOCK}.mlp.norm", "block_{i}/mlp/sub_norm"),
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
    *weight_and_bias("head_dist", "distillation_head", "transpose"),
)


def _num_prefix(shapes):
    class_token = ("cls_token" in shapes) + ("dist_token" in shapes)  # and distillation
    registers = shapes["reg_token"][1] if "reg_token" in shapes else 0
    # In timm all tokens have a position, or none with `no_embed_class`; in DINOv2's own
    # files the class token has one.
    return tuple(dict.fromkeys((class_token + registers, 0, class_token)))


def _gate_activation(fields, shapes):
    """SwiGLU for DINOv2's giant and for Eva; other names do not tell the activation."""
    named = any(re.search(r"\.mlp\.(w12|fc1_g)\.", name) for name in shapes)
    giant = (fields["hidden_dim"], fields["num_layers"], fields["mlp_dim"])
    return "swiglu" if named or giant == (1536, 40, 4096) else None


# Arguments of timm's VisionTransformer that change its result, but not its tensors → the
# values that are built here.
_BUILT = {
    "global_pool": (*POOLINGS, ""),
    "act_layer": tuple(ACTIVATIONS),
    "norm_layer": ("layernorm",),
    "block_fn": (),
    "attn_layer": (),
    "use_shared_rel_pos_bias": (False,),
    "use_post_norm": (False,),
}


def _reason_to_refuse(config, names, shapes):
    arguments = arguments_of(config)
    for name, value in arguments.items():
        built = _BUILT.get(name)
        if built is not None and value is not None and value not in built:
            return f"config.json has {name}={value!r}, which is not built here"
    if arguments.get("global_pool") == "" and "head.weight" in names:
        return "config.json has global_pool='', and a head for each token is not built here"
    if "embeds.proj.weight" in names and "architecture" not in config:
        return "NaFlexVit has variants of its positions, and nothing names the architecture"
    if {"architecture", "embed_dim"} & set(arguments) or arguments.get("use_rot_pos_emb"):
        return None
    return _look_alike(names, shapes)


def _look_alike(names, shapes):
    """The published model with these tensors that is not built here, or None."""
    if any(name.endswith(_TABLE) for name in names):
        return None
    if any(re.search(r"\.attn\.(q_bias|k_proj\.weight)$", name) for name in names):
        return (
            "EVA-02 and DINOv3 have these tensors, and rotary positions, which leave none. "
            "Give the `rope` of the model if it has them (see `layers.RotaryEmbedding`)"
        )
    if "cls_token" in names and "attn_pool.latent" in names:
        return (
            "models with a class token beside an attention pool also have rotary positions "
            "(PE core) or pool the class token with the patches"
        )
    if not {"norm.weight", "fc_norm.weight"} & set(names):
        return "models without a last norm (PE spatial, PE lang) have rotary positions"
    kernel = shapes.get("patch_embed.proj.weight", ())
    depth = sum(name.endswith(".norm1.weight") for name in names)
    size = (*kernel[:1], depth, *kernel[3:])
    prefix = "cls_token" in names or "reg_token" in names
    if size == (768, 12, 16) and "fc_norm.weight" in names and not prefix:
        return (
            "timm's vit_base_patch16_rpn_224 has these tensors, with its norms elsewhere. "
            "Give `norm_after=True` if it is that, or False"
        )
    sizes = [(384, 12, 16), (768, 12, 16), (1024, 24, 16)]
    scales = any(name.endswith(".gamma_1") for name in names.values())
    if size in sizes and scales and "cls_token" in names:
        return (
            "timm's vit_…_patch16_rope_ape_224 has these tensors as DeiT-3's own files do"
        )
    return None


# Sizes of SigLIP with the tanh GELU in some models of timm: width, blocks, patch.
_SOME_TANH = ((768, 12, 32), (1024, 24, 16), (1152, 27, 16), (1536, 40, 16))


def _undecided(fields):
    """The activations of CLIP's and SigLIP's, which tensors do not tell."""
    if fields["pre_norm"]:
        return {"mlp": ("gelu", "quick_gelu"), "layer_norm_epsilon": (1e-5, 1e-6)}
    size = (fields["hidden_dim"], fields["num_layers"], fields["patch_size"][0])
    no_prefix = not fields["class_token"] and not fields["num_registers"]
    if no_prefix and not fields["fc_norm"] and size in _SOME_TANH:
        return {"gelu_approximate": (False, True)}
    return {}


def _not_written(config, num_prefix):
    """The other name of the stem's root, and Eva's other names."""
    names = root_sources(has_stages=not (config["stem"] and config["stem"]["num_units"]))
    # Eva has tensors of queries, keys and values where the MLP has a norm, and a tensor of
    # the gate there and in DINOv3.
    of_parts, fused = ("q_proj.weight", "q_proj.bias"), ("qkv.weight", "qkv.bias", "q_bias")
    others = fused if config["mlp_sub_norm"] else of_parts
    names |= {f"{_BLOCK}.attn.{name}" for name in others}
    is_dinov3 = (config["rope"] or {}).get("kind") == "dinov3"
    has_gate = config["mlp"] in GATED and (config["mlp_sub_norm"] or is_dinov3)
    other = "fc1" if has_gate else "fc1_g"
    return names | {f"{_BLOCK}.mlp.{other}.{part}" for part in ("weight", "bias")}


TIMM = Layout(
    name="timm",
    rows=ROWS,
    marks=(r"(patch_embed\.|pos_embed|cls_token|norm\.).*", r"blocks\.\d+\.norm1\..*"),
    aliases=(
        # DINOv2's own files, also from its training in chunks of blocks.
        (r"^register_tokens$", "reg_token"),
        (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
        (r"\.mlp\.w12\.", ".mlp.fc1."),
        (r"\.mlp\.w3\.", ".mlp.fc2."),
        (r"\.gamma_([12])$", r".ls\1.gamma"),  # DeiT-3
    ),
    dropped={
        "mask_token": "only masked pre-training uses it",
        r"decoder_(?:embed|pos_embed|blocks|norm|pred)(?:\..*)?": (
            "it belongs to MAE's decoder, which only pre-training uses"
        ),
    },
    defaults=TORCH_DEFAULTS,
    num_prefix=_num_prefix,
    # A model with a distillation token always has positions for its tokens.
    written_prefix=lambda tokens, registers: (tokens + registers, *(0,) * (tokens < 2)),
    config_arguments=config_arguments,
    architecture_arguments=architecture_arguments,
    tensor_heads=heads_of,
    reason_to_refuse=_reason_to_refuse,
    undecided=_undecided,
    names_in_paths=True,
    gate_activation=_gate_activation,
    resnet_defaults=RESNET,
    not_written=_not_written,
)
