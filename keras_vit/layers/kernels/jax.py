"""Kernels for JAX."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np
from keras import ops

from keras_vit.keras_internals.stateless_scope import in_stateless_scope
from keras_vit.layers.kernels import common
from keras_vit.types import Tensor

# Scores of one head from which on attention is computed in parts, and scores of a part
# (8 MB).
LARGE, PART = 2**16, 2**21


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bias: Tensor | None = None,
    dropout: Callable | None = None,
    training: bool | None = None,
) -> Tensor:
    """`common.attend`, in half precision by JAX's kernel, in float32 written out.

    In float32 JAX has no kernel. Heads first, keys transposed and divided after the second
    product, B/16's attention layer is 1.23 times as fast in inference as with
    `keras.ops.dot_product_attention`, with a softmax 1.16 times; in training 1.17 times
    (batch 8, two cores; on a later machine 1.33 and 1.19 in inference).
    """
    if dropout is None and _has_kernel(query):
        return common.fused_attention(query, key, value, bias, flash_attention())
    is_plain = bias is None and dropout is None and not training
    if is_plain and (number := _heads_per_part(query, key)):
        outputs = _attend_in_parts(query, key, value, number)
    else:
        outputs = _attend(query, key, value, bias, dropout)
    return common.swap_heads(outputs)


def _attend(query, key, value, bias=None, dropout=None):
    scores = ops.matmul(common.scaled(query), ops.transpose(key, (0, 1, 3, 2)))
    if common.is_half(query):  # whose sum, not divided yet, could overflow
        return common.weigh_values(scores, value, bias, dropout)
    scores = common.biased(scores, bias)  # (batch, heads, queries, keys)
    # The outputs are divided, which are fewer than the weights.
    weights = ops.exp(scores - ops.stop_gradient(ops.max(scores, -1, keepdims=True)))
    total = ops.sum(weights, axis=-1, keepdims=True)  # (batch, heads, queries, 1)
    if dropout is not None:
        weights = dropout(weights)
    return ops.matmul(weights, value) / total


def _heads_per_part(query, key):
    """Number of heads, of all images, to attend to at a time on a CPU; `None` for all.

    XLA runs each step of the softmax over all scores, and large ones have left the caches
    before the next step. In parts, inference of B/16 is 1.15 times as fast at 384 pixels,
    1.17 at 256 (batch 8), and not at 224 (0.99). With devices that share the images, parts
    would cross between them.
    """
    if keras.distribution.distribution() is not None:
        return None
    batch, heads, queries, _ = query.shape
    scores = queries * key.shape[2]
    # The size of a batch may be a symbol, where a model is exported.
    if not isinstance(batch, int) or scores < LARGE or jax.default_backend() != "cpu":
        return None
    return math.gcd(batch * heads, 2 ** int(math.log2(max(PART // scores, 1))))


def _attend_in_parts(query, key, value, number):
    # (batch · heads / number, number, tokens, head_dim) each
    parts = [ops.reshape(x, (-1, number, *x.shape[2:])) for x in (query, key, value)]

    def attend_to_one(part):
        return _attend(*(x[None] for x in part))[0]

    return ops.reshape(ops.map(attend_to_one, parts), query.shape)


def _has_kernel(x):
    """True if JAX has a kernel for the dtype: a half, but no float16 on a CPU.

    XLA's CPU compiler has no product of float16 with sums in float32.
    """
    is_float16 = keras.backend.standardize_dtype(x.dtype) == "float16"
    return common.is_half(x) and not (is_float16 and jax.default_backend() == "cpu")


def flash_attention() -> bool | None:
    """`common.flash_attention`, but False on TPU.

    There Keras 3.15 takes a kernel for token counts divisible by 128 that masks causally
    and leaves the scale out: wrong numbers.
    """
    is_on_tpu = jax.devices()[0].platform == "tpu"
    return False if is_on_tpu else common.flash_attention()


def layer_norm(inputs: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    """`common.layer_norm` with a derivative of its own, from which JAX makes the gradient.

    The gradient that JAX derives is cheap to compute once more, so XLA's CPU compiler (JAX
    0.10) keeps no array of it and computes it wherever the gradient of the residual stream
    is read, which is the sum of those of all norms above: of 8 blocks the largest fused
    loop reads 122 arrays. The means in this derivative end what XLA would join: 14 arrays
    with any number of blocks. The gradient of B/16, every token computed, took 17.7 s
    instead of 23.8 (one core beside other work).
    """
    _, gamma, beta = common.in_float32(inputs, gamma, beta)
    return _normalize(inputs, gamma, beta, epsilon)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _normalize(inputs, gamma, beta, epsilon):
    wide = ops.cast(inputs, gamma.dtype)
    mean, inverse = common.mean_and_inverse(wide, epsilon)
    return (wide - mean) * inverse * gamma + beta


@_normalize.defjvp
def _normalize_derivative(epsilon, values, tangents):
    inputs, gamma, beta = values
    inputs_tangent, gamma_tangent, beta_tangent = tangents
    wide = ops.cast(inputs, gamma.dtype)
    mean, inverse = common.mean_and_inverse(wide, epsilon)
    normal = (wide - mean) * inverse
    inputs_tangent = ops.cast(inputs_tangent, gamma.dtype)
    normal_tangent = inverse * common.normalized_derivative(inputs_tangent, normal)
    outputs = normal * gamma + beta
    return outputs, normal_tangent * gamma + normal * gamma_tangent + beta_tangent


def has_numpy_weights(is_random: bool) -> bool:
    """True, unless JAX traces: then it wants a program that makes the values.

    Keras has XLA compile how values are drawn, or filled with a constant, for each shape of
    weight. Building B/16 took 4.7 to 9.1 s, with NumPy 0.8 s. While tracing, Keras cannot
    ask for a layout, and may ask within another trace.
    """
    return not isinstance(jax.device_put(np.zeros(())), jax.core.Tracer)


def weight_from_numpy(
    values: Callable,
    usual: Callable,
    shape: tuple[int, ...],
    dtype: str | None,
    layout: Any | None = None,
) -> Tensor:
    """`common.weight_from_numpy`, on the devices of the layout."""
    if in_stateless_scope():  # where Keras traces with them, and never keeps them
        return usual(shape, dtype=dtype)
    dtype = keras.backend.standardize_dtype(dtype)
    array = values(shape, dtype).astype(dtype, copy=False)
    if layout is not None:
        # It says how the axes of a mesh split the weight, but not over which devices.
        mesh = jax.sharding.get_mesh()
        layout = jax.sharding.NamedSharding(mesh, layout.spec)
        default = jax.device_put(np.zeros(())).sharding
        if mesh.size == 1 and default.is_equivalent_to(layout, len(shape)):
            # Keras leaves an array where it is, and warns of a model that has both.
            layout = default
    # `convert_to_tensor` would compile a program for each shape, and copy.
    return jax.device_put(array, layout)
