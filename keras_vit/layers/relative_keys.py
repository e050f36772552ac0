"""Relative attention: queries attend to an embedding of each offset of two patches."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit import arguments
from keras_vit.layers.initial_values import ValuesByNumPy, initializer
from keras_vit.layers.position import ResizableGrid
from keras_vit.resize import resize_raster_offsets
from keras_vit.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vit")
class RelativeKeys(ResizableGrid, ValuesByNumPy, keras.layers.Layer):
    """Scores of queries and embeddings of offsets, which are added to those of the keys.

    Source: ViT (arXiv 2010.11929), appendix D.4: 1-dimensional relative attention. The
    offset of two patches is that of their places in raster order; each offset has an
    embedding, to which the queries attend as to a key, and these logits are added to those
    of the content. What the paper leaves open is as in *Self-Attention with Relative
    Position Representations* (arXiv 1803.02155): the logits are divided by √head_dim
    (section 3.3), each layer and head has embeddings of its own (section 4.1), and an
    offset is the key's place minus the query's. None is clipped. Other pairs than of two
    patches are told apart as in BEiT (arXiv 2106.08254).

    The weight `grid` (2 rows, columns, num_heads, head_dim) has the embedding of the offset
    of r rows and c columns at `grid[rows + r, c]`, c from 0 on; the first is that of no
    pair. The weight `prefix` (3, num_heads, head_dim) is there if tokens come before the
    patches: a prefix query to any patch, any patch to a prefix key, prefix to prefix.

    Loading resizes a saved grid of other patches, see `resize.resize_raster_offsets`, by
    `model.load_weights` as by `keras_vit.load_weights`.

    Args:
        grid_size: int or (rows, columns) of the patches.
        num_prefix: int, number of tokens before the patches (class token, registers).

    Call arguments:
        query: (batch, num_heads, tokens, head_dim), of the whole sequence or of its first
            tokens.
        num_keys: int, number of tokens of the whole sequence; `None` if it is not known.

    Returns:
        float32 (batch, num_heads, tokens, num_prefix + rows * columns).

    Raises:
        ValueError: if there are not as many keys as prefix and patches.
    """

    def __init__(self, grid_size: int | tuple[int, int], *, num_prefix: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.grid_size = arguments.pair(grid_size, "grid_size")
        self.num_prefix = num_prefix

    def build(self, query_shape: Shape) -> None:
        rows, columns = self.grid_size
        _, num_heads, _, head_dim = query_shape
        self.grid = self._add_keys("grid", (2 * rows, columns, num_heads, head_dim))
        if self.num_prefix:
            self.prefix = self._add_keys("prefix", (3, num_heads, head_dim))

    def _add_keys(self, name, shape):
        draw = initializer(keras.initializers.RandomNormal(stddev=0.02))
        return self.add_weight(name=name, shape=shape, initializer=draw)

    def call(self, query: Tensor, num_keys: int | None = None) -> Tensor:
        rows, columns = self.grid_size
        count, patches = self.num_prefix, rows * columns
        if num_keys not in (None, count + patches):
            raise ValueError(
                f"Relative positions of {rows} x {columns} patches with {count} tokens "
                f"before them are for {count + patches} tokens. Received: {num_keys} "
                "tokens. Build the layer with the grid of the patches; merged tokens have "
                "no offsets."
            )
        query = query * query.shape[-1] ** -0.5
        number = query.shape[2]  # of queries
        if not count:
            return ops.cast(self._between_patches(query), "float32")
        keys = ops.transpose(ops.convert_to_tensor(self.prefix), (1, 2, 0))
        found = ops.matmul(query, keys)  # (batch, heads, tokens, 3)
        first, others = found[:, :, :count], found[:, :, count:]
        kinds = np.array([2] * count + [0] * patches)
        logits = ops.take(first, kinds, axis=3)  # (batch, heads, prefix, keys)
        if number is None or number > count:
            among = self._between_patches(query[:, :, count:])
            others = ops.repeat(others[..., 1:2], count, axis=3)
            others = ops.concatenate([others, among], axis=3)
            logits = ops.concatenate([logits, others], axis=2)
        return ops.cast(logits, "float32")

    def _between_patches(self, query):
        """Logits of patches, the first of all as queries, (batch, heads, queries, keys)."""
        rows, columns = self.grid_size
        patches, number = rows * columns, query.shape[2]
        keys = ops.reshape(self.grid, (2 * patches, *self.grid.shape[2:]))
        keys = ops.transpose(keys, (1, 2, 0))  # (heads, head_dim, offsets)
        found = ops.matmul(query, ops.cast(keys, query.dtype))
        # Offset d is in column patches + d, so query i finds key j in column patches - i +
        # j. Row by row without the first `patches` numbers, in rows that are one shorter,
        # that is column j (Music Transformer, arXiv 1809.04281, section 3.4).
        if number not in (None, patches):
            found = ops.pad(found, [(0, 0), (0, 0), (0, patches - number), (0, 0)])
        heads = query.shape[1]
        found = ops.reshape(found, (-1, heads, 2 * patches * patches))[..., patches:]
        found = ops.reshape(found, (-1, heads, patches, 2 * patches - 1))
        return found[:, :, :number, :patches]

    def compute_output_shape(self, query_shape: Shape) -> Shape:
        rows, columns = self.grid_size
        return (*query_shape[:3], self.num_prefix + rows * columns)

    def compute_output_spec(
        self, query: keras.KerasTensor, num_keys: int | None = None
    ) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(query.shape), "float32")

    def resized_grid(self, grid: np.ndarray, name: str) -> np.ndarray:
        return resize_raster_offsets(grid, self.grid_size)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "grid_size": self.grid_size,
            "num_prefix": self.num_prefix,
        }
