"""Similarity of position embeddings."""

import keras
import numpy as np
from keras import ops

from keras_vit import arguments
from keras_vit.analysis.passes import transformer
from keras_vit.models import VisionTransformer
from keras_vit.models.sizes import grid_size as grid_size_of


def position_similarity(
    model: keras.Model, grid_size: int | tuple[int, int] | None = None
) -> np.ndarray:
    """The cosine similarity between the position embeddings of all patches.

    Source: ViT (arXiv 2010.11929), figure 7 (middle) and appendix D.4.

    Args:
        model: a `VisionTransformer` whose positions are added to the patches: learned or
            fixed ones.
        grid_size: int or (rows, columns), to which a learned grid is resized first, as for
            images of another size; `None` for the model's own.

    Returns:
        float32 array (rows, columns, rows, columns): `similarity[r, c]` is the picture of
        the patch in row r and column c.

    Raises:
        ValueError: if the model adds no positions.
    """
    model = transformer(model, "A position embedding")
    if grid_size is not None:
        grid_size = arguments.pair(grid_size, "grid_size")
    grid = np.float64(_positions(model, grid_size))  # (rows, columns, hidden_dim)
    length = np.linalg.norm(grid, axis=-1, keepdims=True)
    grid = grid / np.where(length > 0, length, 1)  # zero is like no other
    return np.einsum("rcd,ijd->rcij", grid, grid, optimize=True).astype("float32")


def adds_positions(model: VisionTransformer) -> bool:
    """True if `position_similarity` has something to compare."""
    return model.get_layer("position_embedding").position in ("learned", "sincos2d")


def _positions(model: VisionTransformer, grid_size):
    layer, fields = model.get_layer("position_embedding"), model.arguments
    if layer.position == "none":
        raise ValueError(
            "`position_similarity` is that of positions that are added to the patches. "
            f"Received: a model with position={fields['position']!r}, "
            f"rope={fields['rope']}, whose attention has the positions: see "
            "`attention_maps`."
        )
    own = grid_size_of(fields["image_size"], fields["patch_size"], fields["stem"])
    found = layer.grid_positions(*(grid_size or own), fields["hidden_dim"])
    return ops.convert_to_numpy(ops.cast(found, "float32"))
