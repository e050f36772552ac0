"""Layer norm, RMS norm and group norm, as the backend computes them quickest."""

import keras
from keras import ops

from keras_vit.layers import kernels
from keras_vit.layers.initial_values import ValuesByNumPy
from keras_vit.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vit")
class LayerNormalization(ValuesByNumPy, keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization`: the same values, and a quicker gradient.

    Source: *Layer Normalization* (arXiv 1607.06450), section 3.

    Args:
        epsilon: float, added to the variance.

    Input shape:
        (..., width).

    Output shape:
        Same as the input's.
    """

    def __init__(self, *, epsilon: float = 1e-6, **kwargs):
        super().__init__(epsilon=epsilon, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        if self.gamma is None or self.beta is None or list(self.axis) != [-1]:
            return super().call(inputs)
        outputs = kernels.layer_norm(inputs, self.gamma, self.beta, self.epsilon)
        return ops.cast(outputs, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_vit")
class RMSNormalization(ValuesByNumPy, keras.layers.RMSNormalization):
    """`keras.layers.RMSNormalization`, whose weight has the name that other norms' have.

    Source: *Root Mean Square Layer Normalization* (arXiv 1910.07467), section 3. The weight
    is `gamma`; it stays in float32 under mixed precision, as a layer norm's does.

    Args:
        epsilon: float, added to the mean of squares.

    Input shape:
        (..., width).

    Output shape:
        Same as the input's.
    """

    def __init__(self, *, epsilon: float = 1e-6, **kwargs):
        super().__init__(epsilon=epsilon, **kwargs)

    def build(self, inputs_shape: Shape) -> None:
        shape = (inputs_shape[-1],)
        self.scale = self.add_weight(
            name="gamma", shape=shape, initializer="ones", autocast=False
        )


# The value of `norm` → the class of the norms of tokens.
NORMS = {"layer": LayerNormalization, "rms": RMSNormalization}


@keras.saving.register_keras_serializable(package="keras_vit")
class GroupNormalization(ValuesByNumPy, keras.layers.GroupNormalization):
    """`keras.layers.GroupNormalization`, quicker and more exact on images.

    Source: *Group Normalization* (arXiv 1803.08494), section 3.1. Inputs that are no images
    go Keras' way, as does another `axis`.

    Args:
        groups: int, a divisor of the number of channels.
        epsilon: float, added to the variance.

    Input shape:
        (batch, height, width, channels). Height and width may be `None`.

    Output shape:
        Same as the input's.
    """

    def __init__(self, groups: int = 32, *, epsilon: float = 1e-6, **kwargs):
        super().__init__(groups, epsilon=epsilon, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        if not self._takes(inputs):
            return super().call(inputs)
        # In float32 at least, also where the inputs are halves.
        wide = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        gamma, beta = (ops.cast(w, wide.dtype) for w in (self.gamma, self.beta))
        outputs = kernels.group_norm(wide, gamma, beta, self.groups, self.epsilon)
        return ops.cast(outputs, self.compute_dtype)

    def _takes(self, inputs):
        are_images = len(inputs.shape) == 4 and self.axis in (-1, 3)
        return self.scale and self.center and are_images
