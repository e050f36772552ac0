"""Arguments of a model from the names and shapes of its weights, and checks of others."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from keras_vit.layers.mlp import GATED
from keras_vit.layers.normalization import NORMS
from keras_vit.layers.rotary import checked_rope
from keras_vit.layers.standardized_conv import STANDARDIZATIONS
from keras_vit.models.efficientnet import TOP_FILTERS
from keras_vit.models.resnet_stem import ROOT_FILTERS
from keras_vit.resize import INTERPOLATIONS
from keras_vit.weights.layouts.layout import OFFSETS, POSITIONS

Shapes = Mapping[str, tuple[int, ...]]
ShapeOf = Callable[[str, int], tuple[int, ...]]

KERNEL = "patch_embedding/kernel"
FREQUENCIES = "block_0/attention/frequencies"
STEM = "stem_"
ROOTS = ("stem_root/conv/kernel", "root/conv/kernel")  # of hybrids and BiT
EFFICIENTNET_STEM = "stem_conv/kernel"
RESNET = ("group_norm_epsilon", "standardization", "standardization_epsilon")
METADATA_KEY = "keras_vit"  # of our own files, for arguments that shapes do not tell


def num_units(
    names: Iterable[str], prefix: str = "", root: str = "root/conv/kernel"
) -> tuple[int, ...] | None:
    """The number of units of each stage of a ResNet, or None without a root.

    Args:
        names: paths of our weights.
        prefix: beginning of the paths of the ResNet.
        root: path of the first kernel after the prefix.

    Raises:
        ValueError: if the number of a stage or a unit is missing.
    """
    stages, has_root = {}, False
    for name in names:
        has_root = has_root or name == f"{prefix}{root}"
        if match := re.match(rf"{prefix}stage_(\d+)_unit_(\d+)[/_]", name):
            stages.setdefault(int(match[1]), set()).add(int(match[2]))
    if not has_root:
        return None
    units = tuple(len(stages[stage]) for stage in sorted(stages))
    if sorted(stages) != [*range(len(stages))] or any(
        max(numbers) >= len(numbers) for numbers in stages.values()
    ):
        found = ", ".join(f"{stage}: {sorted(stages[stage])}" for stage in sorted(stages))
        raise ValueError(f"stages or units are missing, found {found}")
    return units


def _width_factor(kernel, filters=ROOT_FILTERS):
    """The factor of the channels that a kernel has at the width 1; a root's has 64."""
    width = kernel[-1] / filters
    return int(width) if width == int(width) else width


def bit_architecture_of(shapes: Shapes, shape: ShapeOf) -> dict[str, Any]:
    """Arguments of `BiTResNet` from the shapes of its weights.

    Args: as those of `architecture_of`.
    """
    root = shape("root/conv/kernel", 4)
    return {
        "num_units": num_units(shapes),
        "width_factor": _width_factor(root),
        "channels": root[2],
        "classes": shapes["head/kernel"][-1] if "head/kernel" in shapes else 0,
    }


def efficientnet_architecture_of(shapes: Shapes, shape: ShapeOf) -> dict[str, Any]:
    """Arguments of `EfficientNet` from the shapes of its weights.

    Args: as those of `architecture_of`.
    """
    return {
        "num_blocks": num_units(shapes, root=EFFICIENTNET_STEM),
        "width_factor": _width_factor(shape("top_conv/kernel", 4), TOP_FILTERS),
        "channels": shape(EFFICIENTNET_STEM, 4)[2],
        "classes": shapes["head/kernel"][-1] if "head/kernel" in shapes else 0,
    }


def grid_of_positions(shapes: Shapes) -> tuple[int, int] | None:
    """(rows, columns) of the patches that have learned positions, or None.

    Args:
        shapes: path of a weight → its shape.
    """
    for layer in ("position_embedding", "layer_positions", "block_0/layer_positions"):
        if f"{layer}/grid" in shapes:
            rows, columns = shapes[f"{layer}/grid"][:2]
            return rows, columns
        if f"{layer}/rows" in shapes and f"{layer}/columns" in shapes:
            return shapes[f"{layer}/rows"][0], shapes[f"{layer}/columns"][0]
    return None


def count_blocks(names: Iterable[str]) -> int:
    """Number of encoder blocks among the paths of our weights."""
    return sum(bool(re.fullmatch(r"block_\d+/attention_norm/gamma", n)) for n in names)


def architecture_of(shapes: Shapes, shape: ShapeOf) -> dict[str, Any]:
    """Arguments of `VisionTransformer` from the shapes of its weights.

    Args:
        shapes: path of a weight → its shape.
        shape: function of a path and the number of axes that its weight must have → shape.
    """
    patch_height, patch_width, channels, hidden_dim = shape("patch_embedding/kernel", 4)
    mlp_dim = shape("block_0/mlp/dense_2/kernel", 2)[0]
    stem = None
    if (units := num_units(shapes, STEM)) is not None:
        root = shape(f"{STEM}root/conv/kernel", 4)
        stem = {"num_units": units, "width_factor": _width_factor(root)}
        channels = root[2]
    fields = {
        "patch_size": (patch_height, patch_width),
        "hidden_dim": hidden_dim,
        "num_layers": count_blocks(shapes),
        "num_heads": shape("block_0/attention/qkv/kernel", 4)[2],
        "mlp_dim": mlp_dim,
        "channels": channels,
        "classes": shapes["head/kernel"][-1] if "head/kernel" in shapes else 0,
        "class_token": "class_token/tokens" in shapes,
        "distilled": "distillation_token/tokens" in shapes,
        "num_registers": shapes.get("registers/tokens", (0,))[0],
        "num_prefix_positions": shapes.get(POSITIONS[0], (0,))[0],
        "representation_size": None,
        "pre_norm": "pre_norm/gamma" in shapes,
        "fc_norm": "fc_norm/gamma" in shapes,
        "patch_norm": "patch_norm/gamma" in shapes,
        "patch_bias": "patch_embedding/bias" in shapes,
        "qkv_bias": "block_0/attention/qkv/bias" in shapes,
        "attention_sub_norm": "block_0/attention/sub_norm/gamma" in shapes,
        "mlp_bias": "block_0/mlp/dense_1/bias" in shapes,
        "projection_bias": "block_0/attention/projection/bias" in shapes,
        "mlp_sub_norm": "block_0/mlp/sub_norm/gamma" in shapes,
        "qk_norm": "block_0/attention/query_norm/gamma" in shapes,
        "stem": stem,
        # The initial value, which the file replaces.
        "layer_scale": 1e-5 if "block_0/attention_scale/scale" in shapes else None,
    }
    if "block_0/attention/query_value_bias" in shapes:
        fields["qkv_bias"] = "qv"
    if OFFSETS[1].format(i=0) in shapes:
        fields["position"] = "relative"
    if "block_0/attention/relative_keys/grid" in shapes:
        fields["position"] = "relative_key"
    fields |= _learned_positions(shapes)
    if FREQUENCIES in shapes:
        fields["rope"] = "mixed"
    if "pre_logits/kernel" in shapes:
        fields["representation_size"] = shapes["pre_logits/kernel"][-1]
    if "pooling/key_value/kernel" in shapes:
        heads = shape("pooling/key_value/kernel", 4)[2]
        fields["pooling"] = "query"
        fields |= _other_sizes(fields, pooling_num_heads=heads)
    elif "pooling/probe" in shapes:
        fields["pooling"] = "map"
        fields |= _other_sizes(
            fields,
            pooling_num_heads=shape("pooling/attention/qkv/kernel", 4)[2],
            pooling_mlp_dim=shape("pooling/mlp/dense_2/kernel", 2)[0],
        )
    return fields


def _learned_positions(shapes):
    """Arguments of learned positions that differ from the default."""
    places = {
        "position_embedding": {},
        "layer_positions": {"position_at": "each_layer_shared"},
        "block_0/layer_positions": {"position_at": "each_layer"},
    }
    for layer, fields in places.items():
        if f"{layer}/rows" in shapes:
            return {"position": "learned2d", **fields}
        if f"{layer}/grid" in shapes:
            own = shapes.get(f"{layer}/prefix", (0,))[0]
            return {**fields, "num_prefix_positions": own} if fields else {}
    return {}


def _other_sizes(fields, **sizes):
    """Sizes of the pooling that are others than those of the blocks; `None` for equal."""
    same = {name: fields[name.removeprefix("pooling_")] for name in sizes}
    return {name: None if size == same[name] else size for name, size in sizes.items()}


def _number(value):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -1e9 < value < 1e9


def _per_channel(value):
    return _number(value) or (
        isinstance(value, list | tuple) and value and all(map(_number, value))
    )


def _natural(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _rope(value):
    try:
        return checked_rope(value) is not None
    except (ValueError, TypeError):
        return False


def _size(value):
    pair = (value, value) if _natural(value) else value
    return isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_natural, pair))


# Arguments that shapes do not tell, but a config or our metadata may → True if a value is
# possible.
CHECKS: dict[str, Callable[[Any], bool]] = {
    "num_heads": lambda value: _natural(value) and value > 0,
    "image_size": _size,
    "pooling": lambda value: value in ("token", "gap", "map", "token_gap", "query"),
    "pooling_num_heads": lambda value: _natural(value) and value > 0,
    "pooling_prefix": lambda value: isinstance(value, bool),
    "final_norm": lambda value: isinstance(value, bool),
    "mlp": lambda value: value in ("gelu", "quick_gelu", *GATED),
    "gelu_approximate": lambda value: isinstance(value, bool),
    "layer_norm_epsilon": lambda value: _number(value) and 0 < value < 1,
    "position_interpolation": lambda value: value in INTERPOLATIONS,
    "num_prefix_positions": _natural,
    "position": lambda value: value == "none",
    "rope": _rope,
    "norm": lambda value: value in NORMS,
    "norm_after": lambda value: isinstance(value, bool),
    "group_norm_epsilon": lambda value: _number(value) and 0 < value < 1,
    "standardization": lambda value: value in STANDARDIZATIONS,
    "standardization_epsilon": lambda value: _number(value) and 0 < value < 1,
    "image_mean": _per_channel,
    "image_std": lambda value: _per_channel(value) and np.min(value) > 0,
}


def checked_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments from a file, lists as tuples.

    Raises:
        ValueError: if a name is not in `CHECKS`, or a value cannot be one of its argument.
    """
    for key, value in arguments.items():
        if key not in CHECKS or not CHECKS[key](value):
            raise ValueError(f"{key}={value!r} is no possible argument of the model")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
