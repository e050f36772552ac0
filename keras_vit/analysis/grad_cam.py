"""Grad-CAM on patch tokens."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit.analysis.backend import gradients, without_gradients
from keras_vit.analysis.class_scores import (
    best_classes,
    check_heads,
    chosen_score,
    class_numbers,
    class_scores,
)
from keras_vit.analysis.passes import (
    BatchPass,
    batches,
    block_numbers,
    pass_block,
    token_grid,
    transformer,
)
from keras_vit.models.encoding import blocks_of, embedding, final_norm


def grad_cam(
    model: keras.Model,
    images: Any,
    classes: int | Sequence[int] | None = None,
    *,
    block: int = -1,
    batch_size: int = 8,
) -> np.ndarray:
    """Map of the patches that raise the score of a class.

    Source: *Grad-CAM* (arXiv 1610.02391), section 3, equations 1 and 2, with the patch
    tokens that a block reads in place of a convolution's feature map: `relu(Σ_k α_k A_k)`,
    where `A_k` is channel k of the tokens and `α_k` the mean over the patches of the
    score's gradient by it. The score is the logit, before the head's activation.

    Args:
        model: a `VisionTransformer` with a head.
        images: array (batch, height, width, channels), as the model takes them.
        classes: int, or one for each image; `None` for the class with the best score.
        block: int, number of the block whose inputs are taken, negative from the end. With
            a class token that is pooled, the last one's are the last that count.
        batch_size: int, number of images that pass the model at a time.

    Returns:
        float32 array (batch, rows, columns), not negative, on the scale of the score.

    Raises:
        ValueError: if the model has no head, or there is no such block or class.
    """
    model = transformer(model, "Grad-CAM")
    check_heads(model)
    number = _block_number(model, block)
    grid, embed, blocks = token_grid(model, images), embedding(model), blocks_of(model)
    wanted = class_numbers(classes, len(images), model.arguments["classes"])

    def scores_of(inputs):
        for later in blocks[number:]:
            inputs = pass_block(later, inputs)
        tokens = final_norm(model, inputs["tokens"])
        return class_scores(model, tokens, inputs.get("sizes"))

    found = []
    for some in batches(images, batch_size):
        batch = BatchPass(embed, images[some], grid)
        for before in blocks[:number]:
            batch.enter(before)
        with without_gradients():
            best = None if wanted is not None else best_classes(scores_of(batch.inputs))
        chosen = wanted[some] if best is None else best
        slopes = _slopes(scores_of, batch.inputs, chosen)  # (batch, tokens, hidden_dim)
        tokens = ops.convert_to_numpy(ops.cast(batch.inputs["tokens"], "float32"))
        # A merged token's gradient is the sum of those of its places.
        slopes = slopes[:, grid.num_prefix :].sum(axis=1) / (grid.rows * grid.columns)
        values = np.einsum("btd,bd->bt", tokens, slopes)  # (batch, tokens)
        found.append(grid.maps(batch.places.take(values, axis=1)))
    return np.maximum(np.concatenate(found), 0)


def _block_number(model, block):
    if block is None or isinstance(block, str) or np.ndim(block):
        raise ValueError(f"`block` must be the number of one block. Received: {block!r}")
    return block_numbers(model, block)[0]


def _slopes(scores_of, inputs, classes):
    """Gradients of the classes' scores by the tokens, float32."""

    def score(tensors):
        return chosen_score(scores_of({**inputs, "tokens": tensors[0]}), classes), []

    (found,), _ = gradients(score, [inputs["tokens"]])
    return ops.convert_to_numpy(ops.cast(found, "float32"))
