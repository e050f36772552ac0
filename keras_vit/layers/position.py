"""Position embeddings of the patch grid and of the tokens before it."""

import math
from types import ModuleType
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit import arguments
from keras_vit.layers.initial_values import ValuesByNumPy, initializer
from keras_vit.resize import INTERPOLATIONS, resize_grid, resize_matrix, resize_weights
from keras_vit.types import Shape, Tensor

POSITIONS = ("learned", "sincos2d", "none")


class ResizableGrid:
    """A base, before `keras.layers.Layer`, of layers that resize their weight `grid`.

    A saved grid of another size is resized by Keras' loading as by ours.
    """

    def resized_grid(self, grid: np.ndarray) -> np.ndarray:
        """A grid in the shape of the layer's; the grid itself if it has that shape."""
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
        if "grid" in values:
            values["grid"] = self.resized_grid(values["grid"])
        for variable in self.weights:
            variable.assign(values[variable.name])


@keras.saving.register_keras_serializable(package="keras_vit")
class PositionEmbedding(ResizableGrid, ValuesByNumPy, keras.layers.Layer):
    """Adds positions to a grid of patches and joins the tokens to one sequence.

    Source: ViT (arXiv 2010.11929), section 3.1, equation 1, and section 3.2 for the
    resizing; the sine-cosine positions are those of *Better plain ViT baselines for
    ImageNet-1k* (arXiv 2205.01580).

    Learned positions are two weights: `grid` (rows, columns, hidden_dim) and `prefix`
    (num_prefix, hidden_dim). Loading resizes a saved grid of another size, by
    `model.load_weights` as by `keras_vit.load_weights`. For patches in another grid than
    `grid_size` the learned grid is resized inside the graph.

    Args:
        position: `"learned"`, `"sincos2d"` (fixed, no weights; `hidden_dim` divisible
            by 4) or `"none"`.
        grid_size: int or (rows, columns) of the learned grid; `None` takes that of
            the patches the layer is built with.
        num_prefix: int, number of tokens of the prefix, from the first, that own a
            learned position. It must be 0 unless `position="learned"`.
        interpolation: `"linear"` with aligned corners, as in the ViT paper's code;
            `"bilinear"` or `"bicubic"` with aligned areas and antialiasing, as in
            FlexiViT and in timm.

    Call arguments:
        patches: (batch, rows, columns, hidden_dim).
        prefix: (batch, tokens, hidden_dim), class token and registers, or `None`.
        shapes: int (batch, 2), rows and columns of the patches of each image, which are
            then the first ones of a row (batch, patches, 1, hidden_dim), others behind
            them; `None` where the patches of every image are a grid. The learned grid is
            resized for each image.

    Returns:
        (batch, tokens + rows * columns, hidden_dim): the prefix, then the patches row
        by row.

    Raises:
        ValueError: if the prefix has fewer tokens than `num_prefix`.
    """

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
        if num_prefix and position != "learned":
            raise ValueError(
                "Tokens of the prefix own a position only where positions are learned. "
                f"Received: position={position!r}, num_prefix={num_prefix}. Use "
                "position='learned', or num_prefix=0."
            )

    def build(self, patches_shape: Shape, prefix_shape: Shape | None = None) -> None:
        hidden_dim = patches_shape[-1]
        prefix_tokens = prefix_shape[1] if prefix_shape else 0
        if prefix_tokens < self.num_prefix:
            raise ValueError(
                "`num_prefix` must not exceed the number of tokens of the prefix. "
                f"Received: num_prefix={self.num_prefix} and a prefix of {prefix_tokens} "
                "tokens"
            )
        if self.position == "sincos2d" and hidden_dim % 4:
            raise ValueError(
                "Sine-cosine positions need a `hidden_dim` divisible by 4 (sine and "
                f"cosine of two axes). Received: hidden_dim={hidden_dim}"
            )
        if self.position != "learned":
            return
        self.grid_size = self.grid_size or tuple(patches_shape[1:3])
        if None in self.grid_size:
            raise ValueError(
                "`grid_size` must be given where the number of patches is unknown. "
                f"Received: grid_size=None, patches_shape={tuple(patches_shape)}"
            )
        if self.num_prefix:
            self.prefix = self._add_positions("prefix", (self.num_prefix, hidden_dim))
        self.grid = self._add_positions("grid", (*self.grid_size, hidden_dim))

    def _add_positions(self, name, shape):
        # An initializer draws the same numbers at each call, so each weight has its own.
        draw = initializer(keras.initializers.RandomNormal(stddev=0.02))
        return self.add_weight(name=name, shape=shape, initializer=draw)

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
        elif self.position == "learned":
            patches = patches + self._grid_of_size(rows, columns)
        elif self.position == "sincos2d":
            positions = sincos2d(rows, columns, hidden_dim, namespace(rows, columns))
            patches = patches + ops.cast(positions, self.compute_dtype)
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

    def _grid_of_size(self, rows, columns):
        """The learned positions of a grid, (rows, columns, hidden_dim)."""
        xp = namespace(rows, columns)
        if xp is np and (rows, columns) == self.grid_size:
            return ops.convert_to_tensor(self.grid)
        to_rows, to_columns = (
            ops.cast(resize_matrix(old, new, self.interpolation, xp), "float32")
            for old, new in zip(self.grid_size, (rows, columns), strict=True)
        )
        grid = ops.cast(self.grid, "float32")
        resized = ops.einsum("ir,rcd,jc->ijd", to_rows, grid, to_columns)
        # (rows, columns, hidden_dim)
        return ops.cast(resized, self.compute_dtype)

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

    def resized_grid(self, grid: np.ndarray) -> np.ndarray:
        return resize_grid(grid, self.grid_size, self.interpolation)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "position": self.position,
            "grid_size": self.grid_size,
            "num_prefix": self.num_prefix,
            "interpolation": self.interpolation,
        }


def namespace(*sizes: Any) -> ModuleType:
    """NumPy if all sizes are known while tracing, else `keras.ops`.

    NumPy then computes once, on the host. Only TensorFlow has sizes that are tensors, in
    graphs for images of any size.
    """
    return np if all(isinstance(size, int) for size in sizes) else ops


def sincos2d(
    rows: int | Tensor,
    columns: int | Tensor,
    hidden_dim: int,
    xp: ModuleType = np,
    endpoint: bool = True,
) -> Tensor:
    """Fixed positions: sine and cosine of x, then of y, at hidden_dim / 4 frequencies.

    Args:
        rows: int (or scalar tensor with `xp=keras.ops`), height of the grid.
        columns: int (or scalar tensor with `xp=keras.ops`), width of the grid.
        hidden_dim: int, divisible by 4.
        xp: `numpy`, or `keras.ops` where the size is known only inside the graph.
        endpoint: bool, whether the lowest frequency is 1 / 10,000, as in BigVision, or one
            step above it, as in MAE (arXiv 2111.06377).

    Returns:
        Array of shape (rows, columns, hidden_dim).
    """
    quarter = hidden_dim // 4
    steps = max(quarter - 1, 1) if endpoint else quarter
    exponents = xp.arange(quarter, dtype="float32") / steps
    frequencies = xp.power(10_000.0, -exponents)
    y = xp.expand_dims(xp.arange(rows, dtype="float32"), 1) * frequencies
    x = xp.expand_dims(xp.arange(columns, dtype="float32"), 1) * frequencies
    x = xp.concatenate([xp.sin(x), xp.cos(x)], axis=-1)
    y = xp.concatenate([xp.sin(y), xp.cos(y)], axis=-1)
    halves = (rows, columns, hidden_dim // 2)
    x = xp.broadcast_to(xp.expand_dims(x, 0), halves)
    y = xp.broadcast_to(xp.expand_dims(y, 1), halves)
    return xp.concatenate([x, y], axis=-1)
