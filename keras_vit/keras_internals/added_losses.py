"""Assumption: `Layer.losses` is `_losses_override`, where that list is not empty.

Keras' trainer on JAX gives a model the losses of a call in this way. There is no public
way to keep the losses that layers have added from those of the next call.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_vit.keras_internals.assumption import private


@contextlib.contextmanager
def losses_of_call(model: keras.Model, losses: list[Any]) -> Iterator[None]:
    """Context in which `model.losses` are those of an earlier call."""
    before = private(model, "_losses_override", "Training on several devices")
    model._losses_override = losses
    try:
        yield
    finally:
        model._losses_override = before
