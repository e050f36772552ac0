"""Relevance of the patches for a class: attention weighted by its gradient."""

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
    batches,
    pass_block,
    token_grid,
    transformer,
)
from keras_vit.analysis.pooling import WITH_HEADS
from keras_vit.layers.observation import Observer, observed_by
from keras_vit.models.encoding import blocks_of, embedding, final_norm


def relevance(
    model: keras.Model,
    images: Any,
    classes: int | Sequence[int] | None = None,
    *,
    batch_size: int = 4,
) -> np.ndarray:
    """Map of the patches that count for the score of a class.

    Source: *Generic Attention-model Explainability* (arXiv 2103.15679), section 3.2,
    equations 5 and 6: for each block `Ā` is the mean over the heads of the positive part
    of weights times the score's gradient by them, and `R + Ā R` takes the place of the
    relevance R, which begins as the identity. It is the rule of *Transformer
    Interpretability Beyond Attention Visualization* (arXiv 2012.09838), section 3.2, with
    the attention weights themselves in place of their layer-wise relevance. The score is
    the logit, before the head's activation.

    The papers read the class token's row. With `distilled` it is the mean of both tokens'.
    Other poolings count as attention to another sequence, equations 8 to 10: `Ā R̄`, where
    the rows of R̄ are those of R, divided so that the identity is one half. `Ā` is that of
    the heads of `pooling="map"` or `"query"`; for averaged tokens it is the positive part
    of token times gradient, which is the same for equal weights.

    The score of a class that a model knows by the absence of others falls with each patch
    that it reads; its relevance lies anywhere.

    Args:
        model: a `VisionTransformer` with a head.
        images: array (batch, height, width, channels), as the model takes them.
        classes: int, or one for each image; `None` for the class with the best score.
        batch_size: int, number of images that pass the model at a time. All maps of a
            batch and their gradients are in memory.

    Returns:
        float32 array (batch, rows, columns), not negative; only the differences within an
        image have a meaning.

    Raises:
        ValueError: if the model has no head, or there is no such class.
    """
    model = transformer(model, "Relevance")
    check_heads(model)
    grid, embed = token_grid(model, images), embedding(model)
    wanted = class_numbers(classes, len(images), model.arguments["classes"])
    found = []
    for some in batches(images, batch_size):
        with without_gradients():
            inputs, plain = embed(images[some]), _Changes()
            tokens, scores = _forward(model, inputs, plain)
        chosen = best_classes(scores) if wanted is None else wanted[some]
        changes = [ops.zeros(shape, "float32") for shape in plain.shapes]
        changes.append(ops.zeros_like(tokens))

        def score(changes, inputs=inputs, chosen=chosen):
            seen = _Changes(changes)
            tokens, scores = _forward(model, inputs, seen)
            return chosen_score(scores, chosen), [*seen.weights, tokens, *seen.merges]

        slopes, others = gradients(score, changes)
        number = len(plain.shapes)
        merged = dict(zip(plain.merged, others[number + 1 :], strict=True))
        added, same = _flow(model, others[:number], slopes[:number], merged)
        pooled = _pooled(model, added, same, others[: number + 1], slopes)
        found.append(grid.maps(pooled))
    return np.concatenate(found)


class _Changes(Observer):
    """Adds a change to the weights of each attention, of which gradients are taken.

    Args:
        changes: a tensor for each attention, in order; `None` to note the shapes alone.
    """

    def __init__(self, changes=None):
        self.changes, self.weights, self.shapes = changes, [], []
        self.merges = []  # of each block that merges, (batch, fewer tokens, tokens)
        self.merged = []  # the numbers of these blocks

    def see_weights(self, weights):
        number = len(self.shapes)
        self.shapes.append(tuple(weights.shape))
        if self.changes is None:
            return weights
        self.weights.append(weights)
        return weights + ops.cast(self.changes[number], weights.dtype)

    def see_merging(self, merge):
        self.merged.append(len(self.shapes) - 1)
        batch, _, _, tokens = self.shapes[-1]
        same = ops.broadcast_to(ops.eye(tokens), (batch, tokens, tokens))
        self.merges.append(merge(same))


def _forward(model, inputs, observer):
    """The tokens that the pooling reads, and the scores of the classes."""
    for block in blocks_of(model):
        inputs = pass_block(block, inputs, observer)
    tokens = final_norm(model, inputs["tokens"])
    if observer.changes:
        tokens = tokens + observer.changes[-1]
    with observed_by(observer):
        return tokens, class_scores(model, tokens, inputs.get("sizes"))


def _flow(model, weights, slopes, merged):
    """The relevance of each place for each token after the blocks.

    Returns:
        Two arrays (batch, tokens, places): the relevance that attention adds, and the
        identity, of merged tokens their share of each place.
    """
    batch, _, _, tokens = weights[0].shape
    same = np.broadcast_to(np.eye(tokens, dtype="float32"), (batch, tokens, tokens))
    added = np.zeros_like(same)
    for number in range(model.arguments["num_layers"]):
        step = _positive_mean(weights[number], slopes[number])  # (batch, tokens, tokens)
        # A merged token's row has the gradients of all its places: their mean.
        step *= (same**2).sum(axis=-1, keepdims=True)  # one by the number of places
        added = added + step @ (same + added)
        if number in merged:
            merge = ops.convert_to_numpy(merged[number])  # (batch, fewer tokens, tokens)
            same, added = merge @ same, merge @ added
    return added, same


def _pooled(model, added, same, weights, slopes):
    """The relevance of each place for what the head reads, (batch, places)."""
    fields = model.arguments
    if fields["pooling"] == "token":
        return (added + same)[:, : 1 + fields["distilled"]].mean(axis=1)
    # As between two sequences: the tokens' own and the added relevance count the same.
    total = added.sum(axis=-1, keepdims=True)
    flow = same + np.divide(added, total, out=np.zeros_like(added), where=total > 0)
    if fields["pooling"] in WITH_HEADS:
        step = _positive_mean(weights[-2], slopes[-2])  # (batch, 1, keys)
        left_out = flow.shape[1] - step.shape[2]  # the prefix, or none
        return (step @ flow[:, left_out:])[:, 0]
    tokens, slope = (_float32(each[-1]) for each in (weights, slopes))
    shares = np.maximum((tokens * slope).sum(axis=-1), 0)  # (batch, tokens)
    return np.einsum("bt,btp->bp", shares, flow)


def _positive_mean(weights, slopes):
    """The mean over heads of the positive part of weights times gradients."""
    weights, slopes = _float32(weights), _float32(slopes)
    return np.maximum(weights * slopes, 0).mean(axis=1)


def _float32(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))
