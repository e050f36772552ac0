"""The array moves of the conversion tables, each with its inverse."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CHANNELS = 3  # of patches in a row


class Dims(NamedTuple):
    """Dimensions that the shapes of arrays do not tell.

    Attributes:
        num_heads: number of attention heads.
        num_prefix: number of positions of the tokens before the patches.
        grid: (rows, columns) of the patches with positions.
        pooling_num_heads: number of attention heads of the pooling; `None` for
            `num_heads`.
        decoder_num_heads: number of attention heads of a masked autoencoder's decoder.
    """

    num_heads: int
    num_prefix: int = 0
    grid: tuple[int, int] | None = None
    pooling_num_heads: int | None = None
    decoder_num_heads: int | None = None

    def at(self, path: str) -> "Dims":
        """The dimensions for one of our weights, with the number of heads of its layer."""
        if self.pooling_num_heads and path.startswith("pooling/"):
            return self._replace(num_heads=self.pooling_num_heads)
        if self.decoder_num_heads and path.startswith("decoder/"):
            return self._replace(num_heads=self.decoder_num_heads)
        return self


class Move(NamedTuple):
    """Tensors of a file → our arrays, and back.

    Both functions take `Dims` and arrays, and return a tuple of arrays. They take arrays of
    a dtype without bytes, too, for shapes without reading a file.
    """

    forward: Callable
    inverse: Callable


def _transpose(matrix):
    """The transposed matrix, contiguous in memory.

    Copies strips as wide as a line of the processor's cache, which is four times as fast
    as NumPy's copy of a transposed view (1.9 against 0.44 GB/s for 4096 × 1024).
    """
    rows, columns = matrix.shape
    if not matrix.dtype.itemsize:  # only for its shape
        return matrix.T
    transposed = np.empty((columns, rows), matrix.dtype)
    for start in range(0, rows, 16):
        transposed[:, start : start + 16] = matrix[start : start + 16].T
    return transposed


def _qkv_weights(*parts):
    """Move of matrices (out, in) of queries, keys and values; `parts` are in thirds."""

    def forward(dims, *weights):
        kernel = _transpose(_concatenate(weights, parts))
        return (kernel.reshape(len(kernel), 3, dims.num_heads, -1),)

    def inverse(dims, kernel):
        weight = _transpose(kernel.reshape(len(kernel), -1))
        return _split(weight, parts)

    return Move(forward, inverse)


def _qkv_biases(*parts):
    def forward(dims, *biases):
        bias = _concatenate(biases, parts)
        (_,) = bias.shape
        return (bias.reshape(3, dims.num_heads, -1),)

    return Move(forward, lambda dims, bias: _split(bias.reshape(-1), parts))


def _key_value_weights(dims, *weights):
    kernel = _transpose(np.concatenate(weights))
    return (kernel.reshape(len(kernel), 2, dims.num_heads, -1),)


_TWO_BIASES = Move(
    lambda dims, *biases: (np.stack(biases).reshape(2, dims.num_heads, -1),),
    lambda dims, bias: tuple(bias.reshape(2, -1)),
)


def _masked_bias(dims, bias, mask):
    """The biases of queries and values in one of all three, whose key third is masked."""
    expected = np.repeat((1, 0, 1), len(mask) // 3)
    if mask.dtype.itemsize and not np.array_equal(mask, expected):
        raise ValueError("the mask of its biases is not 1 for q, 0 for k and 1 for v")
    return (bias.reshape(3, dims.num_heads, -1)[[0, 2]],)


def _bias_and_mask(dims, bias):
    query, value = bias.reshape(2, -1)
    none, one = np.zeros_like(query), np.ones_like(query)
    return np.concatenate([query, none, value]), np.concatenate([one, none, one])


def _concatenate(arrays, parts):
    """Concatenates arrays, whose sizes must be `parts`, in thirds of the result."""
    if len(arrays) == 1:
        return arrays[0]
    result = np.concatenate(arrays)
    for array, part in zip(arrays, parts, strict=True):
        if 3 * len(array) != part * len(result):
            raise ValueError("its parts are not of one size")
    return result


def _split(array, parts):
    """Splits an array of queries, keys and values; `parts` are in thirds."""
    third = array.shape[0] // 3
    return tuple(np.split(array, [third * end for end in np.cumsum(parts)[:-1]]))


def _split_positions(dims, positions):
    """(1, tokens, hidden_dim) or (tokens, hidden_dim) → positions of prefix and grid."""
    positions = positions.reshape(-1, positions.shape[-1])
    prefix, grid = np.split(positions, [dims.num_prefix])
    return prefix, grid.reshape(*dims.grid, -1)


def _join_positions(dims, prefix, grid):
    return np.concatenate([prefix, grid.reshape(-1, grid.shape[-1])])


def _split_table(dims, table):
    """BEiT's numbers for each offset of patches, row by row, and for the class token."""
    offsets, prefix = table[:-3], table[-3:]
    shape = tuple(2 * number - 1 for number in dims.grid)
    return prefix, offsets.reshape(*shape, table.shape[-1])


def _join_table(dims, prefix, grid):
    return (np.concatenate([grid.reshape(-1, grid.shape[-1]), prefix]),)


def _patch_kernel(dims, weight):
    """A convolution (out, in, height, width), or a dense layer of flat RGB patches."""
    if weight.ndim == 4:
        return (weight.transpose(2, 3, 1, 0),)
    side = math.isqrt(weight.shape[1] // CHANNELS)
    if side**2 * CHANNELS != weight.shape[1]:
        raise ValueError(f"its patches are no squares of {CHANNELS} channels")
    return (_transpose(weight).reshape(side, side, CHANNELS, -1),)


def _flat_patch_kernel(dims, kernel):
    """A dense layer of flat RGB patches, which are square."""
    height, width, channels, _ = kernel.shape
    if (height, channels) != (width, CHANNELS):
        raise ValueError(f"patches in a row are squares of {CHANNELS} channels")
    return (_transpose(kernel.reshape(-1, kernel.shape[-1])),)


def _grid_of_positions(dims, grid):
    """(1, rows, columns, hidden_dim) → no positions of a prefix, and the grid."""
    return np.empty((0, grid.shape[-1]), grid.dtype), np.squeeze(grid, 0)


def _without_bias(dims, kernel, bias):
    if bias.any():
        raise ValueError("the layout has no bias for the head, and the model's is not zero")
    return (_transpose(kernel),)


def _of_one_axis(dims, vector):
    """(1, 1, 1, channels), or in newer files (channels,) → (channels,)."""
    return (vector.reshape(vector.shape[-1:]),)


MOVES = {
    "same": Move(lambda dims, a: (a,), lambda dims, a: (a,)),
    "transpose": Move(lambda dims, a: (_transpose(a),), lambda dims, a: (_transpose(a),)),
    "drop first axis": Move(
        lambda dims, a: (np.squeeze(a, 0),), lambda dims, a: (a[None],)
    ),
    "add first axis": Move(lambda dims, a: (a[None],), lambda dims, a: (np.squeeze(a, 0),)),
    # Google: (hidden_dim, heads, head_dim) each.
    "stack kernels": Move(
        lambda dims, *kernels: (np.stack(kernels, axis=1),),
        lambda dims, kernel: tuple(np.moveaxis(kernel, 1, 0)),
    ),
    "stack biases": Move(
        lambda dims, *biases: (np.stack(biases, axis=0),), lambda dims, bias: tuple(bias)
    ),
    # Group norms of the paper's hybrids.
    "spread over four axes": Move(_of_one_axis, lambda dims, a: (a[None, None, None],)),
    # A dense layer written as a convolution.
    "convolution of one pixel": Move(
        lambda dims, a: (np.squeeze(a, (0, 1)),), lambda dims, a: (a[None, None],)
    ),
    "convolution of one pixel in torch": Move(
        lambda dims, a: (_transpose(np.squeeze(a, (2, 3))),),
        lambda dims, a: (_transpose(a)[..., None, None],),
    ),
    # torch: convolutions (out, in, height, width), dense layers (out, in).
    "convolution": Move(
        lambda dims, a: (a.transpose(2, 3, 1, 0),),
        lambda dims, a: (a.transpose(3, 2, 0, 1),),
    ),
    "patches": Move(_patch_kernel, lambda dims, a: (a.transpose(3, 2, 0, 1),)),
    "flat patches": Move(_patch_kernel, _flat_patch_kernel),
    # torch: (channels, 1, height, width); Keras: (height, width, channels, 1).
    "depthwise convolution": Move(
        lambda dims, a: (a.transpose(2, 3, 0, 1),),
        lambda dims, a: (a.transpose(2, 3, 0, 1),),
    ),
    "fuse weights of q k v": _qkv_weights(1, 1, 1),
    "fuse biases of q k v": _qkv_biases(1, 1, 1),
    "fuse weights of q kv": _qkv_weights(1, 2),
    "fuse biases of q kv": _qkv_biases(1, 2),
    "fused weight": _qkv_weights(3),
    "fused bias": _qkv_biases(3),
    "fuse weights of k v": Move(
        _key_value_weights,
        lambda dims, a: tuple(np.split(_transpose(a.reshape(len(a), -1)), 2)),
    ),
    "fuse biases of k v": _TWO_BIASES,
    "stack biases of q v": _TWO_BIASES,
    "masked bias of q k v": Move(_masked_bias, _bias_and_mask),
    # The gate of an MLP and the values that it multiplies.
    "fuse weights of gate and values": Move(
        lambda dims, *a: (_transpose(_concatenate(a, (1.5, 1.5))),),
        lambda dims, a: tuple(np.split(_transpose(a), 2)),
    ),
    "fuse biases of gate and values": Move(
        lambda dims, *a: (_concatenate(a, (1.5, 1.5)),),
        lambda dims, a: tuple(np.split(a, 2)),
    ),
    "projection": Move(
        lambda dims, a: (_transpose(a).reshape(dims.num_heads, -1, a.shape[0]),),
        lambda dims, a: (_transpose(a.reshape(-1, a.shape[2])),),
    ),
    "positions": Move(
        _split_positions, lambda dims, *arrays: (_join_positions(dims, *arrays)[None],)
    ),
    "grid of positions": Move(_grid_of_positions, lambda dims, prefix, grid: (grid[None],)),
    "positions without batch": Move(
        _split_positions, lambda dims, *arrays: (_join_positions(dims, *arrays),)
    ),
    "table of offsets": Move(_split_table, _join_table),
    "head without bias": Move(
        lambda dims, a: (_transpose(a), np.zeros(a.shape[0], a.dtype)), _without_bias
    ),
}
