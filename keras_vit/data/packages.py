"""Packages of the `data` extra, imported where they are used."""

import contextlib
import functools
import importlib
from types import ModuleType

import keras

from keras_vit import startup_messages


def require(module: str) -> ModuleType:
    """Imports a module.

    Raises:
        ImportError: if it cannot be imported; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"`keras_vit.data` needs `{module}`, which cannot be imported ({error}). "
            "Run: pip install 'keras-vit[data]'"
        ) from error


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
