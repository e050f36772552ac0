"""Attention rollout: how much each token of a block reads of each token of the image."""

from typing import Any

import keras
import numpy as np

from keras_vit.analysis.attention import AttentionMaps, each_block, iterate_attention
from keras_vit.analysis.passes import transformer
from keras_vit.analysis.pooling import pooled_shares


def attention_rollout(
    maps: np.ndarray | AttentionMaps, *, last_only: bool = False
) -> np.ndarray:
    """Attention through several blocks: the product of their maps.

    Source: *Quantifying Attention Flow in Transformers* (arXiv 2005.00928), section 3;
    figure 6 of the ViT paper (arXiv 2010.11929) is made with it. The mean of a block's
    heads and the identity, for the residual, are added, and each row is divided by its
    sum; the product begins with the first block.

    Args:
        maps: array (blocks, batch, heads, tokens, tokens), as of `attention_maps`, from
            the first block on; or the result of `iterate_attention`, of which there is one
            block in memory at a time.
        last_only: bool, whether to return the product of all blocks alone.

    Returns:
        float32 array (blocks, batch, tokens, tokens), for each block the product up to it;
        with `last_only` (batch, tokens, tokens). Rows sum to 1.

    Raises:
        ValueError: if an array has not five axes.
    """
    kept = _numbers(maps)[-1:] if last_only else _numbers(maps)
    found = {block: [] for block in kept}
    for block, _, product in _products(maps):
        if block in found:
            found[block].append(product)
    products = [np.concatenate(of_batches) for of_batches in found.values()]
    return products[0] if last_only else np.stack(products)


def _numbers(maps):
    return maps.blocks if isinstance(maps, AttentionMaps) else range(len(maps))


def _products(maps):
    """For each batch, and block for block, (block, images, product up to the block)."""
    product = None
    for block, images, weights in each_block(maps):
        step = weights.mean(axis=1)  # (batch, tokens, tokens)
        step += np.eye(step.shape[-1], dtype="float32")
        step /= step.sum(axis=-1, keepdims=True)
        product = step if block == _numbers(maps)[0] else step @ product
        yield block, images, product


def rollout_map(model: keras.Model, images: Any, *, batch_size: int = 8) -> np.ndarray:
    """Attention rollout of what the model's head reads, over the image.

    The rows of `attention_rollout` of all blocks are pooled as the model pools its tokens:
    the class token's (the mean of both with a distillation token), the mean of the pooled
    tokens, or their mean by the weights of the attention pooling's heads. With
    `pooling="token_gap"` it is the mean of class token and patches; a model without
    pooling counts as one with `"token"`.

    Args:
        model: a `VisionTransformer`.
        images: array (batch, height, width, channels), as the model takes them.
        batch_size: int, number of images that pass the model at a time.

    Returns:
        float32 array (batch, rows, columns). An image's sum is the share of the patches,
        without class token and registers: at most 1.

    Raises:
        ValueError: if the model has no attention, or neither a pooling nor a class token.
    """
    model = transformer(model, "Attention rollout")
    shares = pooled_shares(model, images, batch_size)  # (batch, tokens)
    found = iterate_attention(model, images, batch_size=batch_size)
    pooled = np.empty_like(shares)
    for block, some, product in _products(found):
        if block == found.blocks[-1]:
            pooled[some] = np.einsum("bq,bqk->bk", shares[some], product)
    return found.grid.maps(pooled)
