"""Attention maps: the weights by which each token reads the others."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_vit.analysis.backend import without_gradients
from keras_vit.analysis.passes import (
    TokenGrid,
    apply_block,
    batches,
    block_numbers,
    blocks_of,
    embedding,
    token_grid,
    transformer,
)
from keras_vit.layers.observation import Observer
from keras_vit.models import VisionTransformer
from keras_vit.types import Tensor


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
        with without_gradients():
            inputs = embed(self.images[images])
        places = Places(images.stop - images.start, self.grid.num_tokens)
        for number, block in enumerate(blocks_of(self.model)[: self.blocks[-1] + 1]):
            recorder = Recorder(self.num_queries)
            is_wanted = number in self.blocks
            is_seen = is_wanted or block.merged_tokens
            with without_gradients():  # not while a caller has the maps
                inputs = apply_block(block, inputs, recorder if is_seen else None)
            if is_wanted:
                yield BlockMaps(number, images, places.expand(recorder.maps()))
            places.merge(recorder.merging)


class Recorder(Observer):
    """Keeps the weights of the attention that it sees last, and the merging after it.

    Args:
        num_queries: int, number of the first queries, whose weights alone are kept;
            `None` for all.
    """

    def __init__(self, num_queries: int | None = None):
        self.num_queries = num_queries
        self.weights: np.ndarray | None = None
        self.merging: Callable[[Tensor], Tensor] | None = None

    def see_weights(self, weights: Tensor) -> Tensor:
        kept = ops.convert_to_numpy(weights[:, :, : self.num_queries])
        # An array that shares its memory with a tensor would hold every row.
        copy = None if self.num_queries is None else True
        self.weights = np.array(kept, "float32", copy=copy)
        return weights

    def see_merging(self, merge: Callable[[Tensor], Tensor]) -> None:
        self.merging = merge

    def maps(self) -> np.ndarray:
        """The weights, (batch, heads, queries, keys).

        Raises:
            RuntimeError: if none was seen.
        """
        if self.weights is None:
            raise RuntimeError(
                "A function that was compiled before has computed the attention, and its "
                "weights are not known. Pass the model without torch.compile or "
                "tf.function around its layers."
            )
        return self.weights


class Places:
    """The token that stands for each place of the images, while blocks merge tokens.

    Args:
        batch: int, number of images.
        num_tokens: int, number of tokens before the first block.
    """

    def __init__(self, batch: int, num_tokens: int):
        self.owners: np.ndarray | None = None  # (batch, places), as soon as any is merged
        self._shape = (batch, num_tokens)

    def merge(self, merging: Callable[[Tensor], Tensor] | None) -> None:
        """Follows a merging, as `Recorder` keeps it; `None` for none."""
        if merging is None:
            return
        batch, places = self._shape
        if self.owners is None:
            self.owners = np.tile(np.arange(places, dtype="int32"), (batch, 1))
        members = self.owners[:, None] == np.arange(self.owners.max() + 1)[:, None]
        merged = merging(ops.convert_to_tensor(members.astype("float32")))
        # Each place has a share in one token alone.
        self.owners = ops.convert_to_numpy(ops.argmax(merged, axis=1)).astype("int32")

    def expand(self, maps: np.ndarray) -> np.ndarray:
        """Maps between tokens, as maps between places.

        Each place has the row of its token, and an equal share of the token's column.

        Args:
            maps: (batch, heads, queries, tokens), of which the queries are all tokens or
                some of the prefix, which stand for themselves.

        Returns:
            (batch, heads, queries, places).
        """
        if self.owners is None:
            return maps
        owners, tokens = self.owners, maps.shape[3]
        expanded = self.take(maps, axis=3)
        sizes = (owners[:, :, None] == owners[:, None]).sum(axis=1)  # (batch, places)
        expanded /= sizes[:, None, None].astype("float32")
        return self.take(expanded, axis=2) if maps.shape[2] == tokens else expanded

    def take(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Values of tokens along an axis, for each place; the first axis is the batch."""
        if self.owners is None:
            return values
        shape = [1] * values.ndim
        shape[0], shape[axis] = self.owners.shape
        return np.take_along_axis(values, self.owners.reshape(shape), axis)


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


def collect(found: AttentionMaps) -> np.ndarray:
    """All maps as one array, (blocks, batch, heads, queries, tokens)."""
    collected = None
    for block, images, maps in found:
        if collected is None:
            shape = (len(found.blocks), found.num_images, *maps.shape[1:])
            collected = np.empty(shape, "float32")
        collected[found.blocks.index(block), images] = maps
    return collected
