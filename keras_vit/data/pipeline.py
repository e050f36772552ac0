"""Pipelines: settings that make batches of images, and their effect on one image."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_vit import arguments
from keras_vit.data import crops
from keras_vit.data.arrays import checked_images
from keras_vit.data.augment import Augmentation
from keras_vit.data.images import CHANNELS, Reading, decode_image, image_name
from keras_vit.data.packages import tensorflow
from keras_vit.data.randaugment import RandAugment
from keras_vit.data.sources import pixels_of_array

if TYPE_CHECKING:
    import tensorflow as tf

LABEL_MODES = ("categorical", "int")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Settings that make batches of images.

    Attributes:
        image_size: int or (height, width) of the images in a batch.
        channels: 3 for RGB, 1 for grey.
        batch_size: number of images in a batch.
        label_mode: `"categorical"`: one-hot float32 (batch, classes); `"int"`: int32
            (batch,). MixUp and CutMix need `"categorical"`.
        image_mean: number, or one for each channel, subtracted from pixel values in [0, 1].
        image_std: number, or one for each channel, by which they are then divided. Both
            `None` keeps pixel values in [0, 255].
        data_format: `"channels_last"` or `"channels_first"`.
        augmentation: augmentation of training images; its `evaluation_crop` and
            `resize_factor` apply to evaluation images.
        num_parallel_calls: number of images that are decoded and augmented at once; `None`
            takes the number of processors. It has no influence on what the batches hold.
        value_range: (black, white), the values in the files or arrays that become 0 and
            255, such as (0, 4095) for 12 bits in files of 16, (0, 1) for masks and for
            floats on that scale. `None`: 0 and 255, or 65535 in files of 16 bits.
        alpha: `"drop"` leaves out a fourth channel that is no opacity, such as near
            infrared; `"white"` lays images over white. `None` is `"white"`, and `load`
            refuses channels that do not look like opacity.
    """

    image_size: int | tuple[int, int] = (224, 224)
    channels: int = 3
    batch_size: int = 32
    label_mode: str = "categorical"
    image_mean: float | tuple[float, ...] | None = 0.5
    image_std: float | tuple[float, ...] | None = 0.5
    data_format: str = "channels_last"
    augmentation: Augmentation = field(default_factory=Augmentation)
    num_parallel_calls: int | None = None
    value_range: tuple[float, float] | None = None
    alpha: str | None = None

    def __post_init__(self) -> None:
        keep = functools.partial(object.__setattr__, self)
        keep("image_size", arguments.pair(self.image_size, "image_size"))
        keep("data_format", arguments.image_data_format(self.data_format))
        keep("value_range", self.reading.value_range)
        arguments.one_of(self.channels, CHANNELS, "channels")
        arguments.one_of(self.label_mode, LABEL_MODES, "label_mode")
        arguments.positive(self.batch_size, "batch_size")
        if self.num_parallel_calls is not None:
            arguments.positive(self.num_parallel_calls, "num_parallel_calls")
        if (self.image_mean is None) != (self.image_std is None):
            raise ValueError(
                "`image_mean` and `image_std` must be given together, or both be None. "
                f"Received: image_mean={self.image_mean}, image_std={self.image_std}"
            )
        if self.image_mean is not None:
            for name in ("image_mean", "image_std"):
                value = getattr(self, name)
                keep(name, arguments.per_channel(value, self.channels, name))
            if np.min(self.image_std) <= 0:
                raise ValueError(
                    f"`image_std` must be positive. Received: image_std={self.image_std}"
                )
        if self.augmentation.mixes and self.label_mode == "int":
            raise ValueError(
                "MixUp and CutMix mix labels, too, so labels must be one-hot: "
                "label_mode='categorical'. Received: label_mode='int'"
            )

    @property
    def reading(self) -> Reading:
        """Meaning of the values in files and arrays."""
        return Reading(value_range=self.value_range, alpha=self.alpha)


# Notes of a model → fields of `Augmentation`.
_CROP_NOTES = {
    "evaluation_crop": "evaluation_crop",
    "resize_factor": "resize_factor",
    "interpolation": "evaluation_interpolation",
}


def fields_of(model: keras.Model, augmentation: Augmentation) -> dict[str, Any]:
    """Returns the fields of a `Pipeline` that prepares images as a model takes them.

    Args:
        model: a `VisionTransformer` or `BiTResNet`.
        augmentation: augmentation that takes over the evaluation crop in the model's
            `preprocessing` (`ImageModel.note`), if it has one.

    Raises:
        ValueError: if the model is of another class, or takes images that are neither grey
            nor RGB.
    """
    config = model.get_config()
    if "include_preprocessing" not in config:
        raise ValueError(
            "`model` must be a VisionTransformer or a BiTResNet, whose config says how "
            f"it takes images. Received: a {type(model).__name__}. Give that model, "
            "which may be a layer of yours, or the values themselves: "
            "data.with_pipeline(image_size=…, image_mean=…, image_std=…)."
        )
    takes_pixels = config["include_preprocessing"]
    noted = dict(config.get("preprocessing") or {})
    crop = {field: noted.pop(n) for n, field in _CROP_NOTES.items() if n in noted}
    channels = model.input_shape[-1 if config["data_format"] == "channels_last" else 1]
    if channels not in CHANNELS:
        raise ValueError(
            "`keras_vit.data` reads images as grey or RGB. Received: a model of images "
            f"with {channels} channels. Give `fit` arrays or a `tf.data` of your own, with "
            "values as `keras_vit.preprocess_input(images, model)` returns them."
        )
    return {
        "image_size": config["image_size"],
        "channels": channels,
        "data_format": config["data_format"],
        "image_mean": None if takes_pixels else config["image_mean"],
        "image_std": None if takes_pixels else config["image_std"],
        "augmentation": replace(augmentation, **crop),
        **noted,
    }


def load_images(
    images: Sequence[str | os.PathLike[str] | bytes | np.ndarray], pipeline: Pipeline
) -> np.ndarray:
    """Prepares images for a model, as `ImageData.validation` does.

    Args:
        images: paths of files, contents of files, or arrays (height, width) or (height,
            width, 1, 3 or 4) with values from 0 to 255 or in the pipeline's
            `value_range`.
        pipeline: settings, such as `ImageData.pipeline`.

    Returns:
        float32 array (n, height, width, channels), or with the channels first.

    Raises:
        ValueError: if there is no image, or one cannot be decoded; the message names it.
    """
    if isinstance(images, str | os.PathLike | bytes):
        raise ValueError(
            f"`images` must be a list of images. Received one: {image_name(images)!r}. Put "
            "it in brackets."
        )
    tensorflow()
    prepared = [_prepared(image, pipeline) for image in images]
    if not prepared:
        raise ValueError("`images` must hold at least one image. Received: none")
    return in_data_format(np.stack(prepared), pipeline).numpy()


class Augment:
    """Augmentation of one training image, with random numbers from a seed."""

    def __init__(self, pipeline: Pipeline):
        self._pipeline = pipeline
        operations = pipeline.augmentation.randaugment
        self._randaugment = RandAugment(*operations) if operations else None

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Crops, flips and changes an image.

        Args:
            image: tensor (height, width, channels) with values from 0 to 255.
            seed: int64 tensor (2,); the same seed gives the same result.

        Returns:
            float32 tensor of the pipeline's size, with values from 0 to 255.
        """
        tf = tensorflow()
        crop_seed, flip_seed, operation_seed = tf.unstack(tf.random.split(seed, 3))
        image = self._cropped(image, crop_seed)
        image = tf.ensure_shape(
            image, (*self._pipeline.image_size, self._pipeline.channels)
        )
        if self._pipeline.augmentation.flip:
            image = tf.image.stateless_random_flip_left_right(image, flip_seed)
        if self._randaugment:
            image = self._randaugment(image, operation_seed)
        return image

    def _cropped(self, image, seed):
        augmentation, size = self._pipeline.augmentation, self._pipeline.image_size
        if augmentation.crop == "inception":
            area, ratio = augmentation.crop_area, augmentation.crop_ratio
            return crops.inception_crop(image, size, area, ratio, seed)
        if augmentation.crop == "random":
            return crops.random_crop(image, size, augmentation.resize_factor, seed)
        if augmentation.crop == "square":
            return crops.square_crop(image, size, augmentation.resize_factor, seed)
        return crops.plain_resize(image, size)


def evaluation_crop(image: tf.Tensor, pipeline: Pipeline) -> tf.Tensor:
    """Crops an image for evaluation to the pipeline's size, with values from 0 to 255."""
    augmentation, size = pipeline.augmentation, pipeline.image_size
    how = augmentation.evaluation_interpolation
    if augmentation.evaluation_crop == "resize":
        image = crops.whole_image(image, size, 1.0, how)
    elif augmentation.evaluation_crop == "square":
        image = crops.whole_image(image, size, augmentation.resize_factor, how)
    else:
        image = crops.center_crop(image, size, augmentation.resize_factor, how)
    return tensorflow().ensure_shape(image, (*size, pipeline.channels))


def evaluation_part(
    shape: tuple[int, ...], pipeline: Pipeline
) -> tuple[float, float, float, float]:
    """Part of an image that `evaluation_crop` keeps.

    Args:
        shape: (height, width, …) of the image.
        pipeline: settings.

    Returns:
        (top, left, bottom, right) as shares of the image's height and width.
    """
    augmentation, size = pipeline.augmentation, pipeline.image_size
    if augmentation.evaluation_crop == "resize":
        return 0.0, 0.0, 1.0, 1.0
    if augmentation.evaluation_crop == "square":
        resized = crops.resized_whole(size, augmentation.resize_factor)
    else:
        resized = crops.resized_small(shape, size, augmentation.resize_factor)
    start = crops.middle_offset(resized, size).numpy() / resized.numpy()
    end = start + np.asarray(size) / resized.numpy()
    return (*map(float, start), *map(float, end))


def encoded(label: tf.Tensor, num_classes: int, pipeline: Pipeline) -> tf.Tensor:
    """Encodes a label by the pipeline's `label_mode`."""
    if pipeline.label_mode == "int":
        return label
    return tensorflow().one_hot(label, num_classes, dtype="float32")


def scaled(image: tf.Tensor, pipeline: Pipeline) -> tf.Tensor:
    """Scales pixel values from 0 to 255 by the pipeline's mean and standard deviation.

    Mixing comes after; it gives the same before.
    """
    if pipeline.image_mean is None:
        return image
    mean, std = np.asarray(pipeline.image_mean), np.asarray(pipeline.image_std)
    return image * (1 / (255 * std)).astype("float32") - (mean / std).astype("float32")


def pixels_of(images: np.ndarray, pipeline: Pipeline) -> np.ndarray:
    """The pixels of images that `load_images` has prepared, to look at.

    Args:
        images: a batch in the pipeline's `data_format`.
        pipeline: the pipeline that prepared it.

    Returns:
        uint8 (batch, height, width, channels).
    """
    if pipeline.data_format == "channels_first":
        images = np.moveaxis(images, 1, -1)
    if pipeline.image_mean is not None:
        mean, std = np.asarray(pipeline.image_mean), np.asarray(pipeline.image_std)
        images = 255 * (images * std + mean)
    return np.clip(np.round(images), 0, 255).astype("uint8")


def in_data_format(images: tf.Tensor | np.ndarray, pipeline: Pipeline) -> tf.Tensor:
    """Moves the channels of a batch to the place of the pipeline's `data_format`."""
    tf = tensorflow()
    if pipeline.data_format == "channels_first":
        *outer, height, width, channels = range(len(images.shape))
        return tf.transpose(images, (*outer, channels, height, width))
    return tf.convert_to_tensor(images)


def _prepared(image, pipeline: Pipeline) -> np.ndarray:
    if isinstance(image, np.ndarray):
        name = "An array of `images`, as one of n,"
        image = checked_images(image[None], name, pipeline.reading)[0]
        image = pixels_of_array(image, pipeline.channels, pipeline.reading)
    else:
        image = decode_image(image, image_name(image), pipeline.channels, pipeline.reading)
    return scaled(evaluation_crop(image, pipeline), pipeline).numpy()
