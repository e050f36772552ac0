"""Assumption: `fit` keeps its callbacks and its data in variables of the names in `_NAMES`.

Keras tells callbacks neither the iterator over the data nor the other callbacks nor the
first epoch. All are local variables of `fit`, found in its frame. An iterator that
callbacks reach, and whose position Keras saves, was proposed and not merged:
https://github.com/keras-team/keras/pull/22490.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import sys
from typing import Any

import keras

from keras_vit.keras_internals.assumption import AssumptionError

_NAMES = ("callbacks", "initial_epoch", "epoch_iterator")


def variables_of_fit(model: keras.Model) -> dict[str, Any]:
    """The local variables of the `fit` that trains a model, and calls this function.

    Raises:
        RuntimeError: if the model is trained by another loop than `keras.Model.fit`.
        AssumptionError: if `fit` has not the variables of `_NAMES`.
    """
    frame, is_of_keras = sys._getframe(), False
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            if all(name in frame.f_locals for name in _NAMES):
                return frame.f_locals
            module = frame.f_globals.get("__name__", "")
            is_of_keras = is_of_keras or module.startswith("keras.src.")
        frame = frame.f_back
    if is_of_keras:
        names = ", ".join(f"`{name}`" for name in _NAMES)
        raise AssumptionError("ExactResume", f"`fit` has the local variables {names}")
    raise RuntimeError(
        "`ExactResume` works in `keras.Model.fit`. Received: a model whose training loop "
        "is another one."
    )
