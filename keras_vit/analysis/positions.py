"""Similarity of position embeddings."""

import keras
import numpy as np
from keras import ops

from keras_vit import arguments
from keras_vit.analysis.passes import block_numbers, transformer
from keras_vit.layers.position import LEARNED
from keras_vit.layers.sincos import FIXED
from keras_vit.models import VisionTransformer
from keras_vit.models.fields import has_own_positions
from keras_vit.models.sizes import grid_size as grid_size_of


def position_similarity(
    model: keras.Model,
    grid_size: int | tuple[int, int] | None = None,
    *,
    block: int | None = None,
) -> np.ndarray:
    """The cosine similarity between the position embeddings of all patches.

    Source: ViT (arXiv 2010.11929), figure 7 (middle) and appendix D.4.

    Args:
        model: a `VisionTransformer` whose positions are added to the patches: learned or
            fixed ones.
        grid_size: int or (rows, columns), to which learned positions are resized first, as
            for images of another size; `None` for the model's own.
        block: number of the block whose own positions these are, with
            `position_at="each_layer"`, a negative one from the end; `None` for others.

    Returns:
        float32 array (rows, columns, rows, columns): `similarity[r, c]` is the picture of
        the patch in row r and column c.

    Raises:
        ValueError: if the model adds no positions, or there is no such block.
    """
    model = transformer(model, "A position embedding")
    if grid_size is not None:
        grid_size = arguments.pair(grid_size, "grid_size")
    grid = np.float64(_positions(model, grid_size, block))  # (rows, columns, hidden_dim)
    length = np.linalg.norm(grid, axis=-1, keepdims=True)
    grid = grid / np.where(length > 0, length, 1)  # zero is like no other
    return np.einsum("rcd,ijd->rcij", grid, grid, optimize=True).astype("float32")


def adds_positions(model: VisionTransformer) -> bool:
    """True if `position_similarity` has one set of positions to compare."""
    fields = model.fields
    return fields.position in (*LEARNED, *FIXED) and not has_own_positions(fields)


def _positions(model: VisionTransformer, grid_size, block):
    fields = model.fields
    own = grid_size_of(fields.image_size, fields.patch_size, fields.stem)
    layer = _layer(model, block)
    found = layer.grid_positions(*(grid_size or own), fields.hidden_dim)
    return ops.convert_to_numpy(ops.cast(found, "float32"))


def _layer(model, block):
    """The layer whose positions are added to the patches."""
    fields = model.fields
    if fields.position not in (*LEARNED, *FIXED):
        raise ValueError(
            "`position_similarity` is that of positions that are added to the patches. "
            f"Received: a model with position={fields.position!r}, rope={fields.rope}, "
            "whose attention has the positions: see `attention_maps`."
        )
    if has_own_positions(fields) != (block is not None):
        raise ValueError(
            "`block` tells whose positions are meant where each block has its own. "
            f"Received: block={block!r}, a model with position={fields.position!r}, "
            f"position_at={fields.position_at!r}. "
            + ("Leave it out." if block is not None else "Give a number, such as block=0.")
        )
    if block is not None:
        (number,) = block_numbers(model, block)
        return model.get_layer(f"block_{number}").layer_positions
    at_stem = fields.position_at == "stem"
    return model.get_layer("position_embedding" if at_stem else "layer_positions")
