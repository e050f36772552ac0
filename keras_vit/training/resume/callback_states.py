"""State of the other callbacks of `fit`: saved, restored, and told of earlier epochs."""

import keras

from keras_vit.keras_internals.callback_attributes import STATES
from keras_vit.keras_internals.fit_loop import Position
from keras_vit.training.resume import event_files
from keras_vit.training.resume.settings import jsonable


class EpochRecorder(keras.callbacks.Callback):
    """Records the logs of each epoch, after all other callbacks have changed them.

    Attributes:
        epochs: list of (epoch, logs).
    """

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.epochs.append((epoch, dict(logs or {})))


def join(callbacks: list, resume: keras.callbacks.Callback) -> EpochRecorder:
    """Moves `resume` to the front, before averages are swapped in; appends a recorder."""
    recorder = EpochRecorder()
    others = [
        callback
        for callback in callbacks
        if callback is not resume and not isinstance(callback, EpochRecorder)
    ]
    callbacks[:] = [resume, *others, recorder]
    return recorder


def check(callbacks: list) -> None:
    """Checks that the state of each callback can be restored.

    Raises:
        ValueError: if that of one cannot.
    """
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger) and callback.append:
            raise ValueError(
                "`CSVLogger` must not append. Received: append=True, which would write "
                "epochs twice. Leave it out: `ExactResume` rewrites the file."
            )
        if isinstance(callback, keras.callbacks.EarlyStopping) and (
            callback.restore_best_weights
        ):
            raise ValueError(
                "`ExactResume` does not save the best weights of `EarlyStopping`. "
                "Received: restore_best_weights=True. Use ModelCheckpoint(path, "
                "save_best_only=True) instead."
            )


def collect(callbacks: list) -> list[tuple[str, dict]]:
    """(class name, state) of each callback that has a state."""
    states = []
    for callback in callbacks:
        if hasattr(callback, "resume_state"):
            state = callback.resume_state()
        else:
            state = {name: getattr(callback, name) for name in _names(callback)}
        if state:
            states.append((type(callback).__name__, jsonable(state)))
    return states


def restore(callbacks: list, states: list, epochs: list, position: Position) -> None:
    """Restores the states of callbacks and tells them of earlier epochs.

    Args:
        callbacks: callbacks of `fit`.
        states: result of `collect`.
        epochs: list of (epoch, logs).
        position: position at which the training resumes.
    """
    states = list(states)
    for callback in callbacks:
        name = type(callback).__name__
        found = next((state for state in states if state[0] == name), None)
        if found:
            states.remove(found)
        _resume(callback, found[1] if found else {}, epochs)
        if isinstance(callback, keras.callbacks.TensorBoard):
            _truncate_event_files(callback, position)


def _resume(callback, state, epochs):
    if hasattr(callback, "resume"):
        callback.resume(state, epochs)
    elif isinstance(callback, keras.callbacks.History):
        callback.history, callback.epoch = {}, []
        for epoch, logs in epochs:
            keras.callbacks.History.on_epoch_end(callback, epoch, logs)
    elif isinstance(callback, keras.callbacks.CSVLogger):
        callback.on_train_begin()
        for epoch, logs in epochs:
            callback.on_epoch_end(epoch, logs)
    else:
        for name in _names(callback):
            if name in state:
                setattr(callback, name, state[name])


def _truncate_event_files(callback, position):
    """Drops points after the position; Keras counts steps in three ways, by tag."""
    iterations = int(callback.model.optimizer.iterations)

    def stays(tag, step):
        if tag.startswith("epoch_") or tag.endswith(("/histogram", "/image")):
            return step < position.epoch
        if tag.startswith("evaluation_"):
            return step < iterations
        return step <= position.total

    event_files.truncate(callback.log_dir, stays)


def _names(callback):
    """Names of the attributes that are a callback's state."""
    return next((n for kind, n in STATES.items() if isinstance(callback, kind)), ())
