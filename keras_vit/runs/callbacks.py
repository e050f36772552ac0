"""Callbacks that write a training's files."""

import itertools
import os
import socket
import time

import keras
import numpy as np

from keras_vit.data.packages import tensorflow
from keras_vit.distribution import is_first_process, whole_weights
from keras_vit.runs.folder import BEST, LAST
from keras_vit.training.resume import event_files

_writers = itertools.count()


class Progress(keras.callbacks.Callback):
    """Adds `step` and `learning_rate` to what the callbacks after it are told.

    The steps are updates of the weights: with gradient accumulation several
    micro-batches are one.
    """

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        logs["step"] = int(optimizer.iterations)
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))


class Checkpoints(keras.callbacks.Callback):
    """Writes the last model, with its optimizer, and the best one, without.

    A file is written beside its place and moved there once it is complete, so one that
    was complete never becomes half. Of weights that are split over processes the first
    one, which writes, has all together meanwhile.

    Args:
        folder: where `best.keras` and `last.keras` shall lie.
        monitor: the metric of which the highest value is the best.
    """

    def __init__(self, folder: str | os.PathLike, monitor: str = "val_accuracy"):
        super().__init__()
        self.folder = os.fspath(folder)
        self.monitor = monitor
        self.best = None

    def on_epoch_end(self, epoch, logs=None):
        # The first is the best so far even if it is NaN.
        value = float(np.nan_to_num(logs[self.monitor], nan=-np.inf))
        self._save(LAST)
        if self.best is None or value > self.best:
            self.best = value
            self._save_without_optimizer(BEST)

    def resume_state(self):
        """For `ExactResume`."""
        return {"best": self.best}

    def resume(self, state, epochs):
        """For `ExactResume`."""
        self.best = state.get("best")

    def _save_without_optimizer(self, name):
        # Keras 3.15 has no argument for it; Adam's state is twice the weights.
        optimizer = self.model.optimizer
        self.model.optimizer = None
        try:
            self._save(name)
        finally:
            self.model.optimizer = optimizer

    def _save(self, name):
        with whole_weights(self.model):
            if is_first_process():
                part = os.path.join(self.folder, f"part.{name}")
                self.model.save(part)
                os.replace(part, os.path.join(self.folder, name))


class EventFiles(keras.callbacks.Callback):
    """Writes what TensorBoard shows, as `keras.callbacks.TensorBoard` lays it out.

    That one needs the package `tensorboard` to write, on each backend; this one needs
    TensorFlow alone. One point for each evaluation, over the steps.

    Args:
        folder: below which `train` and `validation` are made.
    """

    first_process_only = True

    def __init__(self, folder: str | os.PathLike):
        super().__init__()
        self.folder = os.fspath(folder)
        self._writers = {}

    def on_epoch_end(self, epoch, logs=None):
        step = logs.get("step", epoch)
        for name, value in logs.items():
            run = "validation" if name.startswith("val_") else "train"
            if name != "step":
                self._write(run, f"epoch_{name.removeprefix('val_')}", value, step)
        for writer in self._writers.values():
            writer.flush()

    def resume(self, state, epochs):
        """For `ExactResume`: what comes after these epochs is written again."""
        last = epochs[-1][1].get("step", epochs[-1][0]) if epochs else -1
        event_files.cut(self.folder, lambda tag, step: step <= last)

    def on_train_end(self, logs=None):
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
            # As TensorFlow's own; no two writers have one.
            own = f"{socket.gethostname()}.{os.getpid()}.{next(_writers)}"
            name = f"events.out.tfevents.{int(time.time())}.{own}"
            writer = tf.io.TFRecordWriter(os.path.join(folder, name))
            first = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
            writer.write(first.SerializeToString())
            self._writers[run] = writer
        return self._writers[run]
