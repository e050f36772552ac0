"""Callbacks that write the files of a run."""

import itertools
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_vit.data.packages import tensorflow
from keras_vit.distribution import gather_weights, is_first_process
from keras_vit.runs.folder import BEST, LAST, OBJECTIVE
from keras_vit.training.resume import event_files

Epochs = Sequence[tuple[int, Mapping[str, Any]]]  # the number and the logs of each
_writers = itertools.count()


class Progress(keras.callbacks.Callback):
    """Adds `step` and `learning_rate` to the logs for the callbacks after it.

    A step is an update of the weights: several micro-batches with gradient accumulation.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        optimizer = self.model.optimizer
        logs["step"] = int(optimizer.iterations)
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))


class Checkpoints(keras.callbacks.Callback):
    """Saves the last model with its optimizer, and the best one without.

    Each file is written under another name and renamed once it is complete, so a complete
    file is never replaced by half of one. With several processes, rank 0 saves for all,
    and gathers weights that are sharded over processes.

    Args:
        folder: where to write `best.keras` and `last.keras`.
        monitor: metric whose best value is the best.
        mode: `"max"` if its highest value is, `"min"` for its lowest.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        monitor: str = "val_accuracy",
        mode: str = "max",
    ) -> None:
        super().__init__()
        self.folder: str = os.fspath(folder)
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # The first value is the best so far, even if it is NaN.
        sign = 1 if self.mode == "max" else -1
        value = float(np.nan_to_num(sign * logs[self.monitor], nan=-np.inf))
        self._save(LAST)
        if self.best is None or value > sign * self.best:
            self.best = sign * value
            self._save_best()

    def resume_state(self) -> dict[str, Any]:
        """State for `ExactResume` to save."""
        return {"best": self.best}

    def resume(self, state: Mapping[str, Any], epochs: Epochs) -> None:
        """Restores the state that `ExactResume` saved."""
        self.best = state.get("best")

    def _save_best(self):
        self._save_without_optimizer(BEST)

    def _save_without_optimizer(self, name):
        # `save` has no argument for it; Adam's state is twice the size of the weights.
        optimizer = self.model.optimizer
        self.model.optimizer = None
        try:
            self._save(name)
        finally:
            self.model.optimizer = optimizer

    def _save(self, name, part_of_model=None):
        with gather_weights(self.model):
            if is_first_process():
                part = os.path.join(self.folder, f"part.{name}")
                (part_of_model or self.model).save(part)
                os.replace(part, os.path.join(self.folder, name))


class EncoderCheckpoints(Checkpoints):
    """Saves as the best checkpoint the encoder alone, and beside it the whole model.

    Args:
        folder: where to write `best.keras`, the encoder, `objective.keras`, the model of
            the same step that was trained around it, and `last.keras`.
        monitor: see `Checkpoints`.
        mode: see `Checkpoints`.
    """

    def _save_best(self):
        self._save_without_optimizer(OBJECTIVE)
        self._save(BEST, self.model.kept_encoder)


class StudentCheckpoints(Checkpoints):
    """Saves the student alone of a `pretraining.Distillation`, as any classifier.

    Args: see `Checkpoints`.
    """

    def _save(self, name, part_of_model=None):
        super()._save(name, part_of_model or self.model.student)


class EventFiles(keras.callbacks.Callback):
    """Writes event files in the layout of `keras.callbacks.TensorBoard`.

    That callback needs the package `tensorboard` to write; this one needs TensorFlow
    only. It writes one point for each evaluation, over the steps.

    Args:
        folder: where to create the folders `train` and `validation`.
    """

    first_process_only = True

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self.folder: str = os.fspath(folder)
        self._writers = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        step = logs.get("step", epoch)
        for name, value in logs.items():
            run = "validation" if name.startswith("val_") else "train"
            if name != "step":
                self._write(run, f"epoch_{name.removeprefix('val_')}", value, step)
        for writer in self._writers.values():
            writer.flush()

    def resume(self, state: Mapping[str, Any], epochs: Epochs) -> None:
        """Deletes points after the epochs that `ExactResume` restored."""
        last = epochs[-1][1].get("step", epochs[-1][0]) if epochs else -1
        event_files.truncate(self.folder, lambda tag, step: step <= last)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write(self, run, tag, value, step):
        v1 = tensorflow().compat.v1
        point = v1.Summary.Value(tag=tag, simple_value=float(value))
        event = v1.Event(
            wall_time=time.time(), step=step, summary=v1.Summary(value=[point])
        )
        self._writer(run).write(event.SerializeToString())

    def _writer(self, run):
        if run not in self._writers:
            tf = tensorflow()
            folder = os.path.join(self.folder, run)
            os.makedirs(folder, exist_ok=True)
            # As TensorFlow names them; each writer has another name.
            own = f"{socket.gethostname()}.{os.getpid()}.{next(_writers)}"
            name = f"events.out.tfevents.{int(time.time())}.{own}"
            writer = tf.io.TFRecordWriter(os.path.join(folder, name))
            first = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
            writer.write(first.SerializeToString())
            self._writers[run] = writer
        return self._writers[run]
