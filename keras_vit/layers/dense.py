"""Dense layers that add the bias in the product, where the backend has such a product."""

import math
import re

import keras
from keras import ops

from keras_vit.layers.initial import ValuesByNumPy
from keras_vit.layers.torch_product import product


@keras.saving.register_keras_serializable(package="keras_vit")
class Dense(ValuesByNumPy, keras.layers.Dense):
    """`keras.layers.Dense`, on torch as one operation.

    There Keras writes the product, and reads and writes it once more for the bias, as
    nothing joins the two. XLA does so on JAX and TensorFlow, which have Keras' layer.
    `gelu_approximate` asks a layer without an activation for GELU, exact or approximated,
    which torch can join, too.
    """

    def call(self, inputs, training=None, gelu_approximate=None):
        if keras.backend.backend() == "torch" and self.bias is not None:
            return _product_and_bias(self, inputs, 1, gelu_approximate)
        outputs = super().call(inputs, training=training)
        if gelu_approximate is None:
            return outputs
        return ops.gelu(outputs, approximate=gelu_approximate)

    def quantize(self, mode=None, type_check=True, config=None):
        # Keras refuses subclasses, as it does not know their `call`: this one has Keras'
        # where it is quantized.
        super().quantize(mode, type_check=False, config=config)


@keras.saving.register_keras_serializable(package="keras_vit")
class EinsumDense(ValuesByNumPy, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense`, as one operation on torch and on TensorFlow without
    XLA, which joins a bias to a product of matrices alone. See `Dense`.

    It is one where the last axes of the inputs and the first of the kernel are summed
    over, in order, and the bias has all others of the kernel.
    """

    def call(self, inputs, training=None):
        num_summed = _num_summed(self.equation)
        others = tuple(self.kernel.shape[num_summed:])
        if not (num_summed and self.bias is not None and self.bias.shape == others):
            return super().call(inputs, training=training)
        if keras.backend.backend() == "jax":
            return super().call(inputs, training=training)
        return _product_and_bias(self, inputs, num_summed)

    def quantize(self, mode=None, type_check=True, config=None):
        # Keras refuses subclasses, as it does not know their `call`: this one has Keras'
        # where it is quantized.
        super().quantize(mode, type_check=False, config=config)


def _num_summed(equation):
    """How many axes a product of matrices sums over; 0 where the equation is none."""
    inputs, kernel, outputs = re.split(",|->", equation)
    for number in range(1, len(kernel)):
        kept = inputs.removesuffix(kernel[:number])
        if kept != inputs and outputs == kept + kernel[number:]:
            return number
    return 0


def _product_and_bias(layer, inputs, num_summed, gelu_approximate=None):
    kernel, bias = ops.convert_to_tensor(layer.kernel), ops.convert_to_tensor(layer.bias)
    outputs = _of_matrices(inputs, kernel, bias, num_summed, gelu_approximate)
    return layer.activation(outputs)


def _of_matrices(inputs, kernel, bias, num_summed, gelu_approximate=None):
    """On torch or TensorFlow, by their own operations: Keras' take 15 µs more each."""
    is_torch = keras.backend.backend() == "torch"
    if is_torch:
        from torch import reshape
    else:
        from tensorflow import reshape
    width = math.prod(kernel.shape[:num_summed])
    rest = ops.shape(inputs)[: len(inputs.shape) - num_summed]
    matrices = (
        reshape(inputs, (-1, width)),
        reshape(kernel, (width, -1)),
        reshape(bias, (-1,)),
    )
    if is_torch:
        outputs = product(*matrices, gelu_approximate)
    else:
        import tensorflow as tf

        outputs = tf.nn.bias_add(tf.matmul(*matrices[:2]), matrices[2])
    return reshape(outputs, (*rest, *bias.shape))


def project(equation, inputs, kernel, bias=None):
    """The einsum of two tensors, of the last axis of one and the first of the other, plus
    a bias of the kernel's other axes, if there is one.
    """
    if keras.backend.backend() != "jax" and bias is not None:
        return _of_matrices(inputs, kernel, bias, num_summed=1)
    outputs = ops.einsum(equation, inputs, kernel)
    return outputs if bias is None else outputs + bias
