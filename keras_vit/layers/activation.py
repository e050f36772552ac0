"""GELU, in the forms in which TensorFlow is fast.

Of the functions of its gradient each gives the outputs, and a function of the outputs'
gradient that gives the inputs'.
"""

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
        return ops.custom_gradient(_tanh if approximate else _erf)(x)
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


def _tanh(x):
    # (1 + tanh z) / 2 is the sigmoid of 2 z, and its gradient one operation.
    import tensorflow as tf

    scale, cubic = 2 * _SCALE, 2 * _SCALE * _CUBIC
    share = tf.sigmoid(x * (scale + cubic * tf.square(x)))

    def gradient(upstream):
        slope = scale + 3 * cubic * tf.square(x)
        of_share = tf.raw_ops.SigmoidGrad(y=share, dy=upstream * (x * slope))
        return upstream * share + of_share

    return x * share, gradient


def _erf(x):
    share = 0.5 + 0.5 * ops.erf(x * math.sqrt(0.5))

    def gradient(upstream):
        density = ops.exp(-0.5 * ops.square(x)) * (1 / math.sqrt(2 * math.pi))
        return upstream * (share + x * density)

    return x * share, gradient
