"""Prediction and attention of images from one pass: what a page on them shows."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit.analysis.backend import without_gradients
from keras_vit.analysis.class_scores import why_no_gradients
from keras_vit.analysis.distance import patch_distances, query_distances
from keras_vit.analysis.passes import (
    BatchPass,
    TokenGrid,
    batches,
    token_grid,
    transformer,
)
from keras_vit.analysis.pooling import WITH_HEADS, fixed_shares, recorded_pooling
from keras_vit.analysis.recorder import Recorder
from keras_vit.analysis.relevance import relevance
from keras_vit.layers.observation import observed_by
from keras_vit.models import VisionTransformer
from keras_vit.models.encoding import blocks_of, embedding, final_norm, head_outputs

CLASS_TOKEN, POOLING, RELEVANCE = "class token", "pooling", "relevance"


@dataclass(frozen=True, eq=False)
class AttentionSummary:
    """Prediction and attention of images.

    Attributes:
        outputs: float32 (batch, classes), as the model returns them; `None` of a model
            without a head.
        class_map: float32 (batch, rows, columns), see `class_map_kind`; `None` if there is
            none.
        class_map_kind: `"class token"`: what the class token reads in the last block, the
            mean of its heads (and of the distillation token, if there is one); `"pooling"`:
            what the attention pooling reads, the mean of its heads; `"relevance"` for the
            best class, of averaged tokens, which no attention weighs; `""` without a map.
        rollout: float32 (batch, rows, columns), as of `rollout_map`; `None` of a model with
            neither a pooling nor a class token.
        distances: float32 (batch, blocks, heads), as of `attention_distance` of each image.
        grid: where the patches are in the image.
    """

    outputs: np.ndarray | None
    class_map: np.ndarray | None
    class_map_kind: str
    rollout: np.ndarray | None
    distances: np.ndarray
    grid: TokenGrid


def attention_summary(
    model: keras.Model, images: Any, *, batch_size: int = 4
) -> AttentionSummary:
    """The prediction of images, a map of what counted for it, and attention rollout.

    They come from one pass, in which the last block has every token. `"relevance"`, of a
    model that averages its tokens, takes gradients and two more passes.

    Args:
        model: a `VisionTransformer`, with or without a head.
        images: array (batch, height, width, channels), as the model takes them.
        batch_size: int, number of images that pass the model at a time. There are the maps
            of all blocks, the mean of their heads: (batch_size, blocks, tokens, tokens).

    Raises:
        ValueError: if the model has no attention.

    Example:

    >>> found = keras_vit.analysis.attention_summary(model, images)
    >>> found.outputs.argmax(axis=1), found.class_map, found.rollout
    """
    model = transformer(model)
    grid, embed, kind = token_grid(model, images), embedding(model), class_map_kind(model)
    distances = patch_distances((grid.rows, grid.columns), grid.patch_size)
    parts = []
    for some in batches(images, batch_size):
        found = _Pass(model, BatchPass(embed, images[some], grid), distances)
        if kind == RELEVANCE:
            best = found.outputs.argmax(axis=-1)
            class_map = relevance(model, images[some], best, batch_size=batch_size)
        else:
            class_map = found.class_map(kind)
        parts.append((found.outputs, class_map, found.rollout(), found.distances))
    outputs, class_map, rollout, distances = (
        None if every[0] is None else np.concatenate(every)
        for every in zip(*parts, strict=True)
    )
    return AttentionSummary(outputs, class_map, kind, rollout, distances, grid)


def class_map_kind(model: VisionTransformer) -> str:
    """The kind of a model's class map, see `AttentionSummary`."""
    fields = model.fields
    if fields.pooling in WITH_HEADS:
        return POOLING
    if fields.pooling == "gap" and not why_no_gradients(model):
        return RELEVANCE
    return CLASS_TOKEN if fields.class_token else ""


class _Pass:
    """A batch that has passed a model, with what its attention did."""

    def __init__(self, model, batch, distances):
        self.model, self.grid = model, batch.grid
        prefix, by_block, self.steps = batch.grid.num_prefix, [], []
        for block in blocks_of(model):
            maps = batch.enter(block, is_watched=True)  # (batch, heads, places, places)
            self.steps.append(maps.mean(axis=1))
            patches = maps[:, :, prefix:, prefix:]
            by_block.append(query_distances(patches, distances).mean(axis=-1))
        self.distances = np.stack(by_block, axis=1)  # (batch, blocks, heads)
        self._finish(batch)

    def _finish(self, batch):
        """Norm, pooling and head."""
        fields, recorder, sizes = self.model.fields, Recorder(), batch.inputs.get("sizes")
        self.outputs = None
        with without_gradients(), observed_by(recorder):
            tokens = final_norm(self.model, batch.inputs["tokens"])
            if fields.classes:
                outputs = head_outputs(self.model, tokens, sizes)
                self.outputs = ops.convert_to_numpy(outputs)
            elif fields.pooling in WITH_HEADS:
                self.model.get_layer("pooling")(tokens, sizes=sizes)
        self.shares = self._shares(recorder, tokens.shape[1], batch.places)

    def _shares(self, recorder, num_tokens, places):
        """The share of each place in what the head reads, (batch, places), or `None`."""
        fields = self.model.fields
        if fields.pooling in WITH_HEADS:
            return recorded_pooling(recorder, num_tokens, places).mean(axis=1)
        if fields.pooling is None and not fields.class_token:
            return None
        shares = fixed_shares(self.model, self.grid)
        return np.tile(shares, (len(self.distances), 1))

    def class_map(self, kind):
        """The map of the class token or the pooling; `None` without a kind."""
        if kind == POOLING:
            return self.grid.maps(self.shares)
        if kind == CLASS_TOKEN:
            rows = self.steps[-1][:, : 1 + self.model.fields.distilled]
            return self.grid.maps(rows.mean(axis=1))
        return None

    def rollout(self):
        """As of `rollout_map`, from the head down to the image."""
        flow = self.shares
        for step in reversed(self.steps):
            if flow is None:
                return None
            flow = flow / (1 + step.sum(axis=-1))  # half of it is the residual
            flow = flow + np.einsum("bq,bqk->bk", flow, step)
        return self.grid.maps(flow)
