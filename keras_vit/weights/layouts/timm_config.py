"""Arguments in timm's `config.json`, and of the architecture that a name stands for."""

from collections.abc import Mapping
from typing import Any

from keras_vit.weights.layouts.timm_eva_names import rope_of
from keras_vit.weights.layouts.timm_names import (
    SIZES,
    arguments_of,
    facts,
    known_name,
    name_in_path,
)
from keras_vit.weights.resolve import Undecided

# `global_pool` → `pooling`.
POOLINGS = {"avg": "gap", "token": "token", "map": "map"}
# `act_layer` → arguments.
ACTIVATIONS = {
    "gelu": {"mlp": "gelu", "gelu_approximate": False},
    "gelu_tanh": {"mlp": "gelu", "gelu_approximate": True},
    "quick_gelu": {"mlp": "quick_gelu"},
    "silu": {"mlp": "swiglu"},  # only with a gate in timm
    "swish": {"mlp": "swiglu"},
}


def config_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in timm's `config.json`, or in the arguments of its VisionTransformer."""
    theirs = arguments_of(config)
    pretrained = config.get("pretrained_cfg") or config  # older ones have no such part
    size = theirs.get("img_size") or (pretrained.get("input_size") or (None,))[1:]
    arguments = {
        "num_heads": theirs.get("num_heads"),
        "pooling_num_heads": theirs.get("attn_pool_num_heads"),
        "image_size": size or None,
        "image_mean": pretrained.get("mean"),
        "image_std": pretrained.get("std"),
        "pooling": POOLINGS.get(theirs.get("global_pool")),
        **ACTIVATIONS.get(theirs.get("act_layer"), {}),
    }
    if theirs.get("pool_include_prefix") and arguments["pooling"] in ("gap", "map"):
        arguments["pooling_prefix"] = True
    if theirs.get("no_embed_class"):
        arguments["num_prefix_positions"] = 0
    if theirs.get("pos_embed") in ("", "none"):
        arguments["position"] = "none"
    architecture = known_name(str(config.get("architecture")))
    arguments["rope"] = rope_of(architecture, theirs)
    return arguments


def architecture_arguments(
    config: Mapping[str, Any] | None, path: str, width: int
) -> list[tuple[str, dict[str, Any]]]:
    """Arguments of the architecture that a name stands for, or else timm's defaults."""
    config = config or {}
    architecture = config.get("architecture")
    name = known_name(str(architecture)) if architecture else name_in_path(path)
    theirs = arguments_of(config)
    if name in SIZES:
        named_width, heads = SIZES[name]
        if width not in (named_width, theirs.get("embed_dim")):
            heads = Undecided(f"the architecture {name} is not {width} wide")
        origin = "config.json: architecture" if architecture else "the path: architecture"
        return [(f"{origin} {name}", {"num_heads": heads, **facts(name)})]
    if architecture or "embed_dim" not in theirs:
        return []
    defaults = {"num_heads": 12, "layer_norm_epsilon": 1e-6, **ACTIVATIONS["gelu"]}
    if "glu" in str(theirs.get("mlp_layer", "")).lower():
        defaults["mlp"] = "geglu"  # timm's blocks give a gate their own default, GELU
    return [("the defaults of timm's VisionTransformer", defaults)]


def images_in_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a network without attention in timm's `config.json`."""
    arguments = config_arguments(config)
    return {key: arguments[key] for key in ("image_size", "image_mean", "image_std")}
