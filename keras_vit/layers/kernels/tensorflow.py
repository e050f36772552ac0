"""Kernels for TensorFlow without XLA, which is how Keras runs it on CPUs.

Without XLA every operation reads and writes its tensors, so fewer operations are quicker.
TensorFlow's graph optimizer makes bias and GELU a part of a product of two axes.
"""

import math
from collections.abc import Callable

import keras
import tensorflow as tf
from keras import ops

from keras_vit.layers.kernels import common
from keras_vit.types import Tensor

_CUBIC, _SCALE = 0.044715, math.sqrt(2 / math.pi)


def split_heads(stacked: Tensor, number: int) -> list:
    """`common.split_heads` by one transposition instead of one for each and a copy.

    With products of two axes and one operation for the softmax it made inference of B/16
    1.045 times as fast, training 1.05 times.
    """
    heads_first = ops.transpose(stacked, (2, 0, 3, 1, 4))
    return ops.unstack(heads_first, number, axis=0)  # (batch, heads, tokens, head_dim)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bias: Tensor | None = None,
    dropout: Callable | None = None,
    training: bool | None = None,
) -> Tensor:
    """`common.attend`, whose keys are not copied to transpose them.

    In float32 TensorFlow has no kernel. This is 1.16 times as fast as
    `keras.ops.dot_product_attention` with XLA, 1.02 times without (B/16's attention layer,
    batch 8, two cores). Halves go to that operation.
    """
    if dropout is None and common.is_half(query):
        return common.fused_attention(query, key, value, bias, common.flash_attention())
    scores = tf.matmul(common.scaled(query), key, transpose_b=True)
    return common.swap_heads(common.weigh_values(scores, value, bias, dropout))


def einsum_dense(
    equation: str, inputs: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> Tensor:
    """`common.einsum_dense`, as a product of two axes where it is one.

    TensorFlow adds the bias in such a product. See `split_heads` for what it gains.
    """
    number = common.num_summed_axes(equation, kernel, bias)
    if not number:
        return common.einsum_dense(equation, inputs, kernel, bias)
    kernel, bias = ops.convert_to_tensor(kernel), ops.convert_to_tensor(bias)
    width = math.prod(kernel.shape[:number])
    others = ops.shape(inputs)[: len(inputs.shape) - number]
    # TensorFlow's own operations: Keras' take 15 µs more each.
    rows, matrix = tf.reshape(inputs, (-1, width)), tf.reshape(kernel, (width, -1))
    outputs = tf.nn.bias_add(tf.matmul(rows, matrix), tf.reshape(bias, (-1,)))
    return tf.reshape(outputs, (*others, *bias.shape))


def apply_token_wise(network: Callable, tokens: Tensor) -> Tensor:
    """`common.apply_token_wise` of two axes, as the graph optimizer asks for.

    It joins to a product only what reads its outputs as they are, see `gelu`.
    """
    outputs = network(ops.reshape(tokens, (-1, tokens.shape[-1])))
    return ops.reshape(outputs, ops.shape(tokens))


def gelu(x: Tensor, *, approximate: bool, training: bool | None = False) -> Tensor:
    """`common.gelu`, in float32 as a part of the product before, or with a short gradient.

    TensorFlow has no kernel for GELU and computes it in nine steps, each of which reads and
    writes the widest arrays of a block. In inference it is written so that the graph
    optimizer makes it a part of the product: 1.03 times as fast (B/16, batch 8). In
    training that cannot be, as the gradient reads what would be joined; there the gradient
    is written out, in fewer steps than TensorFlow derives: 1.03 times as fast, and as much
    again by the gradient of the sigmoid.
    """
    if keras.backend.standardize_dtype(x.dtype) not in ("float32", "float64"):
        return ops.gelu(x, approximate=approximate)
    if training:
        return ops.custom_gradient(_tanh_gelu if approximate else _erf_gelu)(x)
    return _joined_gelu(x) if approximate else ops.gelu(x, approximate=False)


def _joined_gelu(x):
    # TensorFlow's optimizer sorts the inputs of sums and products by their names before
    # it compares: in a scope that sorts behind that of `dense_1` they come out in the
    # order that it looks for, and of several forms of the cube this one
    # (TensorFlow 2.21, grappler's "remapper").
    with tf.name_scope("gelu"):
        cubic = _CUBIC * (x * tf.square(x))
        return 0.5 * x * (1.0 + tf.tanh(_SCALE * (x + cubic)))


def _tanh_gelu(x):
    """Outputs, and a function of their gradient that gives the gradient of `x`."""
    # (1 + tanh z) / 2 is the sigmoid of 2 z, and its gradient one operation.
    scale, cubic = 2 * _SCALE, 2 * _SCALE * _CUBIC
    share = tf.sigmoid(x * (scale + cubic * tf.square(x)))

    def gradient(upstream):
        slope = scale + 3 * cubic * tf.square(x)
        share_gradient = tf.raw_ops.SigmoidGrad(y=share, dy=upstream * (x * slope))
        return upstream * share + share_gradient

    return x * share, gradient


def _erf_gelu(x):
    """Outputs, and a function of their gradient that gives the gradient of `x`."""
    share = 0.5 + 0.5 * ops.erf(x * math.sqrt(0.5))

    def gradient(upstream):
        density = ops.exp(-0.5 * ops.square(x)) * (1 / math.sqrt(2 * math.pi))
        return upstream * (share + x * density)

    return x * share, gradient


def layer_norm(inputs: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    """`common.layer_norm` with a gradient in fewer steps, which keeps no float32 copy.

    A training step of B/16 is 1.05 and 1.01 times as fast with it (7 and 9 rounds, batch
    8), 1.04 and 1.02 times with XLA; inference is as fast.
    """
    dtype, gamma, beta = common.in_float32(inputs, gamma, beta)

    @ops.custom_gradient
    def normalize(inputs, gamma, beta):
        wide = ops.cast(inputs, dtype)
        mean, inverse = common.mean_and_inverse(wide, epsilon)
        outputs = (wide - mean) * inverse * gamma + beta

        def gradient(upstream):
            normal = (ops.cast(inputs, dtype) - mean) * inverse
            others = tuple(range(len(inputs.shape) - 1))
            derivative = common.normalized_derivative(upstream * gamma, normal)
            return (
                ops.cast(inverse * derivative, inputs.dtype),
                ops.sum(upstream * normal, axis=others),
                ops.sum(upstream, axis=others),
            )

        return outputs, gradient

    return normalize(inputs, gamma, beta)
