"""Fixed positions: sines and cosines of places, in one dimension and in two."""

from types import ModuleType
from typing import Any

import numpy as np
from keras import ops

from keras_vit.types import Tensor


def namespace(*sizes: Any) -> ModuleType:
    """NumPy if all sizes are known while tracing, else `keras.ops`.

    NumPy then computes once, on the host. Only TensorFlow has sizes that are tensors, in
    graphs for images of any size.
    """
    return np if all(isinstance(size, int) for size in sizes) else ops


def sincos(
    rows: int | Tensor, columns: int | Tensor, hidden_dim: int, xp: ModuleType = np
) -> Tensor:
    """Fixed positions in the raster order of the patches, at hidden_dim / 2 frequencies.

    Source: *Attention Is All You Need* (arXiv 1706.03762), section 3.5: channel 2i is the
    sine of place / 10000^(2i / hidden_dim), channel 2i + 1 its cosine.

    Args:
        rows: int (or scalar tensor with `xp=keras.ops`), height of the grid.
        columns: int (or scalar tensor with `xp=keras.ops`), width of the grid.
        hidden_dim: int, even.
        xp: `numpy`, or `keras.ops` where the size is known only inside the graph.

    Returns:
        Array of shape (rows, columns, hidden_dim).
    """
    exponents = xp.arange(hidden_dim // 2, dtype="float32") * (2 / hidden_dim)
    frequencies = xp.power(10_000.0, -exponents)
    places = xp.expand_dims(xp.arange(rows * columns, dtype="float32"), 1)
    angles = places * frequencies  # (rows * columns, hidden_dim / 2)
    pairs = xp.stack([xp.sin(angles), xp.cos(angles)], axis=-1)
    return xp.reshape(pairs, (rows, columns, hidden_dim))


def sincos2d(
    rows: int | Tensor,
    columns: int | Tensor,
    hidden_dim: int,
    xp: ModuleType = np,
    endpoint: bool = True,
) -> Tensor:
    """Fixed positions: sine and cosine of x, then of y, at hidden_dim / 4 frequencies.

    Args:
        rows: int (or scalar tensor with `xp=keras.ops`), height of the grid.
        columns: int (or scalar tensor with `xp=keras.ops`), width of the grid.
        hidden_dim: int, divisible by 4.
        xp: `numpy`, or `keras.ops` where the size is known only inside the graph.
        endpoint: bool, whether the lowest frequency is 1 / 10,000, as in BigVision, or one
            step above it, as in MAE (arXiv 2111.06377).

    Returns:
        Array of shape (rows, columns, hidden_dim).
    """
    quarter = hidden_dim // 4
    steps = max(quarter - 1, 1) if endpoint else quarter
    exponents = xp.arange(quarter, dtype="float32") / steps
    frequencies = xp.power(10_000.0, -exponents)
    y = xp.expand_dims(xp.arange(rows, dtype="float32"), 1) * frequencies
    x = xp.expand_dims(xp.arange(columns, dtype="float32"), 1) * frequencies
    x = xp.concatenate([xp.sin(x), xp.cos(x)], axis=-1)
    y = xp.concatenate([xp.sin(y), xp.cos(y)], axis=-1)
    return by_axes(x, y, xp)


def by_axes(x: Tensor, y: Tensor, xp: ModuleType = np) -> Tensor:
    """Positions of a grid whose first half depends on the column, the second on the row.

    Args:
        x: (columns, hidden_dim / 2).
        y: (rows, hidden_dim / 2).
        xp: `numpy` or `keras.ops`.

    Returns:
        (rows, columns, hidden_dim).
    """
    shape = (xp.shape(y)[0], xp.shape(x)[0], x.shape[-1])
    x = xp.broadcast_to(xp.expand_dims(x, 0), shape)
    y = xp.broadcast_to(xp.expand_dims(y, 1), shape)
    return xp.concatenate([x, y], axis=-1)


# Kind of fixed positions → its function, and a divisor of `hidden_dim`.
FIXED = {"sincos": (sincos, 2), "sincos2d": (sincos2d, 4)}
