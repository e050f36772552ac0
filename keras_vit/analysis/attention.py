"""Attention maps: the weights by which each token reads the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_vit.analysis.passes import (
    BatchPass,
    TokenGrid,
    batches,
    block_numbers,
    token_grid,
    transformer,
)
from keras_vit.models import VisionTransformer
from keras_vit.models.encoding import blocks_of, embedding


class BlockMaps(NamedTuple):
    """Attention maps of one block for some of the images.

    Args:
        block: int, number of the block.
        images: slice, which of the images these are.
        maps: float32 array (batch, heads, queries, tokens).
    """

    block: int
    images: slice
    maps: np.ndarray


@dataclass(frozen=True)
class AttentionMaps:
    """Attention maps that are computed while they are read, see `iterate_attention`.

    Iterating gives a `BlockMaps` for each block of the first `batch_size` images, then of
    the next ones. Each iteration passes the images through the model again.

    Args:
        model: the `VisionTransformer`.
        images: the images.
        blocks: the numbers of the blocks.
        batch_size: int, number of images in a pass.
        num_queries: int, number of tokens before the patches whose rows alone are kept;
            `None` for all rows.
        grid: where the tokens are in the image.
    """

    model: VisionTransformer
    images: Any
    blocks: tuple[int, ...]
    batch_size: int
    num_queries: int | None
    grid: TokenGrid

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.images)

    def __iter__(self) -> Iterator[BlockMaps]:
        embed = embedding(self.model)
        for images in batches(self.images, self.batch_size):
            yield from self._of_batch(embed, images)

    def _of_batch(self, embed, images):
        batch = BatchPass(embed, self.images[images], self.grid)
        for number, block in enumerate(blocks_of(self.model)[: self.blocks[-1] + 1]):
            is_wanted = number in self.blocks
            maps = batch.enter(block, is_wanted, self.num_queries)
            if is_wanted:
                yield BlockMaps(number, images, maps)


def iterate_attention(
    model: keras.Model,
    images: Any,
    blocks: int | Sequence[int] | None = None,
    *,
    batch_size: int = 8,
) -> AttentionMaps:
    """Attention maps of any number of images, in bounded memory.

    `attention_rollout` and `attention_distance` take the result in place of an array. At a
    time there are the maps of one block and `batch_size` images: (batch_size, heads,
    tokens, tokens) float32 numbers, 170 MB for eight images of L/16 at 384 pixels.

    Args:
        model: a `VisionTransformer`.
        images: array (batch, height, width, channels), as the model takes them.
        blocks: numbers of the blocks, in rising order, negative ones from the end; `None`
            for all.
        batch_size: int, number of images that pass the model at a time.

    Returns:
        An iterable over `BlockMaps`, with the maps as of `attention_maps`.

    Raises:
        ValueError: if the model has no attention, or there is no such block.

    Example:

    >>> for block, images_, maps in iterate_attention(model, images):
    ...     sharpest[block, images_] = maps.max(axis=(1, 2, 3))
    """
    model = transformer(model)
    grid = token_grid(model, images)
    numbers = block_numbers(model, blocks)
    return AttentionMaps(model, images, numbers, batch_size, None, grid)


def attention_maps(
    model: keras.Model,
    images: Any,
    blocks: int | Sequence[int] | None = None,
    *,
    batch_size: int = 8,
) -> np.ndarray:
    """The attention weights that the blocks of a model apply.

    Source: ViT (arXiv 2010.11929), section 4.5 and appendix D.7. They are the weights of
    the model's own attention layers: after scale, biases, norms and rotary positions, after
    the softmax. The last block has every row, also where the model computes the class
    token's alone. With a model in half precision the softmax is that of the rounded
    queries and keys.

    With `merged_tokens` the maps are between the places of the image, as without: places
    whose tokens are merged have the same row, and each has an equal share of the merged
    token's column. Rows so sum to 1, and the columns of a merged token to what it gets.

    Args:
        model: a `VisionTransformer`, with or without a head.
        images: array (batch, height, width, channels), as the model takes them.
        blocks: numbers of the blocks, in rising order, negative ones from the end; `None`
            for all.
        batch_size: int, number of images that pass the model at a time.

    Returns:
        float32 array (blocks, batch, heads, tokens, tokens), queries before keys. The
        tokens are class token, distillation token, registers, where the model has them,
        then the patches row by row. It is 33 GB for 64 images of L/16 at 384 pixels:
        `iterate_attention` gives one block at a time.

    Raises:
        ValueError: if the model has no attention, or there is no such block.
    """
    found = iterate_attention(model, images, blocks, batch_size=batch_size)
    return collect(found)


def each_block(maps: np.ndarray | AttentionMaps) -> Iterator[BlockMaps]:
    """Attention maps block by block, from an array or computed meanwhile.

    Args:
        maps: array (blocks, batch, heads, tokens, tokens), or what `iterate_attention`
            returned.

    Raises:
        ValueError: if an array has not five axes.
    """
    if isinstance(maps, AttentionMaps):
        yield from maps
        return
    shape = np.shape(maps)
    if len(shape) != 5 or shape[3] != shape[4]:
        raise ValueError(
            "`maps` must be an array (blocks, batch, heads, tokens, tokens), as of "
            "`attention_maps`, or the result of `iterate_attention`. Received: maps of "
            f"shape {shape}"
        )
    for block, of_block in enumerate(maps):
        yield BlockMaps(block, slice(0, shape[1]), np.asarray(of_block, "float32"))


def collect(found: AttentionMaps) -> np.ndarray:
    """All maps as one array, (blocks, batch, heads, queries, tokens)."""
    collected = None
    for block, images, maps in found:
        if collected is None:
            shape = (len(found.blocks), found.num_images, *maps.shape[1:])
            collected = np.empty(shape, "float32")
        collected[found.blocks.index(block), images] = maps
    return collected
