"""Preprocessing of pixel values, as in `keras.applications`."""

from typing import Any

import keras
import numpy as np

from keras_vit import arguments
from keras_vit.models import ImageModel
from keras_vit.presets import find_preset


def preprocess_input(
    images: Any,
    preset_or_model: str | keras.Model | None = None,
    data_format: str | None = None,
) -> Any:
    """Scales pixel values to the range that a model was trained on.

    Args:
        images: array or tensor of pixel values in [0, 255], (batch, height, width,
            channels), or without the batch, or with the channels first.
        preset_or_model: name of a preset, or a model of this package, whose mean and
            standard deviation of each channel are used; `None` for [-1, 1], the range of
            Google's models. A model with `include_preprocessing=True` leaves the images
            unchanged.
        data_format: `"channels_last"`, `"channels_first"`, or `None` for
            `keras.config.image_data_format()`.

    Returns:
        A new float array or tensor of the same shape: pixel values scaled to [0, 1], minus
        the mean, divided by the standard deviation.

    Raises:
        ValueError: if the preset or the data format is unknown, or the images have
            another number of channels than the preset.
    """
    mean, std = 0.5, 0.5
    if isinstance(preset_or_model, str):
        steps = find_preset(preset_or_model).preprocessing
        mean, std = steps.mean, steps.std
    elif isinstance(preset_or_model, ImageModel):
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
    """The only value, or an array of the values that broadcasts against images."""
    if len(set(values)) == 1:
        return float(values[0])
    channels_last = data_format == "channels_last"
    channels = images.shape[-1 if channels_last else -3]
    if channels != len(values):
        raise ValueError(
            f"The mean and the standard deviation have {len(values)} channels. "
            f"Received: images of shape {tuple(images.shape)} with data_format="
            f"{data_format!r}, which has {channels} channels."
        )
    values = values.reshape((-1,) if channels_last else (-1, 1, 1))
    if isinstance(images, np.ndarray):
        return values.astype(images.dtype)
    return keras.ops.convert_to_tensor(values, dtype=images.dtype)
