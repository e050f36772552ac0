"""The packages of the `data` extra, imported where they are used."""

import contextlib
import functools
import importlib
from types import ModuleType

import keras

from keras_vit import remarks


def require(module: str) -> ModuleType:
    """The module of that name.

    Raises:
        ImportError: if it cannot be imported, saying what to install.
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
    """TensorFlow, for its pipelines; GPUs are left to Keras' own backend."""
    if keras.backend.backend() == "tensorflow":
        return require("tensorflow")
    with remarks.left_out(of_gpus=True):
        tf = require("tensorflow")
        # At its first operation TensorFlow would take nearly all of their memory. If it
        # has done so already, whoever started it has decided.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
    return tf
