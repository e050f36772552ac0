"""Checks of the arguments of a `VisionTransformer`."""

from collections.abc import Sequence
from math import prod
from types import SimpleNamespace
from typing import Any

from keras_vit import arguments
from keras_vit.layers.attention import QKV_BIASES
from keras_vit.layers.merging import count_merged
from keras_vit.layers.mlp import ACTIVATIONS
from keras_vit.layers.normalization import NORMS
from keras_vit.layers.position import LEARNED, check_width
from keras_vit.layers.position import POSITIONS as ABSOLUTE
from keras_vit.layers.rotary import checked_rope
from keras_vit.layers.sincos import FIXED
from keras_vit.models.images import check_head, check_images
from keras_vit.models.resnet_stem import checked_stem, map_size
from keras_vit.models.sizes import grid_size
from keras_vit.resize import INTERPOLATIONS

RELATIVE = ("relative", "relative_key")
POSITIONS = (*ABSOLUTE, *RELATIVE)
PLACES = ("stem", "each_layer", "each_layer_shared")  # at which positions are added
POOLINGS = ("token", "gap", "map", "token_gap", "query", None)
WITH_CLASS_TOKEN = ("token", "token_gap", None)  # poolings
WITH_HEADS = ("map", "query")
# Argument → the poolings that read it.
_OF_POOLINGS = {
    "pooling_num_heads": WITH_HEADS,
    "pooling_mlp_dim": ("map",),
    "pooling_prefix": ("gap", *WITH_HEADS),
}


def checked_fields(config: dict[str, Any]) -> SimpleNamespace:
    """The fields of a config with defaults filled in, each in one form.

    Raises:
        ValueError: if a field is out of its range, or two do not fit together.
    """
    c = SimpleNamespace(**config)
    check_images(c)
    check_head(c, POOLINGS)
    c.patch_size = arguments.pair(c.patch_size, "patch_size")
    for name in ("hidden_dim", "num_layers", "num_heads", "mlp_dim"):
        arguments.positive(getattr(c, name), name)
    for name in ("dropout_rate", "attention_dropout_rate", "drop_path_rate"):
        arguments.rate(getattr(c, name), name)
    c.rope = checked_rope(c.rope, arguments.head_dim(c.hidden_dim, c.num_heads))
    arguments.one_of(c.position, POSITIONS, "position")
    check_width(c.position, c.hidden_dim)
    arguments.one_of(c.position_at, PLACES, "position_at")
    arguments.one_of(c.mlp, ACTIVATIONS, "mlp")
    arguments.one_of(c.norm, tuple(NORMS), "norm")
    arguments.one_of(c.qkv_bias, QKV_BIASES, "qkv_bias")
    arguments.one_of(c.position_interpolation, INTERPOLATIONS, "position_interpolation")
    c.stem = checked_stem(c.stem)
    map_height_and_width = map_size(c.image_size, c.stem)
    if any(n % patch for n, patch in zip(map_height_and_width, c.patch_size, strict=True)):
        stem = f", which the stem makes {map_height_and_width}" if c.stem else ""
        raise ValueError(
            "`image_size` must be divisible by `patch_size`, in height and in width. "
            f"Received: image_size={c.image_size} (height, width){stem}, "
            f"patch_size={c.patch_size}, data_format={c.data_format!r}"
        )
    if c.class_token is None:
        c.class_token = c.pooling in WITH_CLASS_TOKEN
    _check_pooling(c)
    _check_distillation(c)
    c.num_prefix_positions = _checked_prefix_positions(c)
    _check_positions(c)
    if c.patch_bias is None:
        c.patch_bias = not c.pre_norm
    c.merged_tokens = _checked_merged_tokens(c)
    return c


def _check_positions(c):
    """Checks the place of positions, and that blocks with tables know the patches."""
    if c.position_at != "stem" and c.position not in (*LEARNED, *FIXED):
        raise ValueError(
            "`position_at` is the place at which positions are added to the tokens. "
            f"Received: position_at={c.position_at!r}, position={c.position!r}, which "
            "adds none. Use position_at='stem'."
        )
    needs_grid = c.position in RELATIVE or has_own_positions(c)
    if needs_grid and None in c.input_shape:
        raise ValueError(
            "A model with relative positions, or with learned ones in each layer, must "
            f"know the number of patches. Received: position={c.position!r}, position_at="
            f"{c.position_at!r}, input_shape={c.input_shape}. Give height and width; "
            "`keras_vit.from_pretrained(model, image_size=…)` makes a model of another "
            "size, whose tables are resized."
        )


def has_own_positions(c: SimpleNamespace) -> bool:
    """True if each block has learned positions of its own."""
    return c.position_at == "each_layer" and c.position in LEARNED


def _check_pooling(c):
    """Checks the arguments of the pooling and of the norm around it."""
    if c.fc_norm and c.pooling is None:
        raise ValueError(
            "`fc_norm` is a norm of the pooled features. Received: fc_norm=True, "
            "pooling=None. Use pooling='token', 'gap' or 'map', or fc_norm=False, which "
            "norms every token."
        )
    if c.fc_norm and not c.final_norm:
        raise ValueError(
            "`fc_norm` is a final norm. Received: fc_norm=True, final_norm=False. Use "
            "fc_norm=False for a model without any."
        )
    if c.pooling in ("token", "token_gap") and not c.class_token:
        raise ValueError(
            f"`pooling={c.pooling!r}` reads the class token. Received: class_token=False. "
            "Use pooling='gap' or 'map' without one."
        )
    for name, poolings in _OF_POOLINGS.items():
        if getattr(c, name) and c.pooling not in poolings:
            raise ValueError(
                f"`{name}` is an argument of pooling={' or '.join(map(repr, poolings))}. "
                f"Received: {name}={getattr(c, name)!r}, pooling={c.pooling!r}. Leave it "
                "out with this pooling."
            )
    if c.pooling in WITH_HEADS:
        heads = c.num_heads if c.pooling_num_heads is None else c.pooling_num_heads
        c.pooling_num_heads = arguments.positive(heads, "pooling_num_heads")
        if c.hidden_dim % heads:
            raise ValueError(
                "`pooling_num_heads` must divide `hidden_dim`. Received: "
                f"pooling_num_heads={heads}, hidden_dim={c.hidden_dim}"
            )
    if c.pooling == "map":
        width = c.mlp_dim if c.pooling_mlp_dim is None else c.pooling_mlp_dim
        c.pooling_mlp_dim = arguments.positive(width, "pooling_mlp_dim")


def _check_distillation(c):
    """Checks that nothing else stands between a distillation token and its head."""
    others = {"pooling": ("token", None), "class_token": (True,), "fc_norm": (False,)}
    others["representation_size"] = (None,)
    for name, values in others.items() if c.distilled else ():
        if getattr(c, name) not in values:
            raise ValueError(
                "`distilled=True` gives class token and distillation token a head each. "
                f"Received: {name}={getattr(c, name)!r}. Use "
                f"{name}={' or '.join(map(repr, values))}, or distilled=False."
            )


def _checked_prefix_positions(c) -> int:
    """Number of tokens of the prefix that own a learned position."""
    learned = c.position in LEARNED
    if c.num_prefix_positions is None:
        return (c.class_token + c.distilled) * learned
    tokens = num_prefix(c)
    if c.num_prefix_positions not in range(tokens + 1 if learned else 1):
        raise ValueError(
            "`num_prefix_positions` must be at least 0 and at most the number of tokens "
            "before the patches (class token, distillation token, registers), and 0 where "
            "positions are not learned. Received: "
            f"num_prefix_positions={c.num_prefix_positions!r}, class_token="
            f"{c.class_token}, num_registers={c.num_registers} ({tokens} tokens), "
            f"position={c.position!r}. Use None for the default."
        )
    return c.num_prefix_positions


def _checked_merged_tokens(c) -> tuple[int, ...]:
    """Number of tokens that each block merges, at most half of the patches left to it."""
    numbers = c.merged_tokens
    if not isinstance(numbers, Sequence):
        numbers = (numbers,) * c.num_layers
    if len(numbers) != c.num_layers or not all(_is_count(number) for number in numbers):
        raise ValueError(
            "`merged_tokens` must be an integer of at least 0, or one for each of the "
            f"{c.num_layers} blocks. Received: merged_tokens={c.merged_tokens!r}"
        )
    if any(numbers) and None in c.input_shape:
        raise ValueError(
            "A model that merges tokens must know their number. Received: "
            f"merged_tokens={c.merged_tokens!r}, input_shape={c.input_shape}. Give an "
            "`input_shape` with height and width (`keras_vit.from_pretrained` makes such "
            "a model of this one), or use merged_tokens=0."
        )
    reads_places = c.position in RELATIVE or c.position_at != "stem"
    if any(numbers) and (c.rope is not None or reads_places):
        raise ValueError(
            "Tokens whose places the blocks read cannot be merged: a merged token has "
            f"several. Received: merged_tokens={c.merged_tokens!r}, rope={c.rope}, "
            f"position={c.position!r}, position_at={c.position_at!r}. Use merged_tokens=0."
        )
    tokens = num_prefix(c) + prod(grid_size(c.image_size, c.patch_size, c.stem))
    merged = []
    for number in numbers:
        merged.append(count_merged(number, tokens, num_prefix(c)))
        tokens -= merged[-1]
    return tuple(merged)


def _is_count(number):
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def num_prefix(c: SimpleNamespace) -> int:
    """Number of tokens before the patches: class token, distillation token, registers."""
    return c.class_token + c.distilled + c.num_registers
