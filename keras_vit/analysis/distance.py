"""Mean attention distance: how far in the image the heads look."""

import numpy as np

from keras_vit import arguments
from keras_vit.analysis.attention import AttentionMaps, each_block


def attention_distance(
    maps: np.ndarray | AttentionMaps,
    grid_size: int | tuple[int, int] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    num_prefix: int | None = None,
    *,
    renormalize: bool = True,
) -> np.ndarray:
    """The distance between a patch and those that it reads, averaged by attention weight.

    Source: ViT (arXiv 2010.11929), figure 7 (right) and appendix D.7, where it compares to
    the receptive field of a convolution. It is the Euclidean distance between the middles
    of the patches, the mean over queries and images. Class token and registers are left
    out, as queries and as keys.

    Args:
        maps: array (blocks, batch, heads, tokens, tokens), as of `attention_maps`; or the
            result of `iterate_attention`, of which there is one block in memory at a time,
            and which knows the next three.
        grid_size: int or (rows, columns) of the patches.
        patch_size: int or (height, width) of a patch, in pixels.
        num_prefix: int, number of tokens before the patches; `None` for one, the class
            token.
        renormalize: bool, whether a query's weights of the patches are divided by their
            sum; otherwise the share of class token and registers counts as distance 0.

    Returns:
        float32 array (blocks, heads), in pixels.

    Raises:
        ValueError: if the sizes are missing, or do not fit the number of tokens.
    """
    if isinstance(maps, AttentionMaps):
        _check_not_given(grid_size, patch_size, num_prefix)
        grid = maps.grid
        grid_size, patch_size = (grid.rows, grid.columns), grid.patch_size
        num_prefix = grid.num_prefix
    num_prefix = 1 if num_prefix is None else num_prefix
    grid_size = arguments.pair(grid_size, "grid_size")
    distances = patch_distances(grid_size, arguments.pair(patch_size, "patch_size"))
    totals, queries = {}, {}
    for block, _, weights in each_block(maps):
        _check_tokens(weights.shape[-1], grid_size, num_prefix)
        patches = weights[:, :, num_prefix:, num_prefix:]  # (batch, heads, patches, …)
        found = query_distances(patches, distances, renormalize)
        totals[block] = totals.get(block, 0) + found.sum(axis=(0, 2), dtype="float64")
        queries[block] = queries.get(block, 0) + found.shape[0] * found.shape[2]
    means = [totals[block] / queries[block] for block in sorted(totals)]
    return np.stack(means).astype("float32")


def query_distances(
    patches: np.ndarray, distances: np.ndarray, renormalize: bool = True
) -> np.ndarray:
    """The mean distance of what each patch reads, by attention weight.

    Args:
        patches: (batch, heads, patches, patches), attention maps without the prefix.
        distances: of `patch_distances`.
        renormalize: bool, see `attention_distance`.

    Returns:
        (batch, heads, patches), in pixels.
    """
    found = np.einsum("bhqk,qk->bhq", patches, distances)
    if not renormalize:
        return found
    shares = patches.sum(axis=-1)
    # A query whose weights of the patches all round to zero reads none of them.
    return np.divide(found, shares, out=np.zeros_like(found), where=shares > 0)


def patch_distances(grid_size: tuple[int, int], patch_size: tuple[int, int]) -> np.ndarray:
    """Distances between the middles of patches, in pixels: float32 (patches, patches)."""
    rows, columns = (np.arange(n) * p for n, p in zip(grid_size, patch_size, strict=True))
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    offsets = (places[:, None] - places).astype("float32")
    return np.sqrt((offsets**2).sum(axis=-1))


def _check_not_given(*sizes):
    if any(size is not None for size in sizes):
        raise ValueError(
            "The result of `iterate_attention` knows grid_size, patch_size and num_prefix. "
            f"Received: {sizes}. Leave them out, or pass the array of `attention_maps`."
        )


def _check_tokens(tokens, grid_size, num_prefix):
    rows, columns = grid_size
    if num_prefix + rows * columns != tokens:
        raise ValueError(
            "`grid_size` and `num_prefix` must make the number of tokens, rows * columns + "
            f"num_prefix. Received: grid_size={grid_size}, num_prefix={num_prefix} for "
            f"{tokens} tokens. `token_grid(model, images)` tells them."
        )
