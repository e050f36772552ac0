"""The head of self-distillation."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers.dense import Dense
from keras_vit.layers.initial_values import ValuesByNumPy, initializer
from keras_vit.layers.trainability import Composite
from keras_vit.types import Shape, Tensor

_LEAST_NORM = 1e-12  # of features that are divided by their norm


@keras.saving.register_keras_serializable(package="keras_vit")
class WeightNormalizedDense(ValuesByNumPy, keras.layers.Layer):
    """A dense layer without bias whose kernel has columns of a given norm.

    Source: *Weight Normalization* (arXiv 1602.07868), section 2: the output j is
    `scale[j] * kernel[:, j] / norm(kernel[:, j])` times the inputs.

    Args:
        units: int, number of outputs.
        train_scale: bool, whether the norms are trained; otherwise they stay 1.

    Call arguments:
        inputs: (..., width).
        is_frozen: scalar bool; where it is true, the weights have gradients of zero.
            `None` for false.

    Returns:
        (..., units).
    """

    def __init__(self, units: int, train_scale: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.units = arguments.positive(units, "units")
        self.train_scale = train_scale

    def build(self, inputs_shape: Shape) -> None:
        width = inputs_shape[-1]
        # As torch draws the weights of a linear layer.
        draw = keras.initializers.RandomUniform(-(width**-0.5), width**-0.5)
        self.kernel = self.add_weight(
            name="kernel", shape=(width, self.units), initializer=initializer(draw)
        )
        if self.train_scale:
            self.scale = self.add_weight(
                name="scale", shape=(self.units,), initializer="ones"
            )

    def call(self, inputs: Tensor, is_frozen: Tensor | None = None) -> Tensor:
        kernel = _frozen(ops.convert_to_tensor(self.kernel), is_frozen)
        scale = _inverse_norm(kernel, axis=0)
        if self.train_scale:
            scale = scale * _frozen(ops.convert_to_tensor(self.scale), is_frozen)
        return ops.matmul(inputs, kernel * scale)

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        return (*inputs_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        config = {"units": self.units, "train_scale": self.train_scale}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="keras_vit")
class ProjectionHead(Composite, keras.layers.Layer):
    """Projects pooled features to the outputs that student and teacher compare.

    Source: DINO (arXiv 2104.14294), section 3.1, *Network architecture*, and appendix C: a
    multi-layer perceptron of three layers with GELU between them, division by the L2 norm,
    and a weight-normalized dense layer `last_layer`.

    Args:
        output_dim: int, number of outputs.
        hidden_dim: int, width of the first two layers.
        bottleneck_dim: int, width of the third layer.
        norm_last_layer: bool, whether the columns of `last_layer` keep norm 1, so that
            every output is a cosine.

    Call arguments:
        features: (..., width).
        is_last_layer_frozen: scalar bool, see `WeightNormalizedDense`.

    Returns:
        float32 (..., output_dim).
    """

    def __init__(
        self,
        output_dim: int,
        *,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        norm_last_layer: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.output_dim = arguments.positive(output_dim, "output_dim")
        self.hidden_dim = arguments.positive(hidden_dim, "hidden_dim")
        self.bottleneck_dim = arguments.positive(bottleneck_dim, "bottleneck_dim")
        self.norm_last_layer = norm_last_layer
        self.dense_1, self.dense_2, self.bottleneck = (
            Dense(
                units,
                kernel_initializer=initializer(keras.initializers.RandomNormal(0, 0.02)),
                dtype=self.dtype_policy,
                name=name,
            )
            for name, units in (
                ("dense_1", hidden_dim),
                ("dense_2", hidden_dim),
                ("bottleneck", bottleneck_dim),
            )
        )
        # In float32 under any policy: a temperature of 0.04 magnifies what is rounded.
        self.last_layer = WeightNormalizedDense(
            output_dim,
            train_scale=not norm_last_layer,
            dtype="float32",
            name="last_layer",
        )

    def build(self, features_shape: Shape) -> None:
        width = features_shape[-1]
        for layer in (self.dense_1, self.dense_2, self.bottleneck, self.last_layer):
            layer.build((None, width))
            width = layer.units

    def call(self, features: Tensor, is_last_layer_frozen: Tensor | None = None) -> Tensor:
        hidden = self.dense_1(features, gelu_approximate=False)
        hidden = self.dense_2(hidden, gelu_approximate=False)
        features = ops.cast(self.bottleneck(hidden), "float32")
        features = features * _inverse_norm(features, axis=-1)
        return self.last_layer(features, is_frozen=is_last_layer_frozen)

    def compute_output_shape(self, features_shape: Shape) -> Shape:
        return (*features_shape[:-1], self.output_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_dim": self.output_dim,
            "hidden_dim": self.hidden_dim,
            "bottleneck_dim": self.bottleneck_dim,
            "norm_last_layer": self.norm_last_layer,
        }


def _inverse_norm(x, axis):
    squares = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return ops.rsqrt(ops.maximum(squares, _LEAST_NORM**2))


def _frozen(weight, is_frozen):
    """A weight whose gradient is zero where `is_frozen`."""
    if is_frozen is None:
        return weight
    return ops.where(is_frozen, ops.stop_gradient(weight), weight)
