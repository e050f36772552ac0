"""Views of training images, large and small, for training without labels."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_vit import arguments
from keras_vit.data import crops
from keras_vit.data.augment import Augmentation, checked_range
from keras_vit.data.image_data import ImageData
from keras_vit.data.packages import tensorflow
from keras_vit.data.pipeline import Pipeline
from keras_vit.data.streams import training_stream, view_stream

if TYPE_CHECKING:
    import tensorflow as tf

WHITE = 255.0
_HALF = 128.0  # from here on solarization inverts, as in Pillow
_TAPS = 8  # pixels on each side that a blur reads: four deviations of the largest


@dataclass(frozen=True, kw_only=True)
class MultiCrop:
    """Augmentation of the views of an image: crops, mirroring, colours, blur, solarization.

    Source: *Emerging Properties in Self-Supervised Vision Transformers* (DINO, arXiv
    2104.14294), section 3.1, *Multi-crop*, and its code, whose augmentation is BYOL's
    (arXiv 2006.07733, appendix B). There are two global views; probabilities of these come
    in pairs.

    Attributes:
        global_area: (smallest, largest) share of the image's area, of global views.
        local_area: the same of local views.
        crop_ratio: (smallest, largest) ratio of width to height.
        flip: whether every second view, at random, is mirrored left to right.
        jitter: share of the views whose brightness, contrast, saturation and hue change.
        brightness: largest change of the factor 1.
        contrast: largest change of the factor 1.
        saturation: largest change of the factor 1.
        hue: largest change, as a share of the full turn.
        grey: share of the views that lose their colours.
        global_blur: shares of the first and of the second global views that are blurred.
        local_blur: the same of the local views.
        blur_deviation: (smallest, largest) standard deviation of the blur, in pixels, at
            most 2.
        solarize: shares of the first and of the second global views whose bright pixels are
            inverted.
    """

    global_area: tuple[float, float] = (0.4, 1.0)
    local_area: tuple[float, float] = (0.05, 0.4)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey: float = 0.2
    global_blur: tuple[float, float] = (1.0, 0.1)
    local_blur: float = 0.5
    blur_deviation: tuple[float, float] = (0.1, 2.0)
    solarize: tuple[float, float] = (0.0, 0.2)

    def __post_init__(self) -> None:
        keep = functools.partial(object.__setattr__, self)
        for name in ("global_area", "local_area"):
            keep(name, checked_range(getattr(self, name), 1, name))
        keep("crop_ratio", checked_range(self.crop_ratio, float("inf"), "crop_ratio"))
        keep("blur_deviation", checked_range(self.blur_deviation, 2, "blur_deviation"))
        for name in ("global_blur", "solarize"):
            keep(name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != 2:
                raise ValueError(
                    f"`{name}` must be a pair, for the first and the second global view. "
                    f"Received: {name}={getattr(self, name)}"
                )
        for name in ("jitter", "grey", "local_blur", "global_blur", "solarize"):
            _check_shares(getattr(self, name), name, 1)
        for name in ("brightness", "contrast", "saturation"):
            _check_shares(getattr(self, name), name, 1)
        _check_shares(self.hue, "hue", 0.5)


def _check_shares(values, name, largest):
    if any(isinstance(v, str) or not 0 <= v <= largest for v in np.ravel(values).tolist()):
        raise ValueError(f"`{name}` must be from 0 to {largest}. Received: {name}={values}")


def multi_crop(
    data: ImageData, model: keras.Model, views: MultiCrop | None = None
) -> tuple[tf.data.Dataset[Any], tf.data.Dataset[Any] | None]:
    """Batches of views of the images, as a `pretraining.SelfDistillation` takes them.

    A batch is (views, labels), views being a dictionary of `"global"`, float32 (batch, 2,
    height, width, channels), and, if the model has local views, `"local"` (batch,
    num_local_views, height, width, channels), scaled as the pipeline says and in its data
    format.

    The training stream is endless, and a pure function of `data.seed` that begins at
    `data.start`, as `data.train` is: `ExactResume(folder, data=data)` resumes it, and each
    of several processes computes its own rows alone. Views of validation images are
    augmented as well, the same at each evaluation.

    Args:
        data: images, prepared for the encoder: `data.prepared_for(model.encoder)`.
        model: a `SelfDistillation`, which says the number and the size of local views.
        views: the augmentation; `None` for that of the paper, with the mirroring of the
            pipeline's augmentation.

    Returns:
        Batches for training, and for validation; `None` without such images.

    Raises:
        ValueError: if the images have another size than the encoder's.

    Example:

    >>> data = keras_vit.data.load("photos", labels="none").prepared_for(model.encoder)
    >>> train, validation = keras_vit.data.multi_crop(data, model)
    >>> model.fit(train, steps_per_epoch=data.steps_per_epoch, epochs=100,
    ...           validation_data=validation, shuffle=False)
    """
    pipeline = data.pipeline
    size = arguments.pair(model.encoder.get_config()["image_size"], "image_size")
    if size != pipeline.image_size:
        raise ValueError(
            "Global views have the size of the encoder's images. Received: images of "
            f"{pipeline.image_size} for an encoder of {size}. Use "
            "data.prepared_for(model.encoder)."
        )
    settings = views or MultiCrop(flip=pipeline.augmentation.flip)
    augment = Views(settings, pipeline, model.num_local_views, model.local_image_size)
    train = training_stream(
        *(data.splits["train"], data.num_classes, pipeline, data.seed, data.start),
        augment=augment,
    )
    if "validation" not in data.splits:
        return train, None
    source = data.splits["validation"]
    return train, view_stream(source, data.num_classes, pipeline, data.seed, augment)


def views_of_augmentation(augmentation: Augmentation) -> MultiCrop:
    """The paper's views with the crops and the mirroring of an `Augmentation`.

    Its `crop_area` is that of the global views; local views have at most its smallest.

    Raises:
        ValueError: if it has operations that views have not.
    """
    if augmentation.crop != "inception" or augmentation.randaugment or augmentation.mixes:
        raise ValueError(
            "Views are random parts of an image with their own changes of colours. "
            f"Received: {augmentation}. Leave out `crop`, `randaugment` and mixing."
        )
    smallest = MultiCrop.local_area[0]
    return MultiCrop(
        global_area=augmentation.crop_area,
        local_area=(smallest, max(smallest, augmentation.crop_area[0])),
        crop_ratio=augmentation.crop_ratio,
        flip=augmentation.flip,
    )


class Views:
    """Makes the views of one image, with random numbers from a seed.

    Args:
        settings: the augmentation.
        pipeline: says the size of global views and the number of channels.
        num_local: number of local views.
        local_size: their (height, width).
    """

    def __init__(
        self,
        settings: MultiCrop,
        pipeline: Pipeline,
        num_local: int,
        local_size: tuple[int, int],
    ) -> None:
        self._settings = settings
        self._size, self._channels = pipeline.image_size, pipeline.channels
        self._num_local, self._local_size = num_local, tuple(local_size)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Makes the views of an image.

        Args:
            image: tensor (height, width, channels) with values from 0 to 255.
            seed: int64 tensor (2,); the same seed gives the same result.

        Returns:
            A dictionary of float32 tensors (views, height, width, channels) with values
            from 0 to 255, `"global"` and, if there are any, `"local"`.
        """
        tf = tensorflow()
        given, seeds = self._settings, tf.random.split(seed, 2 + self._num_local)
        image = tf.cast(image, "float32")
        views = [
            self._view(image, seeds[i], self._size, given.global_area, blur, solarize)
            for i, (blur, solarize) in enumerate(
                zip(given.global_blur, given.solarize, strict=True)
            )
        ]
        views = {"global": tf.stack(views)}
        if self._num_local:
            size, area = self._local_size, given.local_area
            views["local"] = tf.map_fn(
                lambda seed: self._view(image, seed, size, area, given.local_blur, 0.0),
                seeds[2:],
                fn_output_signature=tf.TensorSpec((*size, self._channels), "float32"),
            )
        return views

    def _view(self, image, seed, size, area, blur_share, solarize_share):
        tf = tensorflow()
        given = self._settings
        draws = tf.random.split(seed, 4)
        view = crops.bicubic_crop(image, size, area, given.crop_ratio, draws[0])
        view = tf.ensure_shape(view, (*size, self._channels))
        shares = tf.random.stateless_uniform([5], draws[1])
        if given.flip:
            view = tf.where(shares[0] < 0.5, view[:, ::-1], view)
        view = _sometimes(shares[1] < given.jitter, self._jitter, view, draws[2])
        if self._channels == 3:
            view = tf.where(shares[2] < given.grey, _in_grey(view), view)
        low, high = given.blur_deviation
        deviation = tf.random.stateless_uniform([], draws[3], low, high)
        view = _sometimes(shares[3] < blur_share, blur, view, deviation)
        is_inverted = (shares[4] < solarize_share) & (view >= _HALF)
        return tf.where(is_inverted, WHITE - view, view)

    def _jitter(self, view, seed):
        """Changes brightness, contrast, saturation and hue, in random order."""
        tf = tensorflow()
        given, draws = self._settings, tf.random.split(seed, 2)
        most = tf.constant([given.brightness, given.contrast, given.saturation, given.hue])
        change = tf.random.stateless_uniform([4], draws[0], -1.0, 1.0) * most
        operations = [_brighten, _contrast]
        operations += [_saturate, _turn_hue] if self._channels == 3 else []
        number = len(operations)
        order = tf.argsort(tf.random.stateless_uniform([number], draws[1]))
        for i in range(number):
            branches = [
                functools.partial(operation, view, change[j])
                for j, operation in enumerate(operations)
            ]
            view = tf.ensure_shape(tf.switch_case(order[i], branches), view.shape)
        return view


def _sometimes(condition, function, view, draw):
    tf = tensorflow()
    changed = tf.cond(condition, lambda: function(view, draw), lambda: view)
    return tf.ensure_shape(changed, view.shape)


# Changes of one view with values from 0 to 255, as Pillow's of the same factor.


def _clipped(view):
    return tensorflow().clip_by_value(view, 0.0, WHITE)


def _in_grey(view):
    tf = tensorflow()
    grey = tf.image.rgb_to_grayscale(view) if view.shape[-1] == 3 else view
    return tf.broadcast_to(grey, tf.shape(view))


def _brighten(view, change):
    return _clipped(view * (1 + change))


def _contrast(view, change):
    mean = tensorflow().reduce_mean(_in_grey(view))
    return _clipped(mean + (view - mean) * (1 + change))


def _saturate(view, change):
    grey = _in_grey(view)
    return _clipped(grey + (view - grey) * (1 + change))


def _turn_hue(view, change):
    return _clipped(tensorflow().image.adjust_hue(view / WHITE, change) * WHITE)


def blur(view: tf.Tensor, deviation: tf.Tensor) -> tf.Tensor:
    """Blurs an image by a Gaussian function, whose border continues outside of it.

    Args:
        view: (height, width, channels).
        deviation: its standard deviation in pixels, a scalar up to 2.
    """
    tf = tensorflow()
    height, width, _ = view.shape
    places = tf.range(-_TAPS, _TAPS + 1, dtype="float32")
    weights = tf.exp(-0.5 * tf.square(places / deviation))
    weights = weights / tf.reduce_sum(weights)
    rows, columns = (_blurring(size, weights) for size in (height, width))
    view = tf.tensordot(rows, view, 1)  # (height, width, channels)
    return tf.einsum("kw,hwc->hkc", columns, view)


def _blurring(size, weights):
    """The matrix (size, size) that blurs an axis."""
    tf = tensorflow()
    reads = np.arange(size)[:, None] + np.arange(-_TAPS, _TAPS + 1)
    reads = np.clip(reads, 0, size - 1)  # (size, taps)
    places = np.stack([np.repeat(np.arange(size), 2 * _TAPS + 1), reads.ravel()], axis=1)
    return tf.scatter_nd(places.astype("int32"), tf.tile(weights, [size]), (size, size))
