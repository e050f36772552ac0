"""The tokens that the head of a model reads, and by which weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_vit.analysis.attention import collect, iterate_attention
from keras_vit.analysis.backend import without_gradients
from keras_vit.analysis.passes import (
    TokenGrid,
    batches,
    final_tokens,
    token_grid,
    transformer,
)
from keras_vit.analysis.recorder import Places, Recorder
from keras_vit.layers.observation import observed_by
from keras_vit.models import VisionTransformer
from keras_vit.models.encoding import embedding

WITH_HEADS = ("map", "query")  # poolings with an attention of their own


def class_attention(
    model: keras.Model,
    images: Any,
    blocks: int | Sequence[int] | None = None,
    *,
    batch_size: int = 8,
) -> np.ndarray:
    """The attention of the class token to the patches, over the image.

    Source: DINO (arXiv 2104.14294), figure 1: a row of `attention_maps`, which alone is
    kept.

    Args:
        model: a `VisionTransformer` with a class token.
        images: array (batch, height, width, channels), as the model takes them.
        blocks: numbers of the blocks, see `attention_maps`; `None` for all.
        batch_size: int, number of images that pass the model at a time.

    Returns:
        float32 array (blocks, batch, heads, rows, columns). An image's sum is the share of
        the patches, without class token and registers: at most 1.

    Raises:
        ValueError: if the model has no class token, or there is no such block.
    """
    model = transformer(model)
    _check_class_token(model)
    found = iterate_attention(model, images, blocks, batch_size=batch_size)
    maps = collect(replace(found, num_queries=1))
    return found.grid.maps(maps[:, :, :, 0])


def _check_class_token(model):
    if "class_token" not in {layer.name for layer in model.layers}:
        pooling = model.arguments["pooling"]
        raise ValueError(
            "The attention of a class token needs one. Received: a model without a class "
            f"token, with pooling={pooling!r}. `rollout_map` shows what a model with any "
            "pooling reads, `relevance` what counts for a class, `pooling_attention` the "
            "weights of pooling='map' and 'query'."
        )


def pooling_attention(
    model: keras.Model, images: Any, *, batch_size: int = 8
) -> np.ndarray:
    """The attention of the pooling's probe to the patches, over the image.

    Source: *Scaling Vision Transformers* (arXiv 2106.04560), section 3.5 (MAP head).

    Args:
        model: a `VisionTransformer` with `pooling="map"` or `"query"`.
        images: array (batch, height, width, channels), as the model takes them.
        batch_size: int, number of images that pass the model at a time.

    Returns:
        float32 array (batch, heads, rows, columns). An image's sum is 1, or with
        `pooling_prefix` the share of the patches.

    Raises:
        ValueError: if the model has another pooling.
    """
    model = transformer(model)
    pooling = model.arguments["pooling"]
    if pooling not in WITH_HEADS:
        raise ValueError(
            "`pooling_attention` is that of pooling='map' or 'query'. Received: a model "
            f"with pooling={pooling!r}. `class_attention` shows what a class token reads, "
            "`rollout_map` what any model does."
        )
    weights = pooling_weights(model, images, batch_size)
    return token_grid(model, images).maps(weights)


def pooling_weights(
    model: VisionTransformer, images: Any, batch_size: int = 8
) -> np.ndarray:
    """The weights of an attention pooling, (batch, heads, tokens)."""
    embed, grid = embedding(model), token_grid(model, images)
    found = []
    for some in batches(images, batch_size):
        tokens, sizes, places = final_tokens(model, embed, images[some], grid)
        recorder = Recorder()
        with without_gradients(), observed_by(recorder):
            model.get_layer("pooling")(tokens, sizes=sizes)
        found.append(recorded_pooling(recorder, tokens.shape[1], places))
    return np.concatenate(found)


def recorded_pooling(recorder: Recorder, num_tokens: int, places: Places) -> np.ndarray:
    """The weights of an attention pooling that a recorder has seen.

    Args:
        recorder: saw the pooling.
        num_tokens: int, number of tokens that the pooling was given.
        places: the places of these tokens.

    Returns:
        (batch, heads, places).
    """
    weights = recorder.maps()  # (batch, heads, 1, keys)
    left_out = num_tokens - weights.shape[3]  # the prefix, or none
    weights = np.pad(weights, [(0, 0)] * 3 + [(left_out, 0)])
    return places.expand(weights)[:, :, 0]


def pooled_shares(model: VisionTransformer, images: Any, batch_size: int = 8) -> np.ndarray:
    """The share of each token in what the head reads, (batch, tokens).

    It is 1 for the class token, half for each of class token and distillation token, equal
    for tokens that are averaged, half for the class token and half for the average with
    `pooling="token_gap"`, and the mean of the heads' weights in an attention pooling. A
    model without pooling counts as one that reads the class token.

    Raises:
        ValueError: if the model has neither a pooling nor a class token.
    """
    if model.arguments["pooling"] in WITH_HEADS:
        return pooling_weights(model, images, batch_size).mean(axis=1)
    return np.tile(fixed_shares(model, token_grid(model, images)), (len(images), 1))


def fixed_shares(model: VisionTransformer, grid: TokenGrid) -> np.ndarray:
    """`pooled_shares` of a pooling without attention, the same for any image: (tokens,).

    Raises:
        ValueError: if the model has neither a pooling nor a class token.
    """
    fields = model.arguments
    pooling = fields["pooling"]
    shares = np.zeros(grid.num_tokens, "float32")
    if pooling in ("gap", "token_gap"):
        start = 0 if fields["pooling_prefix"] else grid.num_prefix
        shares[start:] = 1 / (grid.num_tokens - start)
    if pooling != "gap":
        _check_class_token(model)
        token = np.zeros_like(shares)
        token[: 1 + fields["distilled"]] = 1 / (1 + fields["distilled"])
        shares = (shares + token) / (2 if pooling == "token_gap" else 1)
    return shares
