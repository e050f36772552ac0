"""`ExactResume`: a training that goes on where it was killed, as if it never had been."""

import dataclasses
import math
import os
from collections.abc import Mapping

import keras

from keras_vit import arguments
from keras_vit.data.image_data import ImageData
from keras_vit.distribution import check_processes, is_first_process, processes
from keras_vit.log import log
from keras_vit.training.resume import (
    callback_states,
    settings,
    split_checkpoints,
    training_state,
)
from keras_vit.training.resume.checkpoint_files import Checkpoint, CheckpointFolder, read
from keras_vit.training.resume.fit_loop import FitLoop, Position
from keras_vit.training.resume.signals import StopSignals
from keras_vit.weights.files.tensor_file import is_finite

ON_SAVE_ERROR = ("raise", "warn")


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
    as much main memory as the model with its optimizer. Where weights are split over
    processes of JAX, each writes what it has to a folder that all must see, with Orbax;
    it opens again on any number of devices and processes of JAX.

    The data must be a pure function of epoch and step. `keras_vit.data` is, and begins at
    any step without computing those before. Other data is read from its beginning (without
    `steps_per_epoch`: from the epoch's), and not trained on.

    SIGTERM, which announces that the machine is taken away, and Ctrl-C save at the end of
    the step and exit with the codes 75 ("try again", EX_TEMPFAIL) and 130; a second one
    ends at once. They are caught only where `fit` runs in the main thread.

    Else the first of several processes saves for all, and gives each what it read. A
    signal to one of them stops all at the end of the same step.

    Callbacks of the same `fit` are told of the epochs before: `History`, and `CSVLogger`,
    which writes its file anew; `TensorBoard`, whose files are cut to the position;
    `EarlyStopping`, `ReduceLROnPlateau` and `ModelCheckpoint`, which get back what they
    counted. One of your own can have two methods: `resume_state()`,
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
            differs), every checkpoint is damaged, another process trains in the
            directory, or the data has no fixed order.
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
        self.configuration = settings.jsonable(dict(configuration or {}))
        self.on_save_error = arguments.one_of(on_save_error, ON_SAVE_ERROR, "on_save_error")
        self.folder = CheckpointFolder(directory, keep)
        self._error = None  # what went wrong in the thread that writes
        self._copy = training_state.HostCopy()
        self._split_writer = split_checkpoints.SplitWriter()
        self._signals = StopSignals()

    # What `fit` calls, in its order.

    def on_train_begin(self, logs=None):
        self._loop = loop = FitLoop(self.model)
        check_processes(self.model)
        loop.check_order_of_data()
        callbacks = loop.callbacks.callbacks
        callback_states.check(callbacks)
        self._recorder = callback_states.join(callbacks, self)
        self._position = Position()
        self._saved = None  # the position that was saved last
        self._last_logs = {}
        self._random = None  # states that wait for the first step
        self._restored = None
        self._is_training = False
        self._open_folder()
        loop.build()
        self._is_split = split_checkpoints.is_split(self.model.variables)
        self._settings = settings.describe(loop, self.params, self.data, self.configuration)
        checkpoint = self._newest()
        if checkpoint is not None:
            settings.check(checkpoint, self._settings, self.model)
            self._restore(checkpoint)
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
        if self._is_to_stop():
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
            self._wait()
            self._look_after_writer()
        finally:
            self._signals.restore()
            self.folder.close()

    # The way back.

    def _newest(self):
        """The newest whole checkpoint, in every process."""
        paths = processes.share([*self.folder.steps().values()])
        split = [path for path in paths if path.suffix == split_checkpoints.ENDING]
        if split and keras.backend.backend() != "jax":
            raise ValueError(
                "Checkpoints of weights that are split over processes open on "
                f"KERAS_BACKEND=jax alone. Received: {str(split[-1])!r} on the backend "
                f"{keras.backend.backend()}. Go on with JAX, or choose another `directory`."
            )
        return self.folder.newest(paths, self._read)

    def _read(self, path):
        """A checkpoint; a file is read by the first process, for all."""
        is_split = path.suffix == split_checkpoints.ENDING
        checkpoint = error = None
        if is_split or is_first_process():
            try:
                if is_split:
                    checkpoint = split_checkpoints.read(path, self._shardings())
                else:
                    checkpoint = read(path)
            except ValueError as problem:
                error = str(problem)
        errors = [problem for problem in processes.everyones(error) if problem]
        if errors:
            raise ValueError(errors[0])
        if is_split:
            return checkpoint
        tensors = processes.share_arrays(checkpoint and checkpoint.tensors)
        return Checkpoint(path, processes.share(checkpoint and checkpoint.record), tensors)

    def _shardings(self):
        variables = training_state.named_variables(self.model)
        return {name: (v.shape, v.value.sharding) for name, v in variables.items()}

    def _restore(self, checkpoint: Checkpoint):
        record, tensors = checkpoint.record, checkpoint.tensors
        self._position = self._saved = Position(**record["position"])
        self._last_logs = record["logs"]
        self._recorder.epochs = [(epoch, logs) for epoch, logs in record["epochs"]]
        self._restored = checkpoint
        self._random = {n: t for n, t in tensors.items() if n.startswith("random/")}
        for group in ("model", "optimizer"):
            training_state.assign(self.model, group, tensors)
        self.model.stop_training = record["stop_training"]
        self._loop.begin_at(self._position, self.data is not None, self._last_logs)
        log.info("Training goes on at %s: %s", self._position, checkpoint.path)

    def _continue_epoch(self):
        """In `on_epoch_begin`, where `fit` has just reset the metrics."""
        checkpoint, self._restored = self._restored, None
        self._loop.has_begun()
        if self._position.step:
            training_state.assign(self.model, "metrics", checkpoint.tensors)
        else:
            self._set_random_states()  # they were taken here, too
        callback_states.give_back(
            self._loop.callbacks.callbacks,
            checkpoint.record["callbacks"],
            self._recorder.epochs,
            self._position,
        )

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
        if not (self._is_split or is_first_process()):
            self._saved = self._position
            return
        self._wait()
        self._look_after_writer()
        training_state.synchronize(self.model)
        groups = training_state.GROUPS
        if not self._position.step:
            groups = ("model", "optimizer")  # Keras has perhaps not built the metrics
        position = self._position
        record = {
            **self._settings,
            "position": dataclasses.asdict(position),
            "stop_training": self.model.stop_training,
            "logs": settings.jsonable(self._last_logs),
            "epochs": settings.jsonable(self._recorder.epochs),
            "callbacks": callback_states.taken(self._loop.callbacks.callbacks),
        }
        if self._is_split:
            self._write_split(position, groups, record)
        else:
            tensors = self._copy.take(self.model, groups)
            self.folder.write_beside(lambda: self._write(position, tensors, record))
        self._saved = position

    def _wait(self):
        """Until no checkpoint is being written."""
        self.folder.wait()
        self._split_writer.wait()
        if self._is_split and is_first_process():
            self.folder.prune()

    def _write_split(self, position, groups, record):
        """In every process, of what its devices have."""
        variables = training_state.named_variables(self.model, groups)
        arrays = {name: variable.value for name, variable in variables.items()}
        sums, not_finite = split_checkpoints.facts(arrays)
        self._raise_not_finite(not_finite, position)
        path = self.folder.step_path(position.total, split_checkpoints.ENDING)
        self._split_writer.write(path, arrays, sums, record)

    def _write(self, position, tensors, record):
        try:
            self._check_finite(tensors, position)
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self.folder.write(position.total, tensors, record)
        except Exception as error:  # raised again in the main thread
            self._error = error

    def _check_finite(self, tensors, position):
        self._raise_not_finite(
            (n for n, a in tensors.items() if not is_finite(a)), position
        )

    def _raise_not_finite(self, names, position):
        for name in names:
            if name.startswith(("model/", "optimizer/")):
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
        log.warning("%s Training goes on without.", message)

    def _is_to_stop(self):
        """Whether a signal has come, in whichever process."""
        return processes.any_process(self._signals.received is not None)

    def _exit(self):
        self._wait()
        self._look_after_writer()
        processes.barrier()
        self._signals.restore()
        self.folder.close()
        log.warning(
            "%s: stopped at %s. Run the same again to go on.",
            *(self._signals.name, self._position),
        )
        raise SystemExit(self._signals.exit_code)

    def _exit_between_epochs(self):
        if self._position.is_epoch_done and self._is_to_stop():
            self._exit()

    # Checks.

    def _open_folder(self):
        if not is_first_process():
            return
        try:
            self.folder.open()
        except OSError as error:
            if self.on_save_error == "raise":
                raise
            log.warning(
                "There can be no checkpoints in %s: %s. Training goes on without.",
                *(self.folder.path, error),
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
