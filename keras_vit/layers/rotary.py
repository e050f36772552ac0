"""Rotary position embedding: queries and keys of patches turn by angles of their place."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit import arguments
from keras_vit.layers import kernels
from keras_vit.layers.sincos import namespace
from keras_vit.types import Shape, Tensor

# What the models of each kind have in common, unless their `rope` says otherwise.
KINDS = {
    "dinov3": {"temperature": 100.0, "pairs": "halves"},
    "cat": {"temperature": 10_000.0, "indexing": "ij"},
    "axial": {"temperature": 100.0, "indexing": "xy"},
    "mixed": {"temperature": 10.0, "indexing": "xy"},
}
_DEFAULTS = {"pairs": "neighbours", "reference_grid": None, "offset": 0.0, "periods": None}
_ONLY = {"reference_grid": ("cat",), "offset": ("cat",), "periods": ("dinov3",)}
_ONLY |= {"indexing": ("cat", "axial", "mixed")}


def checked_rope(
    rope: Mapping | str | None, head_dim: int | None = None
) -> dict[str, Any] | None:
    """The description of rotary positions with all of its entries, or `None` without one.

    Args:
        rope: a dictionary, see `RotaryEmbedding`, or the `"kind"` alone.
        head_dim: int, width of a head, a multiple of 4; `None` if it is not known yet.

    Raises:
        ValueError: if an entry is unknown, out of its range or not of this kind.
    """
    if rope is None:
        return None
    given = {"kind": rope} if isinstance(rope, str) else dict(rope)
    kind = arguments.one_of(given.get("kind"), tuple(KINDS), "rope['kind']")
    known = {"kind": kind, **_DEFAULTS, **KINDS[kind]}
    unknown = set(given) - set(known)
    others = {
        name
        for name, kinds in _ONLY.items()
        if kind not in kinds and given.get(name, _DEFAULTS.get(name)) != known.get(name)
    }
    if unknown or others:
        usual = sorted(name for name in known if kind in _ONLY.get(name, (kind,)))
        raise ValueError(
            f"`rope` of kind {kind!r} has the entries {', '.join(usual)}. Received: "
            f"{', '.join(sorted(unknown | others))} in rope={rope!r}"
        )
    if head_dim is not None and head_dim % 4:
        raise ValueError(
            "Rotary positions need heads of a width divisible by 4 (pairs of channels for "
            f"two axes). Received: head_dim={head_dim}"
        )
    known |= given
    arguments.one_of(known["pairs"], ("halves", "neighbours"), "rope['pairs']")
    if "indexing" in known:
        arguments.one_of(known["indexing"], ("ij", "xy"), "rope['indexing']")
    if known["reference_grid"] is not None:
        pair = arguments.pair(known["reference_grid"], "rope['reference_grid']")
        known["reference_grid"] = pair
    if known["periods"] is not None:
        known["periods"] = _checked_periods(known["periods"], head_dim)
    return known


def _checked_periods(periods, head_dim):
    periods = tuple(float(period) for period in periods)
    is_long = head_dim is not None and len(periods) != head_dim // 4
    if is_long or min(periods, default=0) <= 0:
        raise ValueError(
            "`rope['periods']` must be head_dim / 4 positive numbers. Received: "
            f"{len(periods)} numbers {periods} for head_dim={head_dim}"
        )
    return periods


@keras.saving.register_keras_serializable(package="keras_vit")
class RotaryEmbedding(keras.layers.Layer):
    """Computes the angles by which queries and keys turn, from the place of each token.

    Source: *RoFormer* (arXiv 2104.09864), section 3.2. In two dimensions half of a head's
    angles belong to the rows and half to the columns. The kinds:

    - `"dinov3"` (arXiv 2508.10104, section 3.2): coordinates from -1 to 1, pairs in halves.
    - `"cat"` (EVA-02, arXiv 2303.11331; Perception Encoder, arXiv 2504.13181): places in a
      grid, rescaled to the `reference_grid` of the pre-training.
    - `"axial"` and `"mixed"` (RoPE-ViT, arXiv 2403.13298, section 3): places in the grid;
      `"mixed"` learns frequencies of both axes for each head of each block.

    Args:
        rope: dictionary of `"kind"` and, where they differ from the kind's own:
            `"temperature"`, the base of the frequencies; `"pairs"`, which channels turn
            together, `"halves"` (j and j + head_dim / 2) or `"neighbours"` (2j and
            2j + 1); `"indexing"`, which axis comes first, `"ij"` (rows) or `"xy"`
            (columns); for `"cat"` also `"reference_grid"` (rows, columns) and `"offset"`,
            added to the places before they are rescaled; for `"dinov3"` `"periods"`,
            head_dim / 4 numbers that a checkpoint holds in place of the computed ones.
        head_dim: int, width of a head, a multiple of 4.
        num_prefix: int, number of tokens before the patches (class token, registers),
            which do not turn.

    Call arguments:
        patches: (batch, rows, columns, hidden_dim), of which the grid's size is read.

    Returns:
        float32 (2, num_prefix + rows * columns, head_dim): cosines and sines of each
        token's angles, the sines negative in the first channel of each pair. With the
        kind `"mixed"` float32 (num_prefix + rows * columns, 2): the two coordinates of
        each token, 0 for the prefix.

    Raises:
        ValueError: if an entry of `rope` is unknown or out of its range.
    """

    def __init__(
        self, rope: Mapping | str, head_dim: int, *, num_prefix: int = 0, **kwargs
    ):
        super().__init__(**kwargs)
        self.rope = checked_rope(rope, head_dim)
        self.head_dim = head_dim
        self.num_prefix = num_prefix
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, patches_shape: Shape) -> None:
        pass

    def call(self, patches: Tensor) -> Tensor:
        rows, columns = ops.shape(patches)[1:3]
        xp = namespace(rows, columns)
        places = _places(self.rope, rows, columns, xp)  # (rows * columns, 2)
        if self.rope["kind"] == "mixed":
            return ops.convert_to_tensor(_after_prefix(self.num_prefix, places, xp))
        frequencies = 1 / periods_of(self.rope, self.head_dim)
        angles = xp.expand_dims(places, 2) * frequencies  # (patches, 2, head_dim / 4)
        angles = xp.reshape(angles, (-1, self.head_dim // 2))
        angles = _after_prefix(self.num_prefix, angles, xp)
        return ops.convert_to_tensor(turns(angles, self.rope["pairs"], xp))

    def compute_output_spec(self, patches: keras.KerasTensor) -> keras.KerasTensor:
        _, rows, columns, _ = patches.shape
        tokens = None
        if rows is not None and columns is not None:
            tokens = self.num_prefix + rows * columns
        is_mixed = self.rope["kind"] == "mixed"
        shape = (tokens, 2) if is_mixed else (2, tokens, self.head_dim)
        return keras.KerasTensor(shape, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rope": self.rope,
            "head_dim": self.head_dim,
            "num_prefix": self.num_prefix,
        }


def _places(rope, rows, columns, xp):
    """Coordinates of the patches, row by row: float32 (rows * columns, 2)."""

    def along(size, axis):
        numbers = xp.arange(size, dtype="float32")
        size = xp.cast(size, "float32") if xp is ops else np.float32(size)
        if rope["kind"] == "dinov3":
            return np.float32(2 * np.pi) * (2 * (numbers + 0.5) / size - 1)
        if rope["kind"] == "cat":
            scale = rope["reference_grid"][axis] / size if rope["reference_grid"] else 1.0
            return (numbers + rope["offset"]) * scale
        return numbers

    row, column = xp.meshgrid(along(rows, 0), along(columns, 1), indexing="ij")
    first, second = (column, row) if rope.get("indexing") == "xy" else (row, column)
    return xp.stack([xp.reshape(first, (-1,)), xp.reshape(second, (-1,))], axis=-1)


def periods_of(rope: Mapping[str, Any], head_dim: int) -> np.ndarray:
    """Number of steps along an axis after which an angle is 1: float32 (head_dim / 4,).

    Args:
        rope: see `RotaryEmbedding`.
        head_dim: int, width of a head.
    """
    rope = checked_rope(rope, head_dim)
    if rope["periods"] is not None:
        return np.asarray(rope["periods"], "float32")
    exponents = np.arange(head_dim // 4, dtype="float32") / np.float32(head_dim // 4)
    return np.float32(rope["temperature"]) ** exponents


def _after_prefix(num_prefix, values, xp):
    """Rows of zeros for the prefix, which does not turn, then those of the patches."""
    if not num_prefix:
        return values
    prefix = np.zeros((num_prefix, values.shape[-1]), "float32")
    return xp.concatenate([prefix, values], axis=0)


def turns(angles: Tensor, pairs: str, xp: ModuleType = ops) -> Tensor:
    """Cosines and sines for each channel: (2, …, tokens, head_dim).

    The sines are negative in the first channel of each pair.

    Args:
        angles: (…, tokens, head_dim / 2), one for each pair of channels.
        pairs: `"halves"` or `"neighbours"`, see `RotaryEmbedding`.
        xp: `numpy` or `keras.ops`.
    """
    cosines, sines = xp.cos(angles), xp.sin(angles)
    shape = (*xp.shape(angles)[:-1], 2 * angles.shape[-1])

    def interleave(*channels):
        if pairs == "halves":
            return xp.concatenate(channels, axis=-1)
        return xp.reshape(xp.stack(channels, axis=-1), shape)

    return xp.stack([interleave(cosines, cosines), interleave(-sines, sines)])


def rotate(x: Tensor, cosines: Tensor, sines: Tensor, pairs: str) -> Tensor:
    """Turns pairs of channels.

    Args:
        x: (batch, heads, tokens, head_dim).
        cosines: of a shape that broadcasts against `x`, see `turns`.
        sines: of the same shape.
        pairs: `"halves"` or `"neighbours"`, see `RotaryEmbedding`.

    Returns:
        Tensor of the shape and dtype of `x`.
    """
    # Keras has cast the cosines and sines to the layer's compute dtype; the products and
    # sums are in float32.
    wide, cosines, sines = (ops.cast(each, "float32") for each in (x, cosines, sines))
    if pairs == "halves":
        first, second = ops.split(wide, 2, axis=-1)
        partners = ops.concatenate([second, first], axis=-1)
    else:
        even, odd = wide[..., ::2], wide[..., 1::2]
        partners = ops.reshape(ops.stack([odd, even], axis=-1), ops.shape(x))
    return ops.cast(kernels.add_product(wide * cosines, partners, sines), x.dtype)


def mixed_frequencies(temperature: float) -> Callable:
    """An initializer of learned frequencies, (2, num_heads, head_dim / 2).

    Source: RoPE-ViT (arXiv 2403.13298), the published code: two orthogonal directions for
    each head, at a random angle, with the frequencies of `"axial"`.
    """

    def initialize(shape, dtype=None, **kwargs):
        _, num_heads, head_dim = shape[0], shape[1], 2 * shape[2]
        exponents = np.arange(head_dim // 4, dtype="float32") / (head_dim // 4)
        sizes = ops.convert_to_tensor(np.float32(temperature) ** -exponents)
        direction = keras.random.uniform((num_heads, 1), 0, 2 * np.pi, dtype="float32")
        along = [direction, direction + np.pi / 2]
        axes = [
            ops.concatenate([sizes * function(angle) for angle in along], axis=-1)
            for function in (ops.cos, ops.sin)
        ]
        return ops.cast(ops.stack(axes), dtype or "float32")

    return initialize
