"""Arguments of a model's call, and of `fit`, on several devices or processes."""

import inspect
from typing import Any

import keras

from keras_vit.distribution.processes import is_first_process

_WRITERS = ("ModelCheckpoint", "CSVLogger", "TensorBoard", "RemoteMonitor")


def call_options(model: keras.Model, training: bool) -> dict[str, bool]:
    """The argument `training` if the model's `call` takes it."""
    takes_it = "training" in inspect.signature(model.call).parameters
    return {"training": training} if takes_it else {}


def has_added_losses(model: keras.Model) -> bool:
    """True if a call has added losses besides those of regularizers."""
    regularized = [w for w in model.trainable_weights if w.regularizer is not None]
    return len(model.losses) > len(regularized)


def process_callbacks(callbacks: Any) -> Any:
    """The callbacks of `fit` for this process: only rank 0 has those that write files.

    Raises:
        ValueError: if one is a `BackupAndRestore`, which restores each process alone.
    """
    if callbacks is None or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    if any(isinstance(c, keras.callbacks.BackupAndRestore) for c in callbacks):
        raise ValueError(
            "Processes must resume together. Received: `BackupAndRestore`, which restores "
            "each alone. Use keras_vit.training.ExactResume."
        )
    return [c for c in callbacks if is_first_process() or not _writes(c)]


def _writes(callback):
    kinds = tuple(getattr(keras.callbacks, name) for name in _WRITERS)
    return isinstance(callback, kinds) or getattr(callback, "first_process_only", False)
