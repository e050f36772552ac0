"""GELU, in the forms in which TensorFlow is fast."""

import math

import keras
from keras import ops

_CUBIC, _SCALE = 0.044715, math.sqrt(2 / math.pi)


def gelu(x, *, approximate: bool, training: bool = False):
    """`x · Φ(x)`, `keras.ops.gelu` of the backend.

    Source: *Gaussian Error Linear Units* (arXiv 1606.08415), sections 2 and 3.

    TensorFlow without XLA, as Keras runs it on CPUs, has no kernel for it and computes
    it in nine steps, each of which reads and writes the widest arrays of a block. In
    float32 there

    - it is written so that TensorFlow's graph optimizer makes it a part of the product
      whose outputs it reads (two axes, with a bias);
    - in training, where that cannot be as the gradient reads what would be joined, its
      gradient is written out, in fewer steps than TensorFlow derives.

    Args:
        x: tensor of any shape.
        approximate: the tanh approximation.
        training: whether gradients will be taken; without it they can be, but slower.

    Returns:
        As `x`.
    """
    is_wide = keras.backend.standardize_dtype(x.dtype) in ("float32", "float64")
    if keras.backend.backend() != "tensorflow" or not is_wide:
        return ops.gelu(x, approximate=approximate)
    if training:
        return _with_gradient(_tanh if approximate else _erf)(x)
    return _one_that_is_joined(x) if approximate else ops.gelu(x, approximate=False)


def _one_that_is_joined(x):
    # TensorFlow's optimizer sorts the inputs of sums and products by their names before
    # it compares: in a scope that sorts behind that of `dense_1` they come out in the
    # order that it looks for, and of several forms of the cube this one
    # (TensorFlow 2.21, grappler's "remapper").
    import tensorflow as tf

    with tf.name_scope("gelu"):
        cubic = _CUBIC * (x * tf.square(x))
        return 0.5 * x * (1.0 + tf.tanh(_SCALE * (x + cubic)))


def _with_gradient(function):
    @ops.custom_gradient
    def gelu(x):
        outputs, derivative = function(x)
        return outputs, lambda upstream: upstream * derivative()

    return gelu


def _tanh(x):
    t = ops.tanh(x * (_SCALE + _SCALE * _CUBIC * ops.square(x)))

    def derivative():
        slope = 0.5 * _SCALE + 1.5 * _SCALE * _CUBIC * ops.square(x)
        return 0.5 + 0.5 * t + x * (1.0 - ops.square(t)) * slope

    return x * (0.5 + 0.5 * t), derivative


def _erf(x):
    phi = 0.5 + 0.5 * ops.erf(x * math.sqrt(0.5))

    def derivative():
        return phi + x * (ops.exp(-0.5 * ops.square(x)) / math.sqrt(2 * math.pi))

    return x * phi, derivative
