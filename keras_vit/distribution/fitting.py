"""Keras' `fit` in a process of several: its methods, and what it is given."""

import functools

import keras

from keras_vit.distribution.processes import is_first_process

_WRITERS = ("ModelCheckpoint", "CSVLogger", "TensorBoard", "RemoteMonitor")


def replace_method(owner: type, name: str, instead) -> None:
    """Has a class call `instead(original, self, …)` where it would call `original`."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(self, *arguments, **named):
        return instead(original, self, *arguments, **named)

    setattr(owner, name, method)


def of_this_process(callbacks):
    """Those for this process: only the first one writes files.

    Args:
        callbacks: as `fit` takes them.

    Raises:
        ValueError: if one of them would restore each process for itself.
    """
    if callbacks is None or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    if any(isinstance(c, keras.callbacks.BackupAndRestore) for c in callbacks):
        raise ValueError(
            "`BackupAndRestore` would restore each process for itself. Use "
            "keras_vit.training.ExactResume."
        )
    return [c for c in callbacks if is_first_process() or not _writes(c)]


def _writes(callback):
    kinds = tuple(getattr(keras.callbacks, name) for name in _WRITERS)
    return isinstance(callback, kinds) or getattr(callback, "first_process_only", False)
