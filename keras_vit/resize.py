"""Resizing of position grids, tables of offsets and patch kernels by one matrix per axis.

In NumPy, and for position grids also inside a graph.
"""

import math
from types import ModuleType
from typing import Any

import numpy as np

INTERPOLATIONS = ("linear", "bilinear", "bicubic")


def resize_matrix(
    source: int, target: Any, interpolation: str = "linear", xp: ModuleType = np
) -> Any:
    """Matrix that resizes a vector of `source` values to `target` values.

    Args:
        source: number of values to read.
        target: int (or scalar tensor with `xp=keras.ops`), number of values to give.
        interpolation: `"linear"` aligns the corners, as the ViT paper's code does
            (`scipy.ndimage.zoom` of order 1); `"bilinear"` and `"bicubic"` align the
            areas and filter against aliasing, as FlexiViT (`jax.image.resize`) and timm
            (`antialias=True`) do.
        xp: `numpy`, or `keras.ops` where `target` is known only inside the graph.

    Returns:
        Array of shape (target, source) whose rows sum to 1.
    """
    rows = xp.arange(target, dtype="float64" if xp is np else "float32")
    # The last row and one is the target, as a float also where that is a tensor.
    return resize_weights(rows, source, rows[-1] + 1.0, interpolation, xp)


def resize_weights(
    places: Any,
    source: int,
    target: Any,
    interpolation: str = "linear",
    xp: ModuleType = np,
) -> Any:
    """Weights of a vector's values in those at some places of its resized form.

    Args:
        places: float (…), places from 0 to `target` - 1.
        source: number of values to read.
        target: float (…) or a scalar, number of values of the resized form.
        interpolation: see `resize_matrix`.
        xp: `numpy` or `keras.ops`.

    Returns:
        (…, source), whose sums over the last axis are 1.
    """
    columns = xp.arange(source, dtype="float64" if xp is np else "float32")
    rows = xp.expand_dims(places, -1)
    target = xp.expand_dims(target, -1)
    if interpolation == "linear":
        centers = rows * (source - 1) / xp.maximum(target - 1.0, 1.0)
        return xp.maximum(1.0 - xp.abs(centers - columns), 0.0)
    if interpolation in ("bilinear", "bicubic"):
        scale = source / target
        distances = xp.abs((rows + 0.5) * scale - (columns + 0.5))
        kernel = _cubic if interpolation == "bicubic" else _triangle
        weights = kernel(distances / xp.maximum(scale, 1.0), xp)
        return weights / xp.sum(weights, axis=-1, keepdims=True)
    raise ValueError(
        f"`interpolation` must be one of {', '.join(map(repr, INTERPOLATIONS))}. "
        f"Received: interpolation={interpolation!r}"
    )


def _triangle(x, xp):
    return xp.maximum(1.0 - x, 0.0)


def _cubic(x, xp):
    """Keys' cubic kernel at distances x >= 0, with the a = -0.5 of antialiasing."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return xp.where(x <= 1.0, near, xp.where(x < 2.0, far, 0.0))


def resize_grid(
    grid: np.ndarray, size: tuple[int, int], interpolation: str = "linear"
) -> np.ndarray:
    """Resizes a grid of position embeddings.

    Args:
        grid: array of shape (rows, columns, hidden_dim).
        size: the new (rows, columns).
        interpolation: `"linear"`, `"bilinear"` or `"bicubic"`, see `resize_matrix`.

    Returns:
        Array of shape (*size, hidden_dim) in the grid's dtype; the grid itself, to
        the last bit, where the size is the same.
    """
    if grid.shape[:2] == tuple(size):
        return grid
    rows = resize_matrix(grid.shape[0], size[0], interpolation)
    columns = resize_matrix(grid.shape[1], size[1], interpolation)
    resized = np.einsum("ir,rcd,jc->ijd", rows, grid, columns, optimize=True)
    return resized.astype(grid.dtype)


def resize_axis(values: np.ndarray, size: int, interpolation: str = "linear") -> np.ndarray:
    """Resizes position embeddings of one axis.

    Args:
        values: array of shape (rows or columns, width).
        size: the new number of rows or columns.
        interpolation: `"linear"`, `"bilinear"` or `"bicubic"`, see `resize_matrix`.

    Returns:
        Array of shape (size, width) in the values' dtype; the values themselves, to the
        last bit, where the size is the same.
    """
    if len(values) == size:
        return values
    return (resize_matrix(len(values), size, interpolation) @ values).astype(values.dtype)


def resize_offsets(table: np.ndarray, grid_size: tuple[int, int]) -> np.ndarray:
    """Resizes a table with a number for each offset between two patches of a grid.

    Linear between the old offsets, which are spread over the new ones in a geometric
    progression from the middle outwards. Neighbours so keep what they have, and the far
    offsets, on which little depends, are stretched; a table of a smaller grid is about the
    middle of the old one. Source: the fine-tuning code of BEiT (arXiv 2106.08254), whose
    curves are cubic; linear as in timm.

    Args:
        table: array of shape (2 rows - 1, 2 columns - 1, heads).
        grid_size: the new (rows, columns) of the patches.

    Returns:
        Array of shape (2 rows - 1, 2 columns - 1, heads) for the new grid, in the table's
        dtype; the table itself, to the last bit, where the size is the same.
    """
    size = tuple(2 * n - 1 for n in grid_size)
    if table.shape[:2] == size:
        return table
    rows, columns = (
        _offset_matrix(old // 2, new // 2)
        for old, new in zip(table.shape[:2], size, strict=True)
    )
    resized = np.einsum("ir,rch,jc->ijh", rows, table, columns, optimize=True)
    return resized.astype(table.dtype)


def resize_raster_offsets(table: np.ndarray, grid_size: tuple[int, int]) -> np.ndarray:
    """Resizes a table with a vector for each offset of two places in raster order.

    In raster order an offset is that of up to two pairs of rows and columns, such as three
    columns right, or one row down and the others left. The vectors of all such pairs are
    resized as by `resize_offsets`, and an offset gets the mean over all pairs of patches
    that have it.

    Args:
        table: array of shape (2 rows, columns, …), whose first entry is that of no pair.
        grid_size: the new (rows, columns) of the patches.

    Returns:
        Array of shape (2 rows, columns, …) for the new grid, in the table's dtype; the
        table itself, to the last bit, where the size is the same.
    """
    rows, columns = len(table) // 2, table.shape[1]
    if (rows, columns) == tuple(grid_size):
        return table
    vectors = table.reshape(2 * rows * columns, -1)
    places, _ = _raster_offsets(rows, columns)
    pairs = resize_offsets(vectors[places].astype("float64"), grid_size)
    places, numbers = _raster_offsets(*grid_size)
    resized = np.zeros((2 * math.prod(grid_size), vectors.shape[1]))
    total = np.zeros(len(resized))
    np.add.at(resized, places, pairs * numbers[..., None])
    np.add.at(total, places, numbers)
    resized /= np.maximum(total, 1)[:, None]
    shape = (2 * grid_size[0], grid_size[1], *table.shape[2:])
    return resized.reshape(shape).astype(table.dtype)


def _raster_offsets(rows, columns):
    """For each offset in rows and columns its place in a table, and how many pairs have it.

    Returns:
        Two arrays (2 rows - 1, 2 columns - 1).
    """
    down, right = np.mgrid[1 - rows : rows, 1 - columns : columns]
    numbers = (rows - abs(down)) * (columns - abs(right))
    return (rows + down) * columns + right, numbers


def grid_of_offsets(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of the patches whose table of offsets has a shape."""
    if len(shape) == 4:  # in raster order
        return shape[0] // 2, shape[1]
    rows, columns = ((number + 1) // 2 for number in shape[:2])
    return rows, columns


def _offset_matrix(source, target):
    """Matrix from offsets up to `source` to offsets up to `target`, in both directions."""
    # The ratio of the progression whose last offset is `target`, between 1.01 and 1.5.
    low, high, ratio = 1.01, 1.5, 1.01
    while high - low > 1e-6:
        ratio = (low + high) / 2
        is_beyond = (ratio**source - 1) / (ratio - 1) > target
        low, high = (low, ratio) if is_beyond else (ratio, high)
    outwards = np.cumsum(ratio ** np.arange(source))
    offsets = np.concatenate([-outwards[::-1], [0.0], outwards])
    wanted = np.arange(-target, target + 1)
    return np.stack([np.interp(wanted, offsets, row) for row in np.eye(len(offsets))], 1)


def resize_patch_kernel(kernel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes the kernel of a patch embedding so that resized patches embed alike.

    Enlarged patches give the embeddings that the original patches gave; for smaller ones
    it is the nearest that can be had (the pseudo-inverse of the patches' resizing).
    Source: FlexiViT (arXiv 2212.08013), section 3.4, PI-resize.

    Args:
        kernel: array of shape (height, width, channels, hidden_dim).
        size: the new (height, width), in pixels.

    Returns:
        Array of shape (*size, channels, hidden_dim) in the kernel's dtype; the kernel
        itself, to the last bit, where the size is the same.
    """
    if kernel.shape[:2] == tuple(size):
        return kernel
    rows, columns = (
        np.linalg.pinv(_bilinear_matrix(old, new).T)
        for old, new in zip(kernel.shape[:2], size, strict=True)
    )
    resized = np.einsum("ir,rcdh,jc->ijdh", rows, kernel, columns, optimize=True)
    return resized.astype(kernel.dtype)


def _bilinear_matrix(source, target):
    """Matrix of a bilinear resize of images: half-pixel centers, edges repeated."""
    centers = (np.arange(target) + 0.5) * source / target - 0.5
    centers = np.clip(centers, 0, source - 1)[:, None]
    return np.maximum(1.0 - np.abs(centers - np.arange(source)), 0.0)
