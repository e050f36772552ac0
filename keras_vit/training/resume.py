"""A training that goes on where it was killed, as if it never had been."""

import dataclasses
import itertools
import json
import logging
import math
import os
import re
import sys
from collections.abc import Mapping

import keras

from keras_vit.data.image_data import ImageData
from keras_vit.layers import arguments
from keras_vit.training import training_state
from keras_vit.training.checkpoint_files import Checkpoint, CheckpointFolder
from keras_vit.training.signals import StopSignals

logger = logging.getLogger("keras_vit")

FORMAT = 1
ON_SAVE_ERROR = ("raise", "warn")
# What Keras' callbacks know of the epochs before, which `fit` makes anew.
_STATES = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: (
        *("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Position:
    """How far a training is.

    Args:
        epoch: int, the epoch it is in, from 0.
        step: int, batches of it that have been trained on.
        total: int, batches since the training began.
        is_epoch_done: whether the epoch has no more; its validation comes next.
    """

    epoch: int = 0
    step: int = 0
    total: int = 0
    is_epoch_done: bool = False

    def __str__(self):
        return f"step {self.total} (epoch {self.epoch + 1}, batch {self.step})"


class ExactResume(keras.callbacks.Callback):
    """Saves all that a training depends on, and goes on from it bit for bit.

    Run the same program again after it was killed, at whatever moment: `fit` goes on at
    the last checkpoint in the middle of its epoch, and ends with the weights, the
    optimizer and the history of a run that was never interrupted (on the same backend,
    versions and kind of machine). A checkpoint holds the weights, the optimizer with its
    averages of the weights and its loss scale, the states of all random number generators
    (of the model, Keras, torch, NumPy and Python), the metrics, the position in the data,
    the history, and the configuration. It is copied in the step and written beside the
    training; a save that is due before the last one is written waits for it. The copy is
    as much main memory as the model with its optimizer.

    The data must be a pure function of epoch and step. `keras_vit.data` is, and begins at
    any step without computing those before. Other data is read from its beginning (without
    `steps_per_epoch`: from the epoch's), and not trained on.

    SIGTERM, which announces that the machine is taken away, and Ctrl-C save at the end of
    the step and exit with the codes 75 ("try again", EX_TEMPFAIL) and 130; a second one
    ends at once. They are caught only where `fit` runs in the main thread.

    Callbacks of the same `fit` are told of the epochs before: `History`, and `CSVLogger`,
    which writes its file anew; `EarlyStopping`, `ReduceLROnPlateau` and `ModelCheckpoint`
    get back what they counted. One of your own can have two methods: `resume_state()`,
    which returns a dictionary for JSON, and `resume(state, epochs)`, called before the
    first epoch with that dictionary and a list of (epoch, logs). The place of this
    callback in the list does not matter.

    Args:
        directory: of the checkpoints, for one training alone; it is made.
        save_freq: `"epoch"`, or int, after how many batches the state is saved. It is also
            saved at the end of each epoch, and before the first step.
        data: `keras_vit.data.ImageData` whose `train` (or that of a copy `configured`
            made) is given to `fit`; `None` for other data.
        configuration: dictionary of what shall be the same when the training goes on, such
            as `dataclasses.asdict(recipe)`. Optimizer, loss, metrics, steps per epoch, the
            data's fingerprint and its pipeline are compared anyway.
        keep: int, how many checkpoints are kept. With two, there is one left if the newest
            is damaged.
        on_save_error: `"raise"` ends the training when a checkpoint cannot be written (a
            full disk); `"warn"` warns, trains on, and tries again when the next is due.
            Those that were there stay in either case.

    Raises:
        ValueError: in `fit`, if the checkpoint is of another training (it says what
            differs), every checkpoint is damaged, or the data has no fixed order.
        RuntimeError: in `fit`, if another process trains in the directory.
        OSError: in `fit`, if a checkpoint cannot be written.
        FloatingPointError: in `fit`, if the loss or a weight is not finite any more; it
            names the step and the last good checkpoint. Such a state is never saved.

    Example:

    >>> model.fit(
    ...     data.train,
    ...     steps_per_epoch=data.steps_per_epoch,
    ...     epochs=10,
    ...     shuffle=False,
    ...     callbacks=[ExactResume("runs/flowers/resume", save_freq=100, data=data)],
    ... )
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        save_freq: str | int = "epoch",
        *,
        data: ImageData | None = None,
        configuration: Mapping | None = None,
        keep: int = 2,
        on_save_error: str = "raise",
    ):
        super().__init__()
        if save_freq != "epoch":
            arguments.positive(save_freq, "save_freq")
        if data is not None and not isinstance(data, ImageData):
            raise ValueError(
                "`data` must be a `keras_vit.data.ImageData`; leave it out for data of "
                f"another kind. Received: {type(data).__name__}"
            )
        arguments.positive(keep, "keep")
        self.save_freq = save_freq
        self.data = data
        self.configuration = _jsonable(dict(configuration or {}))
        self.on_save_error = arguments.one_of(on_save_error, ON_SAVE_ERROR, "on_save_error")
        self.folder = CheckpointFolder(directory, keep)
        self._error = None  # what went wrong in the thread that writes
        self._copy = training_state.HostCopy()
        self._signals = StopSignals()

    # What `fit` calls, in its order.

    def on_train_begin(self, logs=None):
        epoch_iterator, callbacks = _of_fit(self.model)
        self._callbacks = callbacks
        self._check_order_of_data(epoch_iterator)
        self._check_callbacks()
        self._join_callbacks()
        self._position = Position()
        self._saved = None  # the position that was saved last
        self._last_logs = {}
        self._random = None  # states that wait for the first step
        self._restored = None
        self._is_training = False
        self._epochs = []
        self._open_folder()
        self._settings = self._describe(epoch_iterator)
        checkpoint = self.folder.newest()
        if checkpoint is not None:
            self._check(checkpoint)
            self._restore(checkpoint, epoch_iterator)
        self._epoch_start = self._position.total - self._position.step
        if self.data is not None:
            self.data.start.step = self._position.total
            self._reads = self.data.start.reads
        self._signals.install(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        if self._restored is not None:
            self._continue_epoch()
        else:
            self._epoch_start = self._position.total
            self._position = Position(epoch, 0, self._epoch_start)
            if self._saved is None and not self._epoch_start:
                self._save()
        self._is_training = True

    def on_train_batch_begin(self, batch, logs=None):
        self._set_random_states()

    def on_train_batch_end(self, batch, logs=None):
        before = self._position
        step = batch + 1
        self._position = Position(before.epoch, step, self._epoch_start + step)
        self._last_logs = dict(logs or {})
        self._check_stream()
        self._check_loss()
        self._look_after_writer()
        if self._signals.received:
            self._save()
            self._exit()
        if self._is_due(before.total):
            self._save()

    def on_test_begin(self, logs=None):
        if self._is_training:
            self._end_epoch()

    def on_test_batch_end(self, batch, logs=None):
        self._exit_between_epochs()

    def on_epoch_end(self, epoch, logs=None):
        self._end_epoch()
        self._exit_between_epochs()

    def on_train_end(self, logs=None):
        try:
            self.folder.wait()
            self._look_after_writer()
        finally:
            self._signals.restore()
            self.folder.close()

    # The way back.

    def _restore(self, checkpoint: Checkpoint, epoch_iterator):
        record, tensors = checkpoint.record, checkpoint.tensors
        self._position = self._saved = Position(**record["position"])
        self._last_logs = record["logs"]
        self._epochs = [(epoch, logs) for epoch, logs in record["epochs"]]
        self._restored = checkpoint
        self._random = {n: t for n, t in tensors.items() if n.startswith("random/")}
        for group in ("model", "optimizer"):
            training_state.assign(self.model, group, tensors)
        # Keras' way for `BackupAndRestore`; 0 is for "as `fit` was told".
        self.model._initial_epoch = self._position.epoch
        if self._position.step:
            self._shorten_epoch(epoch_iterator)
        logger.info("Training goes on at %s: %s", self._position, checkpoint.path)

    def _continue_epoch(self):
        """In `on_epoch_begin`, where `fit` has just reset the metrics."""
        checkpoint, self._restored = self._restored, None
        self.model._initial_epoch = 0
        if self._position.step:
            training_state.assign(self.model, "metrics", checkpoint.tensors)
        else:
            self._set_random_states()  # they were taken here, too
        self._tell_callbacks(checkpoint.record["callbacks"])

    def _shorten_epoch(self, epoch_iterator):
        """Has the epoch that `fit` begins with be what is left of it."""

        def rest():
            del epoch_iterator._enumerate_iterator  # for this once
            if self.data is None:
                _skip_epochs(epoch_iterator, self._restored_epochs())
            is_left = False
            position = self._position
            for begin, end, iterator in epoch_iterator._enumerate_iterator():
                if begin >= position.step:
                    is_left = True
                    yield begin, end, iterator
                    continue
                if self.data is None:
                    _skip(iterator, epoch_iterator.steps_per_execution, position)
                is_last = position.is_epoch_done and end + 1 >= position.step
                if is_last and epoch_iterator.num_batches is None:
                    break  # where `fit` knows the end only when it comes
            if not is_left:
                yield from self._step_of_before()

        epoch_iterator._enumerate_iterator = rest

    def _restored_epochs(self):
        return range(self._position.epoch - self._settings["first_epoch"])

    def _step_of_before(self):
        """A step that does nothing: `fit` needs one to come to the end of an epoch."""
        model, callbacks, logs = self.model, self._callbacks, dict(self._last_logs)
        train_function = model.train_function

        def nothing(*state_and_data):
            return (logs, state_and_data[0]) if len(state_and_data) == 2 else logs

        hooks = ("on_train_batch_begin", "on_train_batch_end")
        model.train_function = nothing
        for hook in hooks:
            setattr(callbacks, hook, lambda *arguments: None)
        try:
            step = self._position.step - 1
            yield step, step, itertools.repeat(None)
        finally:
            model.train_function = train_function
            for hook in hooks:
                delattr(callbacks, hook)

    def _set_random_states(self):
        """Where they were taken: before it `fit` makes iterators, which use some."""
        if self._random is not None:
            training_state.set_random_states(self._random)
            self._random = None

    # The way out.

    def _is_due(self, total_before):
        if self.save_freq == "epoch" or self._position.step == self.params.get("steps"):
            return False  # the end of the epoch follows
        return total_before // self.save_freq < self._position.total // self.save_freq

    def _end_epoch(self):
        """Before validation, when the weights are still those that are trained."""
        self._is_training = False
        self._set_random_states()
        if not self._position.is_epoch_done and self._position.step:
            self._position = dataclasses.replace(self._position, is_epoch_done=True)
            self._save()

    def _save(self):
        if self._saved == self._position:
            return
        self.folder.wait()
        self._look_after_writer()
        groups = training_state.GROUPS
        if not self._position.step:
            groups = ("model", "optimizer")  # Keras has perhaps not built the metrics
        tensors = self._copy.take(self.model, groups)
        record = {
            "format": FORMAT,
            **self._settings,
            "position": dataclasses.asdict(self._position),
            "logs": _jsonable(self._last_logs),
            "epochs": _jsonable(self._epochs),
            "callbacks": self._states_of_callbacks(),
        }
        position = self._position
        self.folder.write_beside(lambda: self._write(position, tensors, record))
        self._saved = position

    def _write(self, position, tensors, record):
        try:
            self._check_finite(tensors, position)
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self.folder.write(position.total, tensors, record)
        except Exception as error:  # raised again in the main thread
            self._error = error

    def _check_finite(self, tensors, position):
        for name, array in tensors.items():
            if name.startswith(("model/", "optimizer/")) and not _is_finite(array):
                raise FloatingPointError(
                    f"{name.split('/', 2)[2]!r} is not finite any more at {position}. "
                    f"{self._last_good()}"
                )

    def _last_good(self):
        path = self.folder.newest_path()
        if path is None:
            return "There is no checkpoint."
        return (
            f"The last good checkpoint is {str(path)!r}; to go on from it, change what "
            "made it diverge (the learning rate, gradient clipping) and choose another "
            "`directory`."
        )

    def _look_after_writer(self):
        """Raises, or warns of, what went wrong while a checkpoint was written."""
        error, self._error = self._error, None
        if error is None:
            return
        self._saved = None
        if not isinstance(error, OSError):
            raise error
        newest = self.folder.newest_path()
        message = (
            f"The checkpoint in {str(self.folder.path)!r} could not be written: {error}. "
            f"The last one stays valid: {newest and str(newest)!r}."
        )
        if self.on_save_error == "raise":
            raise OSError(error.errno, message) from error
        logger.warning("%s Training goes on without.", message)

    def _exit(self):
        self.folder.wait()
        self._look_after_writer()
        self._signals.restore()
        self.folder.close()
        logger.warning(
            "%s: stopped at %s. Run the same again to go on.",
            *(self._signals.name, self._position),
        )
        raise SystemExit(self._signals.exit_code)

    def _exit_between_epochs(self):
        if self._signals.received and self._position.is_epoch_done:
            self._exit()

    # Checks.

    def _open_folder(self):
        try:
            self.folder.open()
        except OSError as error:
            if self.on_save_error == "raise":
                raise
            logger.warning(
                "There can be no checkpoints in %s: %s. Training goes on without.",
                *(self.folder.path, error),
            )

    def _describe(self, epoch_iterator):
        """What makes this training another than another one."""
        model = self.model
        _build(model, epoch_iterator)
        compiled = _without_numbers(_jsonable(model.get_compile_config() or {}))
        jit_compile = compiled.pop("jit_compile", None)
        training = {
            "steps_per_epoch": self.params.get("steps"),
            "steps_per_execution": model.steps_per_execution,
            "dtype_policy": model.dtype_policy.name,
            **compiled,
        }
        data = None
        if self.data is not None:
            pipeline = dataclasses.asdict(self.data.pipeline)
            pipeline.pop("num_parallel_calls")  # without influence on the batches
            data = {
                "fingerprint": self.data.fingerprint,
                "seed": self.data.seed,
                "pipeline": _jsonable(pipeline),
            }
        return {
            "configuration": self.configuration,
            "training": training,
            "data": data,
            "epochs_asked": self.params.get("epochs"),
            "first_epoch": self._first_epoch(),
            "backend": keras.backend.backend(),
            "devices": training_state.devices(model),
            "jit_compile": jit_compile,
            "versions": training_state.versions(),
        }

    def _first_epoch(self):
        return _fit_frame(self.model).f_locals["initial_epoch"]

    def _check(self, checkpoint: Checkpoint):
        theirs, ours = checkpoint.record, self._settings
        if theirs["format"] != FORMAT:
            raise ValueError(
                f"{str(checkpoint.path)!r} is in format {theirs['format']}, this version "
                f"of keras_vit writes {FORMAT}. Go on with keras_vit "
                f"{theirs['versions']['keras_vit']}, or choose another `directory`."
            )
        same_backend = theirs["backend"] == ours["backend"]
        different = [
            line
            for part in ("configuration", "data", "training", "first_epoch")
            for line in _compare(theirs[part], ours[part], part)
            # Keras' optimizers are other classes of the same name on each backend.
            if same_backend or not _IMPLEMENTATION.match(line)
        ]
        for group in ("model", "optimizer"):
            different += training_state.differences(
                self.model, group, checkpoint.tensors, exact=same_backend
            )
        position = Position(**theirs["position"])
        epochs = self.params.get("epochs")
        if epochs is not None and position.epoch >= epochs:
            different.append(f"it is in epoch {position.epoch + 1}, `epochs` is {epochs}")
        if not different and position.step:
            different += training_state.differences(
                self.model, "metrics", checkpoint.tensors, exact=same_backend
            )
        if different:
            lines = "\n  ".join(different[:20])
            raise ValueError(
                "A training can go on only as what it was. The checkpoint "
                f"{str(checkpoint.path)!r} is of another one:\n  {lines}\nSet them back to "
                "go on with it; to train anew, choose another `directory` or delete this "
                "one."
            )
        self._announce(theirs, ours)

    def _announce(self, theirs, ours):
        """Warns of what is not the same, but can be gone on with."""
        said = [
            line
            for part in ("backend", "devices", "jit_compile", "versions")
            for line in _compare(theirs[part], ours[part], part)
            if part != "versions" or "None" not in line  # of the other backend
        ]
        if said:
            logger.warning(
                "Training goes on, but not bit for bit: weights and optimizer are those of "
                "the checkpoint, while rounding (and on another backend or number of "
                "devices what is random) will differ. %s",
                "; ".join(said),
            )
        if theirs["epochs_asked"] != ours["epochs_asked"]:
            logger.warning(
                "Training was asked for %s epochs, and goes on for %s.",
                *(theirs["epochs_asked"], ours["epochs_asked"]),
            )

    def _check_order_of_data(self, epoch_iterator):
        adapter = epoch_iterator.data_adapter
        # Of arrays, of a `PyDataset`; others Keras does not shuffle.
        shuffles = getattr(adapter, "_shuffle", False) or getattr(adapter, "shuffle", False)
        if shuffles and adapter.num_batches is not None:
            raise ValueError(
                "`ExactResume` needs data whose order it can repeat. Received: data that "
                "`fit` shuffles as it goes. Give it shuffle=False, and shuffle by a seed "
                "of your own: keras_vit.data.load((images, labels)), or a "
                "`keras.utils.PyDataset`."
            )

    def _check_callbacks(self):
        for callback in self._callbacks.callbacks:
            if isinstance(callback, keras.callbacks.CSVLogger) and callback.append:
                raise ValueError(
                    "`CSVLogger` with append=True would have epochs twice. Leave it out: "
                    "`ExactResume` writes the file anew with the epochs before."
                )
            if isinstance(callback, keras.callbacks.EarlyStopping) and (
                callback.restore_best_weights
            ):
                raise ValueError(
                    "`ExactResume` does not keep the weights that `EarlyStopping` holds "
                    "for restore_best_weights=True. Use ModelCheckpoint(path, "
                    "save_best_only=True) instead."
                )

    def _check_stream(self):
        if self.data is None or self._reads is None:
            return
        if self.data.start.reads == self._reads:
            raise ValueError(
                "`fit` must be given `train` of the `data` that `ExactResume` was given, "
                "or of a copy `data.configured(…)`; nothing was read from it. For another "
                "stream leave `data` out."
            )
        # The stream has begun; whoever asks for another one gets it from its start.
        self._reads, self.data.start.step = None, 0

    def _check_loss(self):
        loss = self._last_logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            self.folder.wait()
            raise FloatingPointError(
                f"The loss is {loss} at {self._position}. {self._last_good()}"
            )

    # Other callbacks of the same `fit`.

    def _join_callbacks(self):
        """First in the list, before averages are swapped in; and last, for the logs."""
        callbacks = self._callbacks.callbacks
        callbacks.remove(self)
        callbacks.insert(0, self)
        callbacks[:] = [c for c in callbacks if not isinstance(c, _EpochRecorder)]
        callbacks.append(_EpochRecorder(self))

    def _tell_callbacks(self, states):
        """Gives the callbacks back what they knew."""
        states = list(states)
        for callback in self._callbacks.callbacks:
            name = type(callback).__name__
            found = [state for state in states if state[0] == name]
            if found:
                states.remove(found[0])
            _resume(callback, found[0][1] if found else {}, self._epochs)

    def _states_of_callbacks(self):
        states = []
        for callback in self._callbacks.callbacks:
            if hasattr(callback, "resume_state"):
                state = callback.resume_state()
            else:
                state = {name: getattr(callback, name) for name in _names(callback)}
            if state:
                states.append((type(callback).__name__, _jsonable(state)))
        return states


class _EpochRecorder(keras.callbacks.Callback):
    """Notes the logs of each epoch as they are after every other callback."""

    def __init__(self, resume):
        super().__init__()
        self._resume = resume

    def on_epoch_end(self, epoch, logs=None):
        self._resume._epochs.append((epoch, dict(logs or {})))


def _fit_frame(model):
    """The frame of the `fit` that calls; Keras tells callbacks neither its iterator nor
    the other callbacks.
    """
    frame = sys._getframe()
    while frame is not None:
        found = frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model
        if found and "epoch_iterator" in frame.f_locals:
            return frame
        frame = frame.f_back
    raise RuntimeError(
        "`ExactResume` works in `keras.Model.fit`. Received: a model whose training loop "
        "is another one."
    )


def _of_fit(model):
    variables = _fit_frame(model).f_locals
    return variables["epoch_iterator"], variables["callbacks"]


def _build(model, epoch_iterator):
    """Metrics and optimizer, which Keras on TensorFlow builds in the first step."""
    if keras.backend.backend() == "tensorflow":
        specs = epoch_iterator._distributed_dataset.element_spec
        batch = keras.tree.map_structure(_symbolic, specs)
        if all(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(batch)):
            model._symbolic_build(data_batch=batch)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _symbolic(spec):
    if not hasattr(spec, "shape"):
        return spec
    return keras.KerasTensor(tuple(spec.shape), spec.dtype.name)


_END = object()


def _skip(iterator, number, position):
    for i in range(number):
        if next(iterator, _END) is _END:
            if i:
                return  # of several steps at a time the last of an epoch have fewer
            raise ValueError(
                f"The data ended before {position}, where the checkpoint is. It must be "
                "the same in each run."
            )


def _skip_epochs(epoch_iterator, epochs):
    """Reads what earlier epochs have read, where the data goes on from one to the next."""
    for _ in epochs:
        if epoch_iterator.steps_per_epoch is None:
            epoch_iterator.data_adapter.on_epoch_begin()
            epoch_iterator.data_adapter.on_epoch_end()
            continue
        for _, _, iterator in epoch_iterator._enumerate_iterator():
            _skip(iterator, epoch_iterator.steps_per_execution, "the epoch")


def _names(callback):
    """Of the attributes that are a callback's state."""
    return next((n for kind, n in _STATES.items() if isinstance(callback, kind)), ())


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


def _compare(theirs, ours, name):
    """A line for each field that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [*theirs, *(key for key in ours if key not in theirs)]
        pairs = [(f"{name}.{key}", theirs.get(key), ours.get(key)) for key in keys]
        return [line for n, their, our in pairs for line in _compare(their, our, n)]
    if theirs == ours:
        return []
    return [f"{name}: {_short(theirs)} in the checkpoint, {_short(ours)} now"]


def _short(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _without_numbers(config):
    """Keras numbers what has no name in a process: `"adam_1"`."""
    if isinstance(config, list):
        return [_without_numbers(item) for item in config]
    if not isinstance(config, dict):
        return config
    return {
        key: re.sub(r"_\d+$", "", value)
        if key == "name" and isinstance(value, str)
        else _without_numbers(value)
        for key, value in config.items()
    }


_IMPLEMENTATION = re.compile(r"training\.[\w.]*\.(module|registered_name): ")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def _jsonable(content):
    """As JSON gives it back."""

    def other(value):
        if hasattr(value, "tolist"):
            return value.tolist()
        if isinstance(value, Mapping):
            return dict(value)
        return _ADDRESS.sub("", repr(value))

    return json.loads(json.dumps(content, default=other))


def _is_finite(array):
    if array.dtype.kind not in "fV":  # ml_dtypes are of kind V
        return True
    from keras_vit.weights.tensor_file import is_finite

    return is_finite(array)
