"""Kernels for torch.

Keras takes 15 µs for an operation such as `reshape`, which torch itself does in 1, so these
call torch's own. Between them they made Ti/16 1.13 times as fast (batch 8, 7 pairs of
processes), with calls of dropout left out.
"""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from keras import ops
from torch.nn import functional
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from keras_vit.layers.kernels import common
from keras_vit.types import Tensor

LARGE = 2**24  # multiplications from which on a product by oneDNN pays
LARGE_WEIGHT = 2**20  # numbers from which on NumPy draws a weight
CACHE_LINE = 64  # bytes


def split_heads(stacked: Tensor, number: int) -> list:
    """`common.split_heads` as views: nothing is copied before torch's attention.

    B/16 is 1.03 times as fast with it in inference, as fast in training.
    """
    return [each.transpose(1, 2) for each in stacked.unbind(2)]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bias: Tensor | None = None,
    dropout: Callable | None = None,
    training: bool | None = None,
) -> Tensor:
    """`common.attend` by torch's kernel, which knows no dropout.

    Written out, inference of B/16's attention layer is 0.75 to 0.88 times as fast (on a
    later machine 0.89 and 0.90). torch finds the kernel itself: Keras asks first, and
    copies.
    """
    if dropout is not None:
        return common.attend(query, key, value, bias=bias, dropout=dropout)
    flash = common.flash_attention()
    if flash is not None:
        return common.fused_attention(query, key, value, bias, flash)
    if bias is not None:
        bias = bias.to(query.dtype)
    outputs = functional.scaled_dot_product_attention(query, key, value, bias)
    return outputs.transpose(1, 2)


def dense(
    inputs: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    gelu_approximate: bool | None = None,
) -> Tensor:
    """`common.dense` as one operation, see `product`."""
    if bias is None:
        return common.dense(inputs, kernel, None, gelu_approximate)
    return _project(inputs, kernel, bias, 1, gelu_approximate)


def fuses_gelu() -> bool:
    """True: they are one operation where no gradient is wanted, see `product`."""
    return True


def einsum_dense(
    equation: str, inputs: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> Tensor:
    """`common.einsum_dense`, as one operation where it is a matrix product with a bias."""
    if number := common.num_summed_axes(equation, kernel, bias):
        return _project(inputs, kernel, bias, number)
    return common.einsum_dense(equation, inputs, kernel, bias)


def _project(inputs, kernel, bias, num_summed, gelu_approximate=None):
    kernel, bias = ops.convert_to_tensor(kernel), ops.convert_to_tensor(bias)
    width = math.prod(kernel.shape[:num_summed])
    others = ops.shape(inputs)[: len(inputs.shape) - num_summed]
    rows, matrix = torch.reshape(inputs, (-1, width)), torch.reshape(kernel, (width, -1))
    outputs = product(rows, matrix, torch.reshape(bias, (-1,)), gelu_approximate)
    return torch.reshape(outputs, (*others, *bias.shape))


def product(
    inputs: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    gelu_approximate: bool | None = None,
) -> Tensor:
    """`inputs · kernel + bias` of two axes, by the quicker of torch's two libraries.

    Keras computes product and bias apart, which nothing joins: 0.96 times as fast as timm,
    with `torch.addmm` 0.97 (three blocks of B/16, 21 rounds).

    In float32 torch multiplies by MKL, which keeps to AVX2 on processors that are not
    Intel's. oneDNN, which torch has too, uses AVX-512 there: B/16 at batch 8 is 1.16 times
    as fast in inference, 1.23 times in training. GELU in that product, where no gradient
    needs what it reads, makes inference 1.07 times as fast.

    Args:
        inputs: (rows, width).
        kernel: (width, units).
        bias: (units,).
        gelu_approximate: bool, GELU of the sum, by the tanh approximation or exact; `None`
            for the sum itself.

    Returns:
        (rows, units).
    """
    if not _is_for_onednn(inputs, kernel):
        outputs = torch.addmm(bias, inputs, kernel)
    elif gelu_approximate is None or _want_gradients(inputs, kernel, bias):
        outputs = _Product.apply(inputs, kernel, bias)
    else:
        return _multiply_by_onednn(inputs, kernel, bias, "gelu", _form(gelu_approximate))
    if gelu_approximate is None:
        return outputs
    return functional.gelu(outputs, approximate=_form(gelu_approximate))


def _form(gelu_approximate):
    return "tanh" if gelu_approximate else "none"


def _want_gradients(*tensors):
    return torch.is_grad_enabled() and any(each.requires_grad for each in tensors)


def _is_for_onednn(inputs, kernel):
    return (
        # Which exports, or chooses by itself; first, as a look at the size would tie an
        # exported program to batches that are as large.
        not torch.compiler.is_compiling()
        and inputs.device.type == "cpu"
        and inputs.dtype == kernel.dtype == torch.float32
        and math.prod(inputs.shape) * kernel.shape[1] >= LARGE
        # What looks at operations, as torch's counter of FLOPs does, knows torch's own.
        and not is_in_torch_dispatch_mode()
        and not torch._C._are_functorch_transforms_active()  # as `torch.func.vmap`
        and _has_onednn()
    )


@functools.cache
def _has_onednn():
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        # No public function multiplies plain tensors with it.
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class _Product(torch.autograd.Function):
    """`inputs · kernel + bias` by oneDNN, whose operation has no gradient."""

    @staticmethod
    def forward(context, inputs, kernel, bias):
        context.save_for_backward(inputs, kernel)
        return _multiply_by_onednn(inputs, kernel, bias)

    @staticmethod
    def backward(context, gradient):
        inputs, kernel = context.saved_tensors
        wants_inputs, wants_kernel, wants_bias = context.needs_input_grad
        # Gradients of gradients: oneDNN's operation has none.
        multiply = torch.mm if torch.is_grad_enabled() else _multiply_by_onednn
        return (
            multiply(gradient, kernel.t()) if wants_inputs else None,
            _kernel_gradient(multiply, inputs, gradient) if wants_kernel else None,
            gradient.sum(0) if wants_bias else None,
        )


def _kernel_gradient(multiply, inputs, gradient):
    # Quicker with more columns than rows.
    if gradient.shape[1] >= inputs.shape[1]:
        return multiply(inputs.t(), gradient)
    return multiply(gradient.t(), inputs).t()


def _multiply_by_onednn(a, b, bias=None, activation="none", form=""):
    a, b = _copied_if_cut(a), _copied_if_cut(b)
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, activation, [], form)


def _copied_if_cut(matrix):
    """A matrix that is no part of a larger one.

    oneDNN takes a thousand times as long with such a part: 26 s for the keys and values of
    B/16's last block.
    """
    is_whole = matrix.is_contiguous() or matrix.t().is_contiguous()
    return matrix if is_whole else matrix.contiguous()


def add_product(total: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """`common.add_product` as one operation.

    With it the queries and keys of B/16 turn in 0.44 of the time (batch 8, one core).
    """
    return torch.addcmul(total, first, ops.convert_to_tensor(second))


def group_norm(
    images: Tensor, gamma: Tensor, beta: Tensor, groups: int, epsilon: float
) -> Tensor:
    """`common.group_norm` by torch's kernel, which is 1.5 to 23 times as fast as Keras'.

    On a CPU the kernel sums squares and loses digits of what is not centred: errors of 1e-4
    where the mean is three times the deviation, 7e-6 and less with the images centred
    first, which takes 0.7 to 8 ms a layer.
    """
    if not _has_group_norm_gradients(images, gamma, beta):
        return common.group_norm(images, gamma, beta, groups, epsilon)
    if images.device.type == "cpu":
        with torch.no_grad():  # the outputs do not depend on a shift
            shift = common.group_means(images, groups)
        images = images - shift
    # As a view: the kernel knows channels that lie side by side.
    channels_first = images.permute(0, 3, 1, 2)  # (batch, channels, height, width)
    outputs = functional.group_norm(channels_first, groups, gamma, beta, epsilon)
    return outputs.permute(0, 2, 3, 1)


def _has_group_norm_gradients(images, *weights):
    """True if torch's kernel has the gradients that are wanted.

    With gradients of the weights and none of the images, as after frozen layers, it writes
    to memory that is not there and ends the process (torch 2.13, CPU, channels last).
    """
    if torch._C._are_functorch_transforms_active():  # as `torch.func.jvp`
        return False
    return images.requires_grad or not _want_gradients(*weights)


def convolve(
    images: Tensor, kernel: Tensor, *, strides: tuple[int, int], padding: str | int
) -> Tensor:
    """`common.convolve` of a view with the channels first.

    Keras copies the images twice before each convolution, into that order and back. Without
    the copies, and with torch's group norm, R50+B/16 went from 0.91 times as fast as timm
    to 1.10.
    """
    images, kernel = images.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
    if padding == "same":
        images, padding = _padded(images, kernel.shape[2:], strides, 0.0)
    outputs = functional.conv2d(images, kernel, None, strides, padding)
    return outputs.permute(0, 2, 3, 1)  # (batch, new height, new width, filters)


def max_pool(
    images: Tensor, size: tuple[int, int], *, strides: tuple[int, int], padding: str
) -> Tensor:
    """`common.max_pool` of a view with the channels first, see `convolve`."""
    images, zeros = images.permute(0, 3, 1, 2), 0
    if padding == "same":
        images, zeros = _padded(images, size, strides, float("-inf"))
    return functional.max_pool2d(images, size, strides, zeros).permute(0, 2, 3, 1)


def _padded(images, size, strides, value):
    """Images as TensorFlow pads them, and the padding that torch can do: equal sides."""
    sides = [
        max((-(-pixels // stride) - 1) * stride + window - pixels, 0)
        for pixels, window, stride in zip(images.shape[2:], size, strides, strict=True)
    ]
    if all(side % 2 == 0 for side in sides):
        return images, [side // 2 for side in sides]
    (top, left), (bottom, right) = zip(
        *((side // 2, side - side // 2) for side in sides), strict=True
    )
    return functional.pad(images, (left, right, top, bottom), value=value), 0


def take_tokens(x: Tensor, places: Tensor) -> Tensor:
    """`common.take_tokens` by `gather`.

    `torch.export` takes the batch size for a constant where Keras takes along an axis.
    """
    places = places[..., None] if x.ndim == 3 else places
    places = places.long()
    return x.gather(1, places.expand(-1, -1, x.shape[-1]) if x.ndim == 3 else places)


def has_numpy_weights(is_random: bool) -> bool:
    """True for random weights.

    Keras draws in three arrays on torch, and the C library keeps those that it frees:
    building ViT-H takes 1.40 times the memory of its weights, with NumPy 1.05 times. A
    constant is one array with Keras, too.
    """
    return is_random


def weight_from_numpy(
    values: Callable,
    usual: Callable,
    shape: tuple[int, ...],
    dtype: str | None,
    layout: Any | None = None,
) -> Tensor:
    """`common.weight_from_numpy`: large weights from NumPy, the others from Keras."""
    if math.prod(shape) < LARGE_WEIGHT:
        return usual(shape, dtype=dtype)
    # As a tensor, which stays where it is on a CPU: Keras copies NumPy's arrays.
    tensor = torch.from_numpy(values(shape, "float32"))
    return keras.ops.convert_to_tensor(tensor, dtype)


def array_for_weights(shape: tuple[int, ...]) -> np.ndarray:
    """`common.array_for_weights` that starts where a cache line does.

    torch takes the array as it is, and NumPy's own start at any 16 bytes. B/16 is 1.07
    times as fast with it (0.99 to 1.16, five pairs of processes).
    """
    size = 4 * math.prod(shape)  # bytes
    room = np.empty(size + CACHE_LINE, "uint8")
    start = -room.ctypes.data % CACHE_LINE
    return room[start : start + size].view("float32")


def without_gradients() -> contextlib.AbstractContextManager:
    """As `common.without_gradients`; no activation is kept for a backward pass."""
    return torch.no_grad()
