"""Images into models and predictions into names, as in `keras.applications`."""

import json
import os

import keras
import numpy as np

from keras_vit import arguments
from keras_vit.models import BiTResNet, VisionTransformer
from keras_vit.presets import find_preset
from keras_vit.weights.web import FORBIDDEN, is_offline


def preprocess_input(images, preset_or_model=None, data_format: str | None = None):
    """Brings pixel values to the range that a model was trained on.

    Args:
        images: array or tensor of pixel values in [0, 255], (batch, height, width,
            channels), or without the batch, or with the channels first.
        preset_or_model: name of a preset, or a model of this package, whose mean and
            standard deviation of each channel are taken; `None` for [-1, 1] as Google's
            models take it. A model with `include_preprocessing=True` takes the images as
            they are.
        data_format: `"channels_last"`, `"channels_first"`, or `None` for
            `keras.config.image_data_format()`.

    Returns:
        A new float array or tensor of the same shape: pixel values brought to [0, 1],
        less the mean, by the standard deviation.

    Raises:
        ValueError: if the preset or the data format is unknown, or the images' channels
            are not those of the preset.
    """
    mean, std = 0.5, 0.5
    if isinstance(preset_or_model, str):
        steps = find_preset(preset_or_model).preprocessing
        mean, std = steps.mean, steps.std
    elif isinstance(preset_or_model, VisionTransformer | BiTResNet):
        config = preset_or_model.get_config()
        if config["include_preprocessing"]:
            return images
        mean, std = config["image_mean"], config["image_std"]
    data_format = arguments.image_data_format(data_format)
    # Keras' own `preprocess_input` overwrites float arrays in place.
    if isinstance(images, np.ndarray):
        images = images.astype(keras.config.floatx())
    else:
        images = keras.ops.cast(images, keras.config.floatx())
    mean, std = np.broadcast_arrays(np.atleast_1d(mean), np.atleast_1d(std))
    scale = _by_channel(255 * std, images, data_format)
    offset = _by_channel(mean / std, images, data_format)
    return images / scale - offset


def _by_channel(values, images, data_format):
    """The one value, or an array of them that broadcasts against images."""
    if len(set(values)) == 1:
        return float(values[0])
    channels_last = data_format == "channels_last"
    channels = images.shape[-1 if channels_last else -3]
    if channels != len(values):
        raise ValueError(
            f"The mean and the standard deviation are of {len(values)} channels. "
            f"Received: images of shape {tuple(images.shape)} with data_format="
            f"{data_format!r}, which has {channels} channels."
        )
    values = values.reshape((-1,) if channels_last else (-1, 1, 1))
    if isinstance(images, np.ndarray):
        return values.astype(images.dtype)
    return keras.ops.convert_to_tensor(values, dtype=images.dtype)


def decode_predictions(
    preds,
    top: int = 5,
    class_index: str | os.PathLike | None = None,
    model: keras.Model | None = None,
) -> list[list[tuple[str, str, float]]]:
    """Names the most probable classes: a model's own, or those of ImageNet-1k.

    Args:
        preds: array or tensor (batch, classes), the output of a model; without `model` one
            with the 1000 classes of ImageNet-1k.
        top: int, how many classes to name.
        class_index: path of a copy of Keras' `imagenet_class_index.json`, for use without
            network. `None` takes the file that `keras.applications` downloads once into
            `~/.keras/models/`.
        model: a model of this package. Where it knows the names of its classes, as one that
            `training.finetune` has trained does, these are taken, and `class_index` is
            not read.

    Returns:
        For each image a list of (WordNet id, name, score), the highest score first. In
        place of the WordNet id a model's own classes have their number, as a string.

    Raises:
        ValueError: if `preds` has another shape, or the file other contents.
        FileNotFoundError: if there is no file at `class_index`.
        ConnectionError: if the file is not there and cannot be downloaded.
    """
    preds = keras.ops.convert_to_numpy(preds)
    if model is not None and (names := model.get_config().get("class_names")):
        return _decoded(preds, names, top)
    if preds.ndim != 2 or preds.shape[1] != 1000:
        raise ValueError(
            "`decode_predictions` names the 1000 classes of ImageNet-1k, in an array of "
            f"shape (batch, 1000). Received: an array of shape {preds.shape}"
        )
    if class_index is None and is_offline():
        class_index = _downloaded_class_index()
    if class_index is None:
        try:
            return keras.applications.imagenet_utils.decode_predictions(preds, top)
        except Exception as error:  # Keras' downloader raises a bare Exception
            raise ConnectionError(
                f"Keras could not get imagenet_class_index.json: {error}. Without "
                "network, copy it from another machine's ~/.keras/models/ and give its "
                "path as `class_index`."
            ) from error
    with open(class_index, encoding="utf-8") as file:
        names = json.load(file)
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(1000)}:
        raise ValueError(
            f"{os.fspath(class_index)!r} is not Keras' imagenet_class_index.json, which "
            'maps "0" … "999" to [WordNet id, name]'
        )
    best = np.argsort(-preds, axis=1)[:, :top]
    return [
        [(*names[str(i)], row[i]) for i in indices]
        for row, indices in zip(preds, best, strict=True)
    ]


def _decoded(preds, names, top):
    if preds.ndim != 2 or preds.shape[1] != len(names):
        raise ValueError(
            f"The model names {len(names)} classes, in an array of shape (batch, "
            f"{len(names)}). Received: an array of shape {preds.shape}"
        )
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(str(i), names[i], row[i]) for i in indices]
        for row, indices in zip(preds, best, strict=True)
    ]


def _downloaded_class_index() -> str:
    """The file as Keras has downloaded it before."""
    home = os.environ.get("KERAS_HOME", os.path.join(os.path.expanduser("~"), ".keras"))
    path = os.path.join(home, "models", "imagenet_class_index.json")
    if not os.path.exists(path):
        raise ConnectionError(
            f"{FORBIDDEN}, and there is no file {path!r}. Copy it from another machine's "
            "~/.keras/models/, or give its path as `class_index`."
        )
    return path
