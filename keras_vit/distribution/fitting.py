"""What a step of several devices asks a model, and what `fit` is given in each process."""

import inspect

import keras

from keras_vit.distribution.processes import is_first_process

_WRITERS = ("ModelCheckpoint", "CSVLogger", "TensorBoard", "RemoteMonitor")


def call_options(model: keras.Model, training: bool) -> dict[str, bool]:
    """`training`, where the call of a model takes it."""
    takes_it = "training" in inspect.signature(model.call).parameters
    return {"training": training} if takes_it else {}


def has_added_losses(model: keras.Model) -> bool:
    """True if a call has added losses to those of the regularizers."""
    regularized = [w for w in model.trainable_weights if w.regularizer is not None]
    return len(model.losses) > len(regularized)


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
