"""Packages of the `data` extra, imported where they are used."""

import contextlib
import functools
from types import ModuleType

import keras

from keras_vit import extras, startup_messages


def require(module: str) -> ModuleType:
    """Imports a module, or raises an ImportError that says what to install."""
    return extras.require(module, "`keras_vit.data`", "data")


@functools.cache
def tensorflow() -> ModuleType:
    """Imports TensorFlow for its pipelines, and leaves GPUs to Keras' backend."""
    if keras.backend.backend() == "tensorflow":
        return require("tensorflow")
    with startup_messages.silenced(no_gpu=True):
        tf = require("tensorflow")
        # At its first operation TensorFlow would take nearly all memory of the GPUs. If
        # the program has started it before, leave its choice as it is.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
    return tf
