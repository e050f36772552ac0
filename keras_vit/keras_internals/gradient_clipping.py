"""Assumption: every optimizer clips its gradients in `Optimizer._clip_gradients`.

Keras has no public hook between the gradients and their clipping. Norms overflow in
float16, where on TensorFlow Keras fails; and under a `tf.distribute` strategy Keras clips
the gradients of each replica, and then adds them up.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from collections.abc import Callable

import keras

from keras_vit.keras_internals.replaced_methods import replace_methods

_NAME = "_clip_gradients"


class ClippedInFloat32:
    """A base, before an optimizer of Keras, that clips in float32."""

    def _clip_gradients(self, grads):
        dtypes = [keras.backend.standardize_dtype(grad.dtype) for grad in grads]
        clipped = super()._clip_gradients(
            _cast_half(grads, dtypes, ["float32"] * len(grads))
        )
        return _cast_half(clipped, dtypes, dtypes)


def replace_clipping(function: Callable) -> None:
    """Has each optimizer clip by `function(clip, optimizer, gradients)`.

    Raises:
        AssumptionError: if Keras clips elsewhere.
    """
    feature = "Clipping over replicas"
    replace_methods({keras.optimizers.Optimizer: {_NAME: function}}, feature)


def _cast_half(gradients, dtypes, targets):
    """Casts the gradients that came in half precision, and leaves others as they are."""
    return [
        keras.ops.cast(gradient, target) if dtype in ("float16", "bfloat16") else gradient
        for gradient, dtype, target in zip(gradients, dtypes, targets, strict=True)
    ]
