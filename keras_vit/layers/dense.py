"""Dense layers that add the bias in the product, where the backend has such a product."""

from typing import Any

import keras

from keras_vit.layers import kernels
from keras_vit.layers.initial_values import ValuesByNumPy
from keras_vit.types import Tensor


@keras.saving.register_keras_serializable(package="keras_vit")
class Dense(ValuesByNumPy, keras.layers.Dense):
    """`keras.layers.Dense`, as the backend computes it in the fewest operations.

    Call arguments:
        inputs: (..., width).
        training: not read.
        gelu_approximate: bool, applies GELU, by the tanh approximation or exact, before
            the layer's own activation; `None` for none.

    Returns:
        (..., units).
    """

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        gelu_approximate: bool | None = None,
    ) -> Tensor:
        outputs = kernels.dense(inputs, self.kernel, self.bias, gelu_approximate)
        return outputs if self.activation is None else self.activation(outputs)

    def quantize(
        self, mode: str | None = None, type_check: bool = True, config: Any = None
    ) -> None:
        # Keras refuses subclasses, as it does not know their `call`. Where this layer is
        # quantized, it has Keras' own.
        super().quantize(mode, type_check=False, config=config)


@keras.saving.register_keras_serializable(package="keras_vit")
class EinsumDense(ValuesByNumPy, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense`, as the backend computes it in the fewest operations."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        outputs = kernels.einsum_dense(self.equation, inputs, self.kernel, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

    def quantize(
        self, mode: str | None = None, type_check: bool = True, config: Any = None
    ) -> None:
        # See `Dense.quantize`.
        super().quantize(mode, type_check=False, config=config)
