"""Every kernel in plain Keras operations."""

import contextlib
import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit.types import Tensor

# Attention


def split_heads(stacked: Tensor, number: int) -> list:
    """Queries, keys or values of a stacked projection, heads before tokens.

    Args:
        stacked: (batch, tokens, number, heads, head_dim).
        number: int, how many projections are stacked.

    Returns:
        A list of `number` tensors (batch, heads, tokens, head_dim).
    """
    return [swap_heads(each) for each in ops.unstack(stacked, number, axis=2)]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bias: Tensor | None = None,
    dropout: Callable | None = None,
    training: bool | None = None,
) -> Tensor:
    """Scaled dot-product attention: `softmax(query · keyᵀ / √head_dim + bias) · value`.

    Source: *Attention Is All You Need* (arXiv 1706.03762), section 3.2.1.

    Args:
        query: (batch, heads, queries, head_dim).
        key: (batch, heads, keys, head_dim).
        value: (batch, heads, keys, head_dim).
        bias: float32, added to the scores; its shape broadcasts to (batch, heads,
            queries, keys).
        dropout: function that is applied to the attention weights, or `None`.
        training: bool, whether gradients will be taken.

    Returns:
        (batch, queries, heads, head_dim), in the dtype of `query`.
    """
    # Products over the last two axes, and scaled queries instead of scaled scores: XLA's
    # CPU compiler takes twice as long for einsums over (batch, tokens, heads).
    transposed = ops.transpose(key, (0, 1, 3, 2))  # (batch, heads, head_dim, keys)
    scores = ops.matmul(scaled(query), transposed)  # (batch, heads, queries, keys)
    return swap_heads(weigh_values(scores, value, bias, dropout))


def attend_in_steps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    change: Callable,
    dropout: Callable | None = None,
) -> Tensor:
    """`attend`, whose weights pass a function: the same on every backend.

    Args:
        query: (batch, heads, queries, head_dim).
        key: (batch, heads, keys, head_dim).
        value: (batch, heads, keys, head_dim).
        bias: float32, see `attend`.
        change: function of the weights (batch, heads, queries, keys), in float32 at least,
            that gives the weights to apply.
        dropout: function, see `attend`.

    Returns:
        (batch, queries, heads, head_dim), in the dtype of `query`.
    """
    if is_half(query):  # a product in half precision would round the scores
        query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
    scores = ops.matmul(scaled(query), ops.transpose(key, (0, 1, 3, 2)))
    weights = change(ops.softmax(biased(scores, bias), axis=-1))
    return swap_heads(apply_weights(weights, value, dropout))


def scaled(query: Tensor) -> Tensor:
    """`query / √head_dim`, of (…, head_dim)."""
    return query * query.shape[-1] ** -0.5


def weigh_values(
    scores: Tensor, value: Tensor, bias: Tensor | None, dropout: Callable | None
) -> Tensor:
    """`softmax(scores + bias) · value`, the softmax in float32 at least.

    Args:
        scores: (batch, heads, queries, keys).
        value: (batch, heads, keys, head_dim).
        bias: float32, see `attend`.
        dropout: function, see `attend`.

    Returns:
        (batch, heads, queries, head_dim).
    """
    weights = ops.softmax(biased(scores, bias), axis=-1)  # (batch, heads, queries, keys)
    return apply_weights(weights, value, dropout)


def apply_weights(weights: Tensor, value: Tensor, dropout: Callable | None) -> Tensor:
    """`weights · value`, (batch, heads, queries, head_dim), in the dtype of `value`."""
    weights = ops.cast(weights, value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return ops.matmul(weights, value)


def biased(scores: Tensor, bias: Tensor | None) -> Tensor:
    """`scores + bias`, in float32 where the scores are in half precision."""
    scores = ops.cast(scores, "float32") if is_half(scores) else scores
    return scores if bias is None else scores + bias


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, flash: bool | None
) -> Tensor:
    """`attend` without dropout by `keras.ops.dot_product_attention`.

    Args:
        query: (batch, heads, queries, head_dim).
        key: (batch, heads, keys, head_dim).
        value: (batch, heads, keys, head_dim).
        bias: float32, see `attend`.
        flash: what `flash_attention` returned.

    Returns:
        (batch, queries, heads, head_dim).
    """
    tokens_first = map(swap_heads, (query, key, value))  # (batch, tokens, heads, head_dim)
    return ops.dot_product_attention(*tokens_first, bias=bias, flash_attention=flash)


def flash_attention() -> bool | None:
    """The argument `flash_attention` for `keras.ops.dot_product_attention`.

    `keras.config.disable_flash_attention()` does not reach the operation (Keras 3.15), so
    it is passed on here. `None` leaves the choice to Keras.
    """
    is_disabled = keras.config.is_flash_attention_enabled() is False  # None: undecided
    return False if is_disabled else None


def swap_heads(x: Tensor) -> Tensor:
    """(batch, heads, tokens, head_dim) to (batch, tokens, heads, head_dim), or back."""
    return ops.transpose(x, (0, 2, 1, 3))


def is_half(x: Tensor) -> bool:
    """True if the numbers of a tensor have 16 bits."""
    return keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")


# Dense layers


def dense(
    inputs: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    gelu_approximate: bool | None = None,
) -> Tensor:
    """`inputs · kernel + bias`, and GELU of it if asked for.

    Args:
        inputs: (…, width).
        kernel: (width, units).
        bias: (units,), or `None`.
        gelu_approximate: bool, applies GELU, by the tanh approximation or exact; `None` for
            none.

    Returns:
        (…, units).
    """
    outputs = ops.matmul(inputs, kernel)
    if bias is not None:
        outputs = ops.add(outputs, bias)
    if gelu_approximate is None:
        return outputs
    return ops.gelu(outputs, approximate=gelu_approximate)


def fuses_gelu() -> bool:
    """True if `dense` computes GELU quicker than `gelu` after it."""
    return False


def einsum_dense(
    equation: str, inputs: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> Tensor:
    """`einsum(equation, inputs, kernel) + bias`."""
    outputs = ops.einsum(equation, inputs, kernel)
    return outputs if bias is None else ops.add(outputs, bias)


def num_summed_axes(equation: str, kernel: Tensor, bias: Tensor | None) -> int:
    """Number of axes that are summed over, if an einsum is a matrix product with a bias.

    It is one if the last axes of the inputs and the first of the kernel are summed over,
    in order, and the bias has all other axes of the kernel.

    Returns:
        The number of those axes; 0 if the einsum is no such product.
    """
    if bias is None:
        return 0
    inputs_axes, kernel_axes, outputs_axes = re.split(",|->", equation)
    for number in range(1, len(kernel_axes)):
        kept = inputs_axes.removesuffix(kernel_axes[:number])
        if kept != inputs_axes and outputs_axes == kept + kernel_axes[number:]:
            return number if tuple(bias.shape) == tuple(kernel.shape[number:]) else 0
    return 0


def apply_token_wise(network: Callable, tokens: Tensor) -> Tensor:
    """A network of each token by itself.

    Args:
        network: function of (…, width) that gives (…, units).
        tokens: (…, width).

    Returns:
        (…, units).
    """
    return network(tokens)


def add_product(total: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """`total + first · second`."""
    return total + first * second


def gelu(x: Tensor, *, approximate: bool, training: bool | None = False) -> Tensor:
    """GELU, `x · Φ(x)`.

    Source: *Gaussian Error Linear Units* (arXiv 1606.08415), sections 2 and 3.

    Args:
        x: tensor of any shape.
        approximate: bool, the tanh approximation.
        training: bool, whether gradients will be taken. They can be in either case.

    Returns:
        A tensor of the shape and dtype of `x`.
    """
    return ops.gelu(x, approximate=approximate)


# Norms


def layer_norm(inputs: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    """`gamma · (inputs - mean) / √(variance + epsilon) + beta` over the last axis.

    Computed in float32 at least, also where inputs and weights are in half precision.

    Args:
        inputs: (…, width).
        gamma: (width,).
        beta: (width,).
        epsilon: float.

    Returns:
        A tensor of the shape of `inputs`, in their dtype or in float32.
    """
    return ops.layer_normalization(inputs, gamma, beta, axis=-1, epsilon=epsilon)


def in_float32(inputs: Tensor, gamma: Tensor, beta: Tensor) -> tuple[str, Tensor, Tensor]:
    """The dtype to normalize `inputs` in, float32 at least, and both weights in it."""
    wide = keras.backend.result_type(inputs.dtype, "float32")
    return wide, ops.cast(gamma, wide), ops.cast(beta, wide)


def mean_and_inverse(inputs: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The mean over the last axis and `1 / √(variance + epsilon)`, each (…, 1)."""
    mean = ops.mean(inputs, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(inputs - mean), axis=-1, keepdims=True)
    return mean, ops.rsqrt(variance + epsilon)


def normalized_derivative(values: Tensor, normal: Tensor) -> Tensor:
    """`values` without their mean and their part along the normalized inputs `normal`.

    Times the inverse deviation this is the derivative of a normalization, and the gradient:
    it is its own transpose.
    """
    along = ops.mean(values * normal, axis=-1, keepdims=True)
    return values - ops.mean(values, axis=-1, keepdims=True) - normal * along


def group_norm(
    images: Tensor, gamma: Tensor, beta: Tensor, groups: int, epsilon: float
) -> Tensor:
    """Group norm of images, whose sums are taken by channel and then by group.

    Source: *Group Normalization* (arXiv 1803.08494), section 3.1. Keras reduces an array of
    five axes, of which the last but one stays. Sums by channel are 1.4 to 12 times as fast
    on JAX, 1.3 to 3.7 times on TensorFlow (8 images, 112² × 64 to 14² × 1024). The variance
    is that of the centred values: as the mean of squares minus the square of the mean, as
    Keras computes it, it loses digits.

    Args:
        images: (batch, height, width, channels), in float32 at least.
        gamma: (channels,), in the dtype of `images`.
        beta: (channels,), in the dtype of `images`.
        groups: int, a divisor of the number of channels.
        epsilon: float.

    Returns:
        A tensor of the shape and dtype of `images`.
    """
    centred = images - group_means(images, groups)
    variance = group_means(ops.square(centred), groups)
    return centred * (ops.rsqrt(variance + epsilon) * gamma) + beta


def group_means(images: Tensor, groups: int) -> Tensor:
    """Means over the pixels and channels of each group, (batch, 1, 1, channels)."""
    channels = images.shape[-1]
    size = channels // groups
    means = ops.mean(images, axis=(1, 2))  # (batch, channels)
    means = ops.mean(ops.reshape(means, (-1, groups, size)), axis=-1, keepdims=True)
    means = ops.broadcast_to(means, (ops.shape(means)[0], groups, size))
    return ops.reshape(means, (-1, 1, 1, channels))


# Images


def convolve(
    images: Tensor, kernel: Tensor, *, strides: tuple[int, int], padding: str | int
) -> Tensor:
    """Convolution of images, without a bias.

    Args:
        images: (batch, height, width, channels).
        kernel: (height, width, channels, filters).
        strides: (height, width), in pixels.
        padding: `"same"`, as TensorFlow pads, or int, the pixels of zeros on each side.

    Returns:
        (batch, new height, new width, filters).
    """
    if padding != "same" and padding:
        sides = (padding, padding)
        images = ops.pad(images, ((0, 0), sides, sides, (0, 0)))
    padding = "same" if padding == "same" else "valid"
    return ops.conv(images, kernel, strides, padding, data_format="channels_last")


def max_pool(
    images: Tensor, size: tuple[int, int], *, strides: tuple[int, int], padding: str
) -> Tensor:
    """Max-pooling of images.

    Args:
        images: (batch, height, width, channels).
        size: (height, width) of the window, in pixels.
        strides: (height, width), in pixels.
        padding: `"same"`, as TensorFlow pads, or `"valid"`.

    Returns:
        (batch, new height, new width, channels).
    """
    return ops.max_pool(images, size, strides, padding, data_format="channels_last")


# Tokens


def take_tokens(x: Tensor, places: Tensor) -> Tensor:
    """The tokens, or numbers, at given places of each example.

    Args:
        x: (batch, tokens) or (batch, tokens, width).
        places: int (batch, number).

    Returns:
        (batch, number) or (batch, number, width).
    """
    places = places[..., None] if len(x.shape) == 3 else places
    return ops.take_along_axis(x, places, axis=1)


# Initial values of weights


def has_numpy_weights(is_random: bool) -> bool:
    """True if NumPy makes the initial values of weights, random ones or constants."""
    return False


def weight_from_numpy(
    values: Callable,
    usual: Callable,
    shape: tuple[int, ...],
    dtype: str | None,
    layout: Any | None = None,
) -> Tensor:
    """The initial value of a weight, from NumPy where `has_numpy_weights`.

    Args:
        values: function of a shape and a dtype that gives a NumPy array.
        usual: Keras' initializer of the same distribution.
        shape: tuple of int.
        dtype: str, or `None` for Keras' default.
        layout: how Keras splits the weight over devices, or `None`.

    Returns:
        A tensor of the backend.
    """
    return usual(shape, dtype=dtype)


def array_for_weights(shape: tuple[int, ...]) -> np.ndarray:
    """An empty float32 array for the values of a weight, of one axis."""
    return np.empty(math.prod(shape), "float32")


def without_gradients() -> contextlib.AbstractContextManager:
    """Context of computations whose gradients nobody asks for.

    Their results are still to be given to `keras.ops.stop_gradient`, which alone suffices
    where a graph is compiled.
    """
    return contextlib.nullcontext()
