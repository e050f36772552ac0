"""The layouts of Hugging Face transformers: ViT, DeiT, MAE, BEiT, DINOv2, CLIP, SigLIP."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from keras_vit.weights.layouts.huggingface_names import EPSILONS, NAFLEX, NUM_HEADS
from keras_vit.weights.layouts.layout import (
    OFFSETS,
    POSITIONS,
    TORCH_DEFAULTS,
    Layout,
    norm,
    row,
    weight_and_bias,
)

_PRETRAINING = "only masked pre-training uses it"


def _attention(source, target, out="o_proj"):
    """Rows of an attention with dense layers for queries, keys and values."""
    weights = tuple(f"{source}.{part}_proj.weight" for part in "qkv")
    biases = tuple(f"{source}.{part}_proj.bias" for part in "qkv")
    return (
        row(weights, f"{target}/qkv/kernel", "fuse weights of q k v"),
        row(biases, f"{target}/qkv/bias", "fuse biases of q k v"),
        *weight_and_bias(f"{source}.{out}", f"{target}/projection", "projection"),
    )


def _mlp(source, target, names=("fc1", "fc2")):
    return (
        *weight_and_bias(f"{source}.{names[0]}", f"{target}/dense_1", "transpose"),
        *weight_and_bias(f"{source}.{names[1]}", f"{target}/dense_2", "transpose"),
    )


def hidden_activation(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the model for transformers' `hidden_act`."""
    name = config.get("hidden_act")
    if name is None:
        return {}
    if name == "quick_gelu":
        return {"mlp": "quick_gelu"}
    approximate = {"gelu": False, "gelu_python": False, "gelu_new": True}
    approximate |= {"gelu_fast": True, "gelu_pytorch_tanh": True}
    if name not in approximate:
        known = ", ".join([*approximate, "quick_gelu"])
        raise ValueError(
            f"its config.json has hidden_act={name!r}, which is not built here. Known: "
            f"{known}"
        )
    return {"mlp": "gelu", "gelu_approximate": approximate[name]}


def _config_arguments(config):
    vision = config.get("vision_config") or config
    processor = config.get("preprocessor_config") or {}
    return {
        "image_mean": processor.get("image_mean"),
        "image_std": processor.get("image_std"),
        "num_heads": vision.get("num_attention_heads"),
        "image_size": vision.get("image_size"),
        "layer_norm_epsilon": vision.get("layer_norm_eps"),
        **hidden_activation(vision),
    }


def _architecture_arguments(config, path, width, **activation):
    """The defaults of the model's class in transformers; the others are the layout's."""
    if config is None:
        return []
    kind = config.get("model_type")
    defaults = {"num_heads": NUM_HEADS, **activation}
    if kind in EPSILONS:
        defaults["layer_norm_epsilon"] = EPSILONS[kind]
    if kind in NAFLEX:
        defaults["position_interpolation"] = "bilinear"
    return [("the defaults of its class in transformers", defaults)]


def _reason_to_refuse(config, names, shapes):
    """The reason to refuse a pooler, or positions of which only the config tells."""
    is_flat = len(shapes.get("embeddings.patch_embedding.weight", ())) == 2
    if is_flat and config.get("model_type") not in NAFLEX:
        return "its patches are in a row (SigLIP 2 NaFlex), and no config.json says so"
    if "pooler.dense.weight" not in names:
        return None
    activation = config.get("pooler_act")
    if activation not in (None, "tanh"):
        return f"config.json has pooler_act={activation!r}, which is not built here"
    if "embeddings.cls_token" not in names:
        return "its pooler reads the first patch, which is not built here"
    return None


_CONFIG_FUNCTIONS = {
    "config_arguments": _config_arguments,
    "architecture_arguments": _architecture_arguments,
    "reason_to_refuse": _reason_to_refuse,
}
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_CLIP_IMAGES = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_EMBEDDINGS = (
    row("embeddings.cls_token", "class_token/tokens", "drop first axis"),
    row("embeddings.position_embeddings", POSITIONS, "positions"),
    *weight_and_bias(
        "embeddings.patch_embeddings.projection", "patch_embedding", "convolution"
    ),
)

# Names of blocks: transformers 4 → transformers 5.
_OLDER_BLOCKS = (
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
# New files have the older names, which both versions read.
_WRITTEN_BLOCKS = (
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
_ONE_TOKEN = {
    "num_prefix": lambda shapes: (1,),
    "written_prefix": lambda class_token, registers: (1,),
}

_PREFIX = ("cls_token", "distillation_token")  # neither in I-JEPA

_VIT_ROWS = (
    *_EMBEDDINGS,
    *norm("layers.{i}.layernorm_before", "block_{i}/attention_norm"),
    *_attention("layers.{i}.attention", "block_{i}/attention"),
    *norm("layers.{i}.layernorm_after", "block_{i}/mlp_norm"),
    *_mlp("layers.{i}.mlp", "block_{i}/mlp"),
    *norm("layernorm", "encoder_norm"),
)

VIT = Layout(
    name="huggingface vit",
    rows=(
        *_VIT_ROWS,
        # DeiT's second token, which its classifier does not read.
        row("embeddings.distillation_token", "registers/tokens", "drop first axis"),
        *weight_and_bias("pooler.dense", "pre_logits", "transpose"),
        *weight_and_bias("classifier", "head", "transpose"),
    ),
    marks=(r"embeddings\..*", r"layers\.\d+\.layernorm_before\..*"),
    aliases=((r"^(?:vit|deit|ijepa)\.", ""), *_OLDER_BLOCKS),
    written_names=(
        *_WRITTEN_BLOCKS,
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    dropped={
        r"embeddings\.mask_token": _PRETRAINING,
        r"decoder\..*": "it belongs to the decoder, which only pre-training uses",
    },
    defaults={**TORCH_DEFAULTS, "layer_norm_epsilon": 1e-12},
    num_prefix=lambda shapes: (sum(f"embeddings.{name}" in shapes for name in _PREFIX),),
    written_prefix=lambda class_token, registers: (1 + registers,),
    **_CONFIG_FUNCTIONS,
)

# DeiTForImageClassificationWithTeacher, which averages two classifiers.
DEIT = replace(
    VIT,
    name="huggingface deit",
    rows=(
        *_VIT_ROWS,
        row(
            "embeddings.distillation_token", "distillation_token/tokens", "drop first axis"
        ),
        *weight_and_bias("cls_classifier", "head", "transpose"),
        *weight_and_bias("distillation_classifier", "distillation_head", "transpose"),
    ),
    marks=(*VIT.marks, r"distillation_classifier\.weight"),
    written_prefix=lambda tokens, registers: (tokens,),
)


def _beit_arguments(config):
    arguments = _config_arguments(config)
    if config:
        arguments["pooling"] = "gap" if config.get("use_mean_pooling", True) else "token"
    return arguments


def _beit_reason_to_refuse(config, names, shapes):
    """The reason to refuse positions that the layout has no place for."""
    for name in ("use_shared_relative_position_bias", "use_absolute_position_embeddings"):
        if config.get(name):
            return f"config.json has {name}=True, which is not built here"
    sizes = [config.get(name) for name in ("image_size", "patch_size")]
    if any(isinstance(size, list) and len(set(size)) > 1 for size in sizes):
        return (
            "its images or patches are not square: transformers resizes their tables of "
            "offsets in another order than it fills them"
        )
    return None


_BEIT_TABLE = "relative_position_bias.relative_position_bias_table"

BEIT = replace(
    VIT,
    name="huggingface beit",
    rows=(
        *_VIT_ROWS,
        row(
            [f"layers.{{i}}.attention.{part}_proj.bias" for part in "qv"],
            "block_{i}/attention/query_value_bias",
            "stack biases of q v",
        ),
        row(f"layers.{{i}}.attention.{_BEIT_TABLE}", OFFSETS, "table of offsets"),
        row("layers.{i}.lambda_1", "block_{i}/attention_scale/scale"),
        row("layers.{i}.lambda_2", "block_{i}/mlp_scale/scale"),
        *norm("pooler.layernorm", "fc_norm"),
        *weight_and_bias("classifier", "head", "transpose"),
    ),
    marks=(*VIT.marks, rf"layers\.\d+\.attention\.{re.escape(_BEIT_TABLE)}"),
    aliases=(
        (r"^beit\.", ""),
        (r"\.attention\.attention\.relative_", ".attention.relative_"),
        *_OLDER_BLOCKS,
    ),
    written_names=(
        *VIT.written_names,
        (r"\.attention\.relative_", ".attention.attention.relative_"),
    ),
    num_prefix=lambda shapes: (1,),
    config_arguments=_beit_arguments,
    reason_to_refuse=_beit_reason_to_refuse,
)

_GATED = ("weights_in", "weights_out")


def _other_mlp(config, num_prefix):
    """The rows of DINOv2's other MLP, with or without a gate."""
    others = ("fc1", "fc2") if config["mlp"] == "swiglu" else _GATED
    rows = (f"layers.{{i}}.mlp.{name}" for name in others)
    return tuple(f"{row}.{part}" for row in rows for part in ("weight", "bias"))


DINOV2 = Layout(
    name="huggingface dinov2",
    rows=(
        *_EMBEDDINGS,
        row("embeddings.register_tokens", "registers/tokens", "drop first axis"),
        *norm("layers.{i}.norm1", "block_{i}/attention_norm"),
        *_attention("layers.{i}.attention", "block_{i}/attention"),
        row("layers.{i}.layer_scale1.lambda1", "block_{i}/attention_scale/scale"),
        *norm("layers.{i}.norm2", "block_{i}/mlp_norm"),
        *_mlp("layers.{i}.mlp", "block_{i}/mlp"),
        *_mlp("layers.{i}.mlp", "block_{i}/mlp", _GATED),
        row("layers.{i}.layer_scale2.lambda1", "block_{i}/mlp_scale/scale"),
        *norm("layernorm", "encoder_norm"),
    ),
    marks=(r"embeddings\..*", r"layers\.\d+\.norm1\..*"),
    aliases=((r"^dinov2(?:_with_registers)?\.", ""), *_OLDER_BLOCKS),
    written_names=_WRITTEN_BLOCKS,
    not_written=_other_mlp,
    dropped={r"embeddings\.mask_token": _PRETRAINING},
    defaults={**TORCH_DEFAULTS, **_IMAGENET},
    **_CONFIG_FUNCTIONS,
    **_ONE_TOKEN,
)

# Dinov2ForImageClassification, also with registers, whose classifier reads the class token
# and the mean of the patches.
DINOV2_CLASSIFIER = replace(
    DINOV2,
    rows=(*DINOV2.rows, *weight_and_bias("classifier", "head", "transpose")),
    marks=(*DINOV2.marks, r"classifier\.weight"),
    defaults={**DINOV2.defaults, "pooling": "token_gap"},
)

_TOWER = (
    row("embeddings.patch_embedding.weight", "patch_embedding/kernel", "patches"),
    row("embeddings.position_embedding.weight", POSITIONS, "positions without batch"),
    *norm("layers.{i}.layer_norm1", "block_{i}/attention_norm"),
    *_attention("layers.{i}.self_attn", "block_{i}/attention", out="out_proj"),
    *norm("layers.{i}.layer_norm2", "block_{i}/mlp_norm"),
    *_mlp("layers.{i}.mlp", "block_{i}/mlp"),
    *norm("post_layernorm", "encoder_norm"),
)
_TOWER_NAMES = {
    "aliases": ((r"^vision_model\.", ""), (r"^encoder\.layers\.", "layers.")),
    "written_names": (
        (r"^layers\.", "encoder.layers."),
        (r"^(?!visual_projection\.|classifier\.)", "vision_model."),
    ),
}
_TEXT = "it belongs to the text tower"
_BESIDE_THE_TOWER = {
    r"text_model\..*": _TEXT,
    r"text_projection\.weight": _TEXT,
    r"logit_scale": "only comparisons of images and texts use it",
    r"logit_bias": "only comparisons of images and texts use it",
    r"embeddings\.position_ids": "it counts from 0, no weight",
}

CLIP = Layout(
    name="huggingface clip",
    rows=(
        *_TOWER,
        row("embeddings.class_embedding", "class_token/tokens", "add first axis"),
        *norm("pre_layrnorm", "pre_norm"),  # transformers' spelling
        row("visual_projection.weight", ("head/kernel", "head/bias"), "head without bias"),
    ),
    marks=(
        r"embeddings\.class_embedding|pre_layrnorm\..*",
        r"layers\.\d+\.layer_norm1\..*",
    ),
    dropped=_BESIDE_THE_TOWER,
    **_TOWER_NAMES,
    # OpenCLIP's have the first, OpenAI's and Meta's the second.
    undecided=lambda fields: {"mlp": ("gelu", "quick_gelu")},
    defaults={
        "mlp": "quick_gelu",
        "layer_norm_epsilon": 1e-5,
        "position_interpolation": "bicubic",
        **_CLIP_IMAGES,
    },
    **(
        _CONFIG_FUNCTIONS
        | {"architecture_arguments": partial(_architecture_arguments, mlp="quick_gelu")}
    ),
    **_ONE_TOKEN,
)

SIGLIP = Layout(
    name="huggingface siglip",
    rows=(
        *_TOWER,
        row("embeddings.patch_embedding.bias", "patch_embedding/bias"),
        row("head.probe", "pooling/probe", "drop first axis"),
        row(
            "head.attention.in_proj_weight", "pooling/attention/qkv/kernel", "fused weight"
        ),
        row("head.attention.in_proj_bias", "pooling/attention/qkv/bias", "fused bias"),
        *weight_and_bias(
            "head.attention.out_proj", "pooling/attention/projection", "projection"
        ),
        *norm("head.layernorm", "pooling/mlp_norm"),
        *_mlp("head.mlp", "pooling/mlp"),
    ),
    marks=(r"embeddings\..*", r"layers\.\d+\.layer_norm1\..*"),
    dropped=_BESIDE_THE_TOWER,
    **_TOWER_NAMES,
    defaults={**TORCH_DEFAULTS, "gelu_approximate": True},
    **_CONFIG_FUNCTIONS,
)

# SigLIP 2 NaFlex, as it is written; `SIGLIP` reads both.
SIGLIP2 = replace(
    SIGLIP,
    name="huggingface siglip2",
    rows=tuple(
        each._replace(move="flat patches") if each.move == "patches" else each
        for each in SIGLIP.rows
    ),
)

# SiglipForImageClassification, whose classifier reads the mean of the tokens.
SIGLIP_CLASSIFIER = replace(
    SIGLIP,
    rows=(*SIGLIP.rows, *weight_and_bias("classifier", "head", "transpose")),
    marks=(*SIGLIP.marks, r"classifier\.weight"),
    dropped={
        **SIGLIP.dropped,
        r"head\..*": "the classifier reads the mean of the tokens instead",
    },
    defaults={**SIGLIP.defaults, "pooling": "gap"},
)

LAYOUTS = (BEIT, DEIT, VIT, DINOV2_CLASSIFIER, DINOV2, CLIP, SIGLIP_CLASSIFIER, SIGLIP)
