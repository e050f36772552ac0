"""Key of features in a cache: digests of all that decides them."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from keras_vit._version import __version__
from keras_vit.data import ImageData
from keras_vit.data.pipeline import Pipeline
from keras_vit.distribution.processes import gather_variable
from keras_vit.evaluation.feature_files import FORMAT
from keras_vit.keras_internals.sublayers import all_layers
from keras_vit.layers.trainability import TRAINABLE_PARTS
from keras_vit.models.notes import NOTES

# Arguments of a model that change no output.
_UNUSED = (*NOTES, "name", TRAINABLE_PARTS)
# Fields of a pipeline and of its augmentation that change no image of an evaluation.
_OF_BATCHES = ("batch_size", "label_mode", "num_parallel_calls")
_OF_TRAINING = ("crop", "crop_area", "crop_ratio", "flip", "randaugment")
_OF_TRAINING += ("mixup_alpha", "cutmix_alpha")


def feature_key(
    model: keras.Model, layer: str, data: ImageData, split: str
) -> tuple[str, dict[str, Any]]:
    """The key of features, and its parts as a dictionary for JSON.

    The key changes with the model's config, dtype policies among it, with any weight, with
    the layer, with the preparation of the images, and with the images and labels: paths
    within the data's folder, sizes and times of change of files, or the values of arrays.
    It also changes with the versions of this package and Keras and with the backend, which
    round differently. It does not depend on the batch size, on where the data lies, or on
    the numbers that Keras puts behind names.

    Args:
        model: a built model; every process calls this if its weights are sharded.
        layer: see `extract_features`.
        data: images with the pipeline that prepares them.
        split: name of the split.

    Raises:
        ValueError: if the model has no config.
    """
    parts = {
        "format": FORMAT,
        "versions": {"keras_vit": __version__, "keras": keras.__version__},
        "backend": keras.backend.backend(),
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "config": _digest(_config(model)),
        "weights": _digest(_weights(model)),
        "layer": layer,
        "images": _image_fields(data.pipeline),
        "data": data.name,
        "split": split,
        "content": data.content_digest(split),
    }
    named = {name: part for name, part in parts.items() if name not in ("data", "split")}
    return _digest(named)[:40], parts


def model_digest(model: keras.Model) -> str:
    """SHA-256 of the config and the weights of a model, in hexadecimal digits.

    Names, notes and what is trainable do not enter.

    Args:
        model: a built model; every process calls this if its weights are sharded.

    Raises:
        ValueError: if the model has no config.
    """
    return _digest([_config(model), _weights(model)])


def _image_fields(pipeline: Pipeline) -> dict[str, Any]:
    fields = asdict(pipeline)
    augmentation = fields.pop("augmentation")
    fields = {k: v for k, v in fields.items() if k not in _OF_BATCHES}
    return fields | {k: v for k, v in augmentation.items() if k not in _OF_TRAINING}


def _digest(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _config(model):
    """The config of a model with the names of its layers replaced by numbers."""
    try:
        config = keras.saving.serialize_keras_object(model.get_config())
        json.dumps(config)
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            "A cache of features knows a model by its config and its weights. Received: a "
            f"{type(model).__name__} without a config ({error}). Give it a `get_config`, "
            "or leave `cache_dir` out."
        ) from error
    if isinstance(config, dict):
        config = {name: value for name, value in config.items() if name not in _UNUSED}
    numbers = {layer.name: f"layer {i}" for i, layer in enumerate(all_layers(model))}
    return _renamed(config, numbers)


def _renamed(value, names):
    if isinstance(value, dict):
        parts = {key: part for key, part in value.items() if key != "trainable"}
        return {key: _renamed(part, names) for key, part in parts.items()}
    if isinstance(value, list | tuple):
        return [_renamed(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


def _weights(model):
    """Shape, dtype and digest of each weight, in order."""
    return [(list(w.shape), str(w.dtype), _sum(gather_variable(w))) for w in model.weights]


def _sum(array):
    return hashlib.sha256(np.ascontiguousarray(array).view("uint8")).hexdigest()
