"""Position embeddings of the patch grid and of the tokens before it."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit import arguments
from keras_vit.layers.initial_values import ValuesByNumPy, initializer
from keras_vit.layers.sincos import FIXED, by_axes, namespace
from keras_vit.resize import (
    INTERPOLATIONS,
    resize_axis,
    resize_grid,
    resize_matrix,
    resize_weights,
)
from keras_vit.types import Shape, Tensor

LEARNED = ("learned", "learned2d")
POSITIONS = (*LEARNED, *FIXED, "none")


class ResizableGrid:
    """A base, before `keras.layers.Layer`, of layers that resize the weights of a grid.

    Saved weights of another grid are resized by Keras' loading as by ours.
    """

    grids: tuple[str, ...] = ("grid",)  # names of these weights

    def resized_grid(self, grid: np.ndarray, name: str) -> np.ndarray:
        """The values of such a weight in the layer's shape; themselves if they have it."""
        raise NotImplementedError

    def save_own_variables(self, store: dict[str, Any]) -> None:
        for variable in self.weights:
            store[variable.name] = variable

    def load_own_variables(self, store: dict[str, Any]) -> None:
        names = {variable.name for variable in self.weights}
        if set(store.keys()) != names:
            raise ValueError(
                f"Layer {self.name!r} stores the weights {sorted(names)}. Received a "
                f"file with {sorted(store.keys())}"
            )
        values = {name: np.asarray(store[name]) for name in names}
        for name in names.intersection(self.grids):
            values[name] = self.resized_grid(values[name], name)
        for variable in self.weights:
            variable.assign(values[variable.name])


class Positions(ResizableGrid, ValuesByNumPy, keras.layers.Layer):
    """A base of layers that have positions of the patches of a grid, to be added.

    Args: see `PositionEmbedding`.
    """

    grids = ("grid", "rows", "columns")

    def __init__(
        self,
        position: str = "learned",
        *,
        grid_size: int | tuple[int, int] | None = None,
        num_prefix: int = 0,
        interpolation: str = "linear",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.position = arguments.one_of(position, POSITIONS, "position")
        self.grid_size = (
            None if grid_size is None else arguments.pair(grid_size, "grid_size")
        )
        self.num_prefix = num_prefix
        self.interpolation = arguments.one_of(
            interpolation, INTERPOLATIONS, "interpolation"
        )
        self.input_spec = keras.layers.InputSpec(ndim=4)
        if num_prefix and position not in LEARNED:
            raise ValueError(
                "Tokens of the prefix own a position only where positions are learned. "
                f"Received: position={position!r}, num_prefix={num_prefix}. Use "
                "position='learned', or num_prefix=0."
            )

    def build_positions(self, patches_shape: Shape) -> None:
        """Adds the weights, for patches (batch, rows, columns, hidden_dim)."""
        hidden_dim = patches_shape[-1]
        check_width(self.position, hidden_dim)
        if self.position not in LEARNED:
            return
        self.grid_size = self.grid_size or tuple(patches_shape[1:3])
        if None in self.grid_size:
            raise ValueError(
                "`grid_size` must be given where the number of patches is unknown. "
                f"Received: grid_size=None, patches_shape={tuple(patches_shape)}"
            )
        if self.num_prefix:
            self.prefix = self._add_positions("prefix", (self.num_prefix, hidden_dim))
        rows, columns = self.grid_size
        if self.position == "learned":
            self.grid = self._add_positions("grid", (rows, columns, hidden_dim))
        else:
            self.rows = self._add_positions("rows", (rows, hidden_dim // 2))
            self.columns = self._add_positions("columns", (columns, hidden_dim // 2))

    def _add_positions(self, name, shape):
        # An initializer draws the same numbers at each call, so each weight has its own.
        draw = initializer(keras.initializers.RandomNormal(stddev=0.02))
        return self.add_weight(name=name, shape=shape, initializer=draw)

    def grid_positions(
        self, rows: int | Tensor, columns: int | Tensor, hidden_dim: int
    ) -> Tensor:
        """The positions of a grid of patches, (rows, columns, hidden_dim); not of "none".

        Args:
            rows: int or scalar tensor, height of the grid.
            columns: int or scalar tensor, width of the grid.
            hidden_dim: int, width of the patches.
        """
        xp = namespace(rows, columns)
        if self.position in FIXED:
            function, _ = FIXED[self.position]
            return ops.cast(function(rows, columns, hidden_dim, xp), self.compute_dtype)
        is_own = xp is np and (rows, columns) == self.grid_size
        if self.position == "learned" and is_own:
            return ops.convert_to_tensor(self.grid)
        to_rows, to_columns = (
            ops.cast(resize_matrix(old, new, self.interpolation, xp), "float32")
            for old, new in zip(self.grid_size, (rows, columns), strict=True)
        )
        if self.position == "learned":
            grid = ops.cast(self.grid, "float32")
            resized = ops.einsum("ir,rcd,jc->ijd", to_rows, grid, to_columns)
            # (rows, columns, hidden_dim)
            return ops.cast(resized, self.compute_dtype)
        x, y = ops.convert_to_tensor(self.columns), ops.convert_to_tensor(self.rows)
        if not is_own:
            x = ops.matmul(to_columns, ops.cast(x, "float32"))
            y = ops.matmul(to_rows, ops.cast(y, "float32"))
        return ops.cast(by_axes(x, y, ops), self.compute_dtype)

    def resized_grid(self, grid: np.ndarray, name: str) -> np.ndarray:
        if name == "grid":
            return resize_grid(grid, self.grid_size, self.interpolation)
        axis = ("rows", "columns").index(name)
        return resize_axis(grid, self.grid_size[axis], self.interpolation)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "position": self.position,
            "grid_size": self.grid_size,
            "num_prefix": self.num_prefix,
            "interpolation": self.interpolation,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class PositionEmbedding(Positions):
    """Adds positions to a grid of patches and joins the tokens to one sequence.

    Source: ViT (arXiv 2010.11929), section 3.1, equation 1, section 3.2 for the resizing,
    and appendix D.4 for the positions by axes; the sine-cosine positions in two dimensions
    are those of *Better plain ViT baselines for ImageNet-1k* (arXiv 2205.01580), those in
    one of *Attention Is All You Need* (arXiv 1706.03762), section 3.5.

    Learned positions are two weights: `grid` (rows, columns, hidden_dim) and `prefix`
    (num_prefix, hidden_dim). In two dimensions, `"learned2d"`, the weights `columns`
    (columns, hidden_dim / 2) and `rows` (rows, hidden_dim / 2) stand in place of `grid`: a
    patch has the embedding of its column (X), then that of its row (Y). Loading resizes
    saved weights of another grid, by `model.load_weights` as by `keras_vit.load_weights`.
    For patches in another grid than `grid_size` they are resized inside the graph.

    Args:
        position: `"learned"`, one vector for each patch; `"learned2d"`, half a vector for
            each column and each row (`hidden_dim` even); `"sincos"`, fixed, by the place in
            raster order (`hidden_dim` even); `"sincos2d"`, fixed, by column and row
            (`hidden_dim` divisible by 4); or `"none"`. Fixed positions are no weights.
        grid_size: int or (rows, columns) of the learned grid; `None` takes that of
            the patches the layer is built with.
        num_prefix: int, number of tokens of the prefix, from the first, that own a
            learned position. It must be 0 unless positions are learned.
        interpolation: `"linear"` with aligned corners, as in the ViT paper's code;
            `"bilinear"` or `"bicubic"` with aligned areas and antialiasing, as in
            FlexiViT and in timm.

    Call arguments:
        patches: (batch, rows, columns, hidden_dim).
        prefix: (batch, tokens, hidden_dim), class token and registers, or `None`.
        shapes: int (batch, 2), rows and columns of the patches of each image, which are
            then the first ones of a row (batch, patches, 1, hidden_dim), others behind
            them; `None` where the patches of every image are a grid. The grid of
            `position="learned"`, which there must be, is resized for each image.

    Returns:
        (batch, tokens + rows * columns, hidden_dim): the prefix, then the patches row
        by row.

    Raises:
        ValueError: if the prefix has fewer tokens than `num_prefix`.
    """

    def build(self, patches_shape: Shape, prefix_shape: Shape | None = None) -> None:
        prefix_tokens = prefix_shape[1] if prefix_shape else 0
        if prefix_tokens < self.num_prefix:
            raise ValueError(
                "`num_prefix` must not exceed the number of tokens of the prefix. "
                f"Received: num_prefix={self.num_prefix} and a prefix of {prefix_tokens} "
                "tokens"
            )
        self.build_positions(patches_shape)

    def call(
        self,
        patches: Tensor,
        prefix: Tensor | None = None,
        shapes: Tensor | None = None,
    ) -> Tensor:
        rows, columns = ops.shape(patches)[1:3]
        hidden_dim = patches.shape[-1]
        if shapes is not None:
            patches = patches + self._grids_of_shapes(shapes, rows)[:, :, None]
        elif self.position != "none":
            patches = patches + self.grid_positions(rows, columns, hidden_dim)
        tokens = ops.reshape(patches, (-1, rows * columns, hidden_dim))
        if prefix is None:
            return tokens
        if self.num_prefix:
            others = prefix[:, self.num_prefix :]
            prefix = prefix[:, : self.num_prefix] + self.prefix
            prefix = ops.concatenate(
                [prefix, others], axis=1
            )  # (batch, tokens, hidden_dim)
        return ops.concatenate([prefix, tokens], axis=1)

    def _grids_of_shapes(self, shapes, number):
        """The learned positions of grids in a row, (batch, number, hidden_dim)."""
        if self.position != "learned":
            raise ValueError(
                "`shapes` are of learned positions. Received: shapes for a layer with "
                f"position={self.position!r}. Leave them out."
            )
        shapes = ops.cast(shapes, "float32")[:, None]  # (batch, 1, 2)
        rows, columns = shapes[..., 0], shapes[..., 1]
        places = ops.arange(number, dtype="float32")[None]  # (1, number)
        places = ops.where(places < rows * columns, places, 0.0)  # any, behind the grid
        row = ops.floor((places + 0.5) / columns)
        to_rows, to_columns = (
            resize_weights(place, source, target, self.interpolation, ops)
            for place, source, target in (
                (row, self.grid_size[0], rows),
                (places - row * columns, self.grid_size[1], columns),
            )
        )  # (batch, number, rows or columns of the learned grid)
        weights = to_rows[..., :, None] * to_columns[..., None, :]
        weights = ops.reshape(weights, (-1, number, math.prod(self.grid_size)))
        grid = ops.reshape(ops.cast(self.grid, "float32"), (-1, self.grid.shape[-1]))
        return ops.cast(ops.matmul(weights, grid), self.compute_dtype)

    def compute_output_shape(
        self,
        patches_shape: Shape,
        prefix_shape: Shape | None = None,
        shapes_shape: Shape | None = None,
    ) -> Shape:
        batch, rows, columns, hidden_dim = patches_shape
        if rows is None or columns is None:
            return (batch, None, hidden_dim)
        prefix_tokens = prefix_shape[1] if prefix_shape else 0
        return (batch, prefix_tokens + rows * columns, hidden_dim)


def check_width(position: str, hidden_dim: int) -> None:
    """Raises a ValueError if positions of a kind cannot be so wide."""
    if position == "learned2d" and hidden_dim % 2:
        raise ValueError(
            "Positions with `learned2d` need an even `hidden_dim` (half for each axis). "
            f"Received: hidden_dim={hidden_dim}"
        )
    _, divisor = FIXED.get(position, (None, 1))
    if hidden_dim % divisor:
        axes = "two axes" if position == "sincos2d" else "each frequency"
        raise ValueError(
            f"Sine-cosine positions need a `hidden_dim` divisible by {divisor} (sine and "
            f"cosine of {axes}). Received: hidden_dim={hidden_dim}"
        )
