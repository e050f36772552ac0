"""`ExactResume`: saves checkpoints and resumes from them, bit for bit."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.data.image_data import ImageData
from keras_vit.distribution import is_first_process, processes
from keras_vit.distribution.checks import check_processes
from keras_vit.keras_internals.fit_loop import FitLoop, Position
from keras_vit.log import log
from keras_vit.training.resume import (
    callback_states,
    settings,
    sharded_checkpoints,
    training_state,
)
from keras_vit.training.resume.checkpoint_files import Checkpoint, CheckpointFolder, read
from keras_vit.training.resume.signals import StopSignals
from keras_vit.weights.files.tensor_file import is_finite

ON_SAVE_ERROR = ("raise", "warn")


class ExactResume(keras.callbacks.Callback):
    """Saves the complete state of a training and resumes from it, bit for bit.

    Run the same program again after it was killed: `fit` resumes at the last checkpoint,
    also within an epoch, and ends with the weights, the optimizer and the history of an
    uninterrupted run (on the same backend, versions and kind of machine). A checkpoint
    holds the weights, the optimizer with its weight averages and loss scale, the states
    of all random number generators (model, Keras, torch, NumPy, Python), the metrics, the
    position in the data, the history and the configuration. The state is copied at the
    end of a step and written by a thread while training continues; the next save waits
    for it. The copy takes as much main memory as the model with its optimizer. If weights
    are sharded over processes of JAX, each process writes its shards with Orbax to a
    folder that all of them see; the checkpoint opens on any number of devices and
    processes of JAX.

    The data must be a pure function of epoch and step. `keras_vit.data` is, and starts at
    any step directly. Other data is read again from its beginning (without
    `steps_per_epoch`: from the beginning of the epoch) up to the step.

    On preemption (SIGTERM) or Ctrl-C, training saves at the end of the step and exits with
    75 (EX_TEMPFAIL) or 130. A second signal ends it at once. Signals are handled only if
    `fit` runs in the main thread. A signal to one of several processes stops all of them
    after the same step.

    With several processes, rank 0 reads and saves for all, unless weights are sharded.

    The other callbacks of `fit` resume, too: `History`; `CSVLogger`, which rewrites its
    file; `TensorBoard`, whose event files are truncated to the position; `EarlyStopping`,
    `ReduceLROnPlateau` and `ModelCheckpoint`, whose counters are restored. A callback of
    your own can have two methods: `resume_state()` returns a dictionary for JSON, and
    `resume(state, epochs)` is called before the first epoch with that dictionary and a
    list of (epoch, logs). The position of `ExactResume` in the list does not matter.

    Args:
        directory: folder for the checkpoints of this training alone. It is created.
        save_freq: `"epoch"`, or an int: saves also after every `save_freq` batches. The
            state is always saved before the first step and at the end of each epoch.
        data: `keras_vit.data.ImageData` whose `train`, or that of a copy by
            `with_pipeline`, is passed to `fit`; `None` for other data.
        configuration: dictionary of settings that must not change between runs, such as
            `dataclasses.asdict(recipe)`. Optimizer, loss, metrics, steps per epoch, the
            data's fingerprint and pipeline are always compared.
        keep: int, number of checkpoints to keep. With two, one is left if the newest is
            damaged.
        on_save_error: if a checkpoint cannot be written (as on a full disk), `"raise"`
            ends the training, and `"warn"` warns and tries again at the next save.
            Existing checkpoints stay in either case.

    Raises:
        ValueError: in `fit`, if the checkpoint is of another training (the error lists
            the differences), every checkpoint is damaged, another process trains in the
            directory, or `fit` shuffles the data.
        OSError: in `fit`, if a checkpoint cannot be written.
        FloatingPointError: in `fit`, if the loss or a weight is not finite. The error
            names the step and the last good checkpoint; such a state is never saved.

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
        directory: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        *,
        data: ImageData | None = None,
        configuration: Mapping[str, Any] | None = None,
        keep: int = 2,
        on_save_error: str = "raise",
    ) -> None:
        super().__init__()
        if save_freq != "epoch":
            arguments.positive(save_freq, "save_freq")
        if data is not None and not isinstance(data, ImageData):
            raise ValueError(
                "`data` must be a `keras_vit.data.ImageData`. Received: "
                f"{type(data).__name__}. Leave it out for other data."
            )
        arguments.positive(keep, "keep")
        self.save_freq = save_freq
        self.data = data
        self.configuration: Any = settings.jsonable(dict(configuration or {}))
        self.on_save_error: str = arguments.one_of(
            on_save_error, ON_SAVE_ERROR, "on_save_error"
        )
        self.folder: CheckpointFolder = CheckpointFolder(directory, keep)
        self._error = None  # of the writing thread
        self._copy = training_state.HostCopy()
        self._sharded_writer = sharded_checkpoints.ShardedWriter()
        self._signals = StopSignals()

    # Hooks, in the order in which `fit` calls them.

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._loop = loop = FitLoop(self.model)
        check_processes(self.model)
        loop.check_order_of_data()
        callbacks = loop.callbacks.callbacks
        callback_states.check(callbacks)
        self._recorder = callback_states.join(callbacks, self)
        self._position = Position()
        self._saved = None  # position of the last save
        self._last_logs = {}
        self._random = None  # states to restore before the first step
        self._restored = None
        self._is_training = False
        self._open_folder()
        loop.build()
        self._is_sharded = sharded_checkpoints.is_sharded(self.model.variables)
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

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._restored is not None:
            self._continue_epoch()
        else:
            self._epoch_start = self._position.total
            self._position = Position(epoch, 0, self._epoch_start)
            if self._saved is None and not self._epoch_start:
                self._save()
        self._is_training = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._set_random_states()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        before = self._position
        step = batch + 1
        self._position = Position(before.epoch, step, self._epoch_start + step)
        self._last_logs = dict(logs or {})
        self._check_stream()
        self._check_loss()
        self._check_writer()
        if self._must_stop():
            self._save()
            self._exit()
        if self._is_due(before.total):
            self._save()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._is_training:
            self._end_epoch()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._exit_between_epochs()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._end_epoch()
        self._exit_between_epochs()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        try:
            self._wait()
            self._check_writer()
        finally:
            self._signals.restore()
            self.folder.close()

    # Restoring.

    def _newest(self):
        """The newest complete checkpoint, in every process."""
        paths = processes.broadcast([*self.folder.steps().values()])
        sharded = [path for path in paths if path.suffix == sharded_checkpoints.SUFFIX]
        if sharded and keras.backend.backend() != "jax":
            raise ValueError(
                "Sharded checkpoints open on KERAS_BACKEND=jax alone. Received: "
                f"{str(sharded[-1])!r} on the backend {keras.backend.backend()}. Use JAX, "
                "or choose another `directory`."
            )
        return self.folder.newest(paths, self._read)

    def _read(self, path):
        """Reads a checkpoint; rank 0 reads a file and broadcasts it."""
        is_sharded = path.suffix == sharded_checkpoints.SUFFIX
        checkpoint = error = None
        if is_sharded or is_first_process():
            try:
                if is_sharded:
                    checkpoint = sharded_checkpoints.read(path, self._shardings())
                else:
                    checkpoint = read(path)
            except ValueError as problem:
                error = str(problem)
        errors = [problem for problem in processes.all_gather(error) if problem]
        if errors:
            raise ValueError(errors[0])
        if is_sharded:
            return checkpoint
        tensors = processes.broadcast_arrays(checkpoint and checkpoint.tensors)
        record = processes.broadcast(checkpoint and checkpoint.record)
        return Checkpoint(path, record, tensors)

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
        log.info("Training resumes at %s: %s", self._position, checkpoint.path)

    def _continue_epoch(self):
        """Restores metrics and callbacks in `on_epoch_begin`: `fit` has reset metrics."""
        checkpoint, self._restored = self._restored, None
        self._loop.reset_begin()
        if self._position.step:
            training_state.assign(self.model, "metrics", checkpoint.tensors)
        else:
            self._set_random_states()  # the checkpoint was saved at this point, too
        callback_states.restore(
            self._loop.callbacks.callbacks,
            checkpoint.record["callbacks"],
            self._recorder.epochs,
            self._position,
        )

    def _set_random_states(self):
        """Restores random states; not earlier, as `fit` draws numbers for iterators."""
        if self._random is not None:
            training_state.set_random_states(self._random)
            self._random = None

    # Saving.

    def _is_due(self, total_before):
        if self.save_freq == "epoch" or self._position.step == self.params.get("steps"):
            return False  # `_end_epoch` follows and saves
        return total_before // self.save_freq < self._position.total // self.save_freq

    def _end_epoch(self):
        """Saves before validation, for which averaged weights are swapped in."""
        self._is_training = False
        self._set_random_states()
        if not self._position.is_epoch_done and self._position.step:
            self._position = dataclasses.replace(self._position, is_epoch_done=True)
            self._save()

    def _save(self):
        if self._saved == self._position:
            return
        if not (self._is_sharded or is_first_process()):
            self._saved = self._position
            return
        self._wait()
        self._check_writer()
        training_state.synchronize(self.model)
        groups = training_state.GROUPS
        if not self._position.step:
            groups = ("model", "optimizer")  # Keras may not have built the metrics
        position = self._position
        record = {
            **self._settings,
            "position": dataclasses.asdict(position),
            "stop_training": self.model.stop_training,
            "logs": settings.jsonable(self._last_logs),
            "epochs": settings.jsonable(self._recorder.epochs),
            "callbacks": callback_states.collect(self._loop.callbacks.callbacks),
        }
        if self._is_sharded:
            self._write_shards(position, groups, record)
        else:
            tensors = self._copy.take(self.model, groups)
            self.folder.start_thread(lambda: self._write(position, tensors, record))
        self._saved = position

    def _wait(self):
        """Waits until no checkpoint is being written."""
        self.folder.wait()
        self._sharded_writer.wait()
        if self._is_sharded and is_first_process():
            self.folder.prune()

    def _write_shards(self, position, groups, record):
        """Writes the shards of this process; every process calls it."""
        variables = training_state.named_variables(self.model, groups)
        arrays = {name: variable.value for name, variable in variables.items()}
        sums, not_finite = sharded_checkpoints.checksums(arrays)
        self._raise_not_finite(not_finite, position)
        path = self.folder.step_path(position.total, sharded_checkpoints.SUFFIX)
        self._sharded_writer.write(path, arrays, sums, record)

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
                    f"{name.split('/', 2)[2]!r} is not finite at {position}. "
                    f"{self._last_good()}"
                )

    def _last_good(self):
        path = self.folder.newest_path()
        if path is None:
            return "There is no checkpoint."
        return (
            f"The last good checkpoint is {str(path)!r}. Change the learning rate or the "
            "gradient clipping, and choose another `directory`."
        )

    def _check_writer(self):
        """Raises an error of the writing thread, or warns of it."""
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
        log.warning("%s Training continues without it.", message)

    def _must_stop(self):
        """True if any process has received a signal."""
        return processes.any_process(self._signals.received is not None)

    def _exit(self):
        self._wait()
        self._check_writer()
        processes.barrier()
        self._signals.restore()
        self.folder.close()
        log.warning(
            "%s: stopped at %s. Run the same command again to resume.",
            *(self._signals.name, self._position),
        )
        raise SystemExit(self._signals.exit_code)

    def _exit_between_epochs(self):
        if self._position.is_epoch_done and self._must_stop():
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
                "Checkpoints cannot be written to %s: %s. Training continues without them.",
                *(self.folder.path, error),
            )

    def _check_stream(self):
        if self.data is None or self._reads is None:
            return
        if self.data.start.reads == self._reads:
            raise ValueError(
                "`fit` must train on `train` of the `data` passed to `ExactResume`, or of "
                "a copy data.with_pipeline(…). Received: a `fit` that read nothing from "
                "it. Leave `data` out for another stream."
            )
        # The stream has begun; the next one starts at its beginning.
        self._reads, self.data.start.step = None, 0

    def _check_loss(self):
        loss = self._last_logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            self.folder.wait()
            raise FloatingPointError(
                f"The loss is {loss} at {self._position}. {self._last_good()}"
            )
