"""Gradients on each backend, under one name."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_vit.types import Tensor


def without_gradients() -> contextlib.AbstractContextManager:
    """A context in which torch keeps nothing for a backward pass; the others never do."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()


def gradients(
    function: Callable[[list[Tensor]], tuple[Tensor, Any]], inputs: Sequence[Tensor]
) -> tuple[list[Tensor], Any]:
    """Gradients of a function's first result.

    Args:
        function: takes a list of tensors; returns a scalar, and a list of tensors that
            are handed on.
        inputs: the tensors.

    Returns:
        A gradient for each input, zero where the scalar does not depend on it, and the
        function's second result.
    """
    return _OF_BACKEND[keras.backend.backend()](function, list(inputs))


def _by_tensorflow(function, inputs):
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        total, others = function(inputs)
    zero = tf.UnconnectedGradients.ZERO
    return tape.gradient(total, inputs, unconnected_gradients=zero), others


def _by_jax(function, inputs):
    import jax

    return jax.grad(function, has_aux=True)(inputs)


def _by_torch(function, inputs):
    import torch

    inputs = [each.detach().requires_grad_() for each in inputs]
    with torch.enable_grad():
        total, others = function(inputs)
    found = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    return list(found), [each.detach() for each in others]


_OF_BACKEND = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}
