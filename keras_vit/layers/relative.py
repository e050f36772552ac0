"""Relative position bias: a number for each head and each offset between two patches."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit import arguments
from keras_vit.layers.initial_values import ValuesByNumPy
from keras_vit.layers.position import ResizableGrid
from keras_vit.resize import resize_offsets
from keras_vit.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vit")
class RelativePositionBias(ResizableGrid, ValuesByNumPy, keras.layers.Layer):
    """Learned numbers that are added to attention scores, by the offset of query and key.

    Source: the published code of BEiT (arXiv 2106.08254). The weight `grid` (2 rows - 1,
    2 columns - 1, num_heads) has a number for each offset, row and column of the query
    minus those of the key; the offset 0 is in the middle. The weight `prefix` (3,
    num_heads) is there if tokens come before the patches: a prefix query to any patch, any
    patch to a prefix key, prefix to prefix. All tokens of the prefix share it; BEiT has
    one, the class token. Both are zero at the start.

    Loading resizes a saved grid of other patches, see `resize.resize_offsets`, by
    `model.load_weights` as by `keras_vit.load_weights`.

    Args:
        grid_size: int or (rows, columns) of the patches.
        num_heads: int, number of attention heads.
        num_prefix: int, number of tokens before the patches (class token, registers).

    Call arguments:
        tokens: (batch, tokens, hidden_dim), the queries; only their number is read.
        context: the whole sequence, where the queries are only its first tokens; `None`
            where they are all.

    Returns:
        float32 (num_heads, tokens, num_prefix + rows * columns).

    Raises:
        ValueError: if there are not as many tokens as prefix and patches.
    """

    def __init__(
        self,
        grid_size: int | tuple[int, int],
        num_heads: int,
        *,
        num_prefix: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.grid_size = arguments.pair(grid_size, "grid_size")
        self.num_heads = arguments.positive(num_heads, "num_heads")
        self.num_prefix = num_prefix

    def build(self, tokens_shape: Shape) -> None:
        rows, columns = self.grid_size
        # Not cast to half precision: scores are summed in float32.
        options = {"initializer": "zeros", "autocast": False}
        shape = (2 * rows - 1, 2 * columns - 1, self.num_heads)
        self.grid = self.add_weight(name="grid", shape=shape, **options)
        if self.num_prefix:
            shape = (3, self.num_heads)
            self.prefix = self.add_weight(name="prefix", shape=shape, **options)

    def call(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        number, last = tokens.shape[1], self._num_tokens
        keys = number if context is None else context.shape[1]
        if keys not in (None, last):
            rows, columns = self.grid_size
            raise ValueError(
                f"Relative positions of {rows} x {columns} patches with {self.num_prefix} "
                f"tokens before them are for {last} tokens. Received: {keys} tokens. Build "
                "the layer with the grid of the patches; merged tokens have no offsets."
            )
        if not self.num_prefix:
            return self._between_patches()[:, :number]  # (heads, tokens, patches)
        prefix = ops.cast(self.prefix, "float32")[:, :, None, None]  # (3, heads, 1, 1)
        count, patches = self.num_prefix, last - self.num_prefix

        def repeated(kind, rows, columns):
            return ops.broadcast_to(prefix[kind], (self.num_heads, rows, columns))

        bias = [repeated(2, count, count), repeated(0, count, patches)]
        bias = ops.concatenate(bias, axis=2)  # (heads, num_prefix, keys)
        if number is None or number > count:
            others = [repeated(1, patches, count), self._between_patches()]
            others = ops.concatenate(others, axis=2)  # (heads, patches, keys)
            bias = ops.concatenate([bias, others], axis=1)
        return bias[:, :number]

    @property
    def _num_tokens(self):
        rows, columns = self.grid_size
        return self.num_prefix + rows * columns

    def _between_patches(self):
        """The bias of patches as queries and keys, (heads, patches, patches)."""
        rows, columns = self.grid_size
        # An axis at a time, as one index for all pairs would be a large constant of each
        # block in an exported program.
        grid = ops.transpose(ops.cast(self.grid, "float32"), (2, 0, 1))
        grid = ops.take(grid, _offsets(rows), axis=1)  # (heads, rows, rows, 2 columns - 1)
        grid = ops.take(grid, _offsets(columns), axis=3)
        # (heads, rows, rows, columns, columns), each the query's and then the key's
        grid = ops.transpose(grid, (0, 1, 3, 2, 4))
        return ops.reshape(grid, (self.num_heads, rows * columns, rows * columns))

    def compute_output_spec(
        self, tokens: keras.KerasTensor, context: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        shape = (self.num_heads, tokens.shape[1], self._num_tokens)
        return keras.KerasTensor(shape, "float32")

    def resized_grid(self, grid: np.ndarray, name: str) -> np.ndarray:
        return resize_offsets(grid, self.grid_size)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "grid_size": self.grid_size,
            "num_heads": self.num_heads,
            "num_prefix": self.num_prefix,
        }


def _offsets(size: int) -> np.ndarray:
    """Places of queries (rows) minus keys (columns) in a table of `2 size - 1` offsets."""
    places = np.arange(size, dtype="int32")
    return places[:, None] - places + size - 1
