"""On torch: the product of two matrices plus a bias, by the quicker of its libraries."""

import functools
import math

# Multiplications from which on it pays (benchmarks/RESULTS.md).
LARGE = 2**24


def product(inputs, kernel, bias, gelu_approximate=None):
    """`inputs @ kernel + bias` of tensors.

    torch multiplies in float32 by MKL, which does not always use AVX-512 on processors of
    other makers than its own. There oneDNN, which torch has besides, takes 0.8 of the
    time; and GELU, where no gradient needs what it reads, next to none.

    Args:
        inputs: tensor (rows, width).
        kernel: tensor (width, units).
        bias: tensor (units,).
        gelu_approximate: bool, GELU of that, exact or by the tanh approximation;
            `None`: the sum itself.
    """
    import torch

    if not _is_for_onednn(inputs, kernel):
        outputs = torch.addmm(bias, inputs, kernel)
    elif gelu_approximate is None or _want_gradients(inputs, kernel, bias):
        outputs = _function().apply(inputs, kernel, bias)
    else:
        return _by_onednn(inputs, kernel, bias, "gelu", _form(gelu_approximate))
    if gelu_approximate is None:
        return outputs
    return torch.nn.functional.gelu(outputs, approximate=_form(gelu_approximate))


def _form(gelu_approximate):
    return "tanh" if gelu_approximate else "none"


def _want_gradients(*tensors):
    import torch

    return torch.is_grad_enabled() and any(each.requires_grad for each in tensors)


def _is_for_onednn(inputs, kernel):
    import torch
    from torch.utils._python_dispatch import is_in_torch_dispatch_mode

    return (
        # Which exports, or chooses by itself; first, as a look at the size would tie an
        # exported program to batches that are as large.
        not torch.compiler.is_compiling()
        and inputs.device.type == "cpu"
        and inputs.dtype == kernel.dtype == torch.float32
        and math.prod(inputs.shape) * kernel.shape[1] >= LARGE
        # Who looks at operations, as torch's counter of FLOPs does, knows torch's own.
        and not is_in_torch_dispatch_mode()
        and not torch._C._are_functorch_transforms_active()  # as `torch.func.vmap`
        and _has_onednn()
    )


@functools.cache
def _has_onednn():
    import torch

    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        # No public function multiplies plain tensors with it.
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@functools.cache
def _function():
    """The `torch.autograd.Function`, for which torch must be there."""
    import torch

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(context, inputs, kernel, bias):
            context.save_for_backward(inputs, kernel)
            return _by_onednn(inputs, kernel, bias)

        @staticmethod
        def backward(context, gradient):
            inputs, kernel = context.saved_tensors
            of_inputs, of_kernel, of_bias = context.needs_input_grad
            # Gradients of gradients: oneDNN's operation has none.
            multiply = torch.mm if torch.is_grad_enabled() else _by_onednn
            return (
                multiply(gradient, kernel.t()) if of_inputs else None,
                _gradient_of_kernel(multiply, inputs, gradient) if of_kernel else None,
                gradient.sum(0) if of_bias else None,
            )

    return Product


def _gradient_of_kernel(multiply, inputs, gradient):
    # Quicker with more columns than rows.
    if gradient.shape[1] >= inputs.shape[1]:
        return multiply(inputs.t(), gradient)
    return multiply(gradient.t(), inputs).t()


def _by_onednn(a, b, bias=None, activation="none", form=""):
    import torch

    a, b = _whole(a), _whole(b)
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, activation, [], form)


def _whole(matrix):
    """Not a part of a larger one, which oneDNN multiplies a thousand times more slowly."""
    is_whole = matrix.is_contiguous() or matrix.t().is_contiguous()
    return matrix if is_whole else matrix.contiguous()
