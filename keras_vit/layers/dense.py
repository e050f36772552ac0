"""Dense layers that add the bias in the product, where the backend has such a product."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_vit")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense`, on torch as one operation.

    There Keras writes the product, and reads and writes it once more for the bias, as
    nothing joins the two. XLA does so on JAX and TensorFlow, which have Keras' layer.
    """

    def call(self, inputs, training=None):
        if not _adds_bias_in_product(self):
            return super().call(inputs, training=training)
        return _product_and_bias(inputs, self.kernel, self.bias, num_contracted=1)

    def quantize(self, mode=None, type_check=True, config=None):
        # Keras refuses subclasses, as it does not know their `call`: this one has Keras'
        # where it is quantized.
        super().quantize(mode, type_check=False, config=config)


@keras.saving.register_keras_serializable(package="keras_vit")
class EinsumDense(keras.layers.EinsumDense):
    """`keras.layers.EinsumDense`, see `Dense`: for equations that sum over the last axes
    of the inputs and the first of the kernel, in order, with a bias over all others of
    the kernel.
    """

    def call(self, inputs, training=None):
        if not _adds_bias_in_product(self):
            return super().call(inputs, training=training)
        num_contracted = len(self.kernel.shape) - len(self.bias.shape)
        return _product_and_bias(inputs, self.kernel, self.bias, num_contracted)

    def quantize(self, mode=None, type_check=True, config=None):
        # Keras refuses subclasses, as it does not know their `call`: this one has Keras'
        # where it is quantized.
        super().quantize(mode, type_check=False, config=config)


def _adds_bias_in_product(layer):
    return keras.backend.backend() == "torch" and layer.bias is not None


def _product_and_bias(inputs, kernel, bias, num_contracted):
    import torch

    kernel, bias = ops.convert_to_tensor(kernel), ops.convert_to_tensor(bias)
    summed = math.prod(kernel.shape[:num_contracted])
    outputs = torch.addmm(
        bias.reshape(-1), inputs.reshape(-1, summed), kernel.reshape(summed, -1)
    )
    rest = inputs.shape[: inputs.ndim - num_contracted]
    return outputs.reshape(*rest, *bias.shape)
