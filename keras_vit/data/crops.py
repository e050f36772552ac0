"""Crops of the paper: images of any size to images of one size.

Each function takes an image (height, width, channels) and returns a float32 image of the
given size (height, width), with values on the same scale. Training images are resized
bilinearly and antialiased; the Inception crop is not antialiased, as in the original code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_vit.data.packages import tensorflow

if TYPE_CHECKING:
    import tensorflow as tf


def inception_crop(
    image: tf.Tensor,
    size: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
    seed: tf.Tensor,
) -> tf.Tensor:
    """Cuts out a random part of the image and resizes it.

    `area` is the (smallest, largest) share of the image's area, `ratio` the (smallest,
    largest) ratio of width to height. Source: arXiv 1409.4842, section 6, as in BigVision's
    code.
    """
    tf = tensorflow()
    return tf.image.resize(_random_box(image, area, ratio, seed), size)


def bicubic_crop(
    image: tf.Tensor,
    size: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
    seed: tf.Tensor,
) -> tf.Tensor:
    """Cuts out a part as `inception_crop` does; resizes it bicubically and antialiased.

    Source: the code of DINO (arXiv 2104.14294).
    """
    tf = tensorflow()
    part = _random_box(image, area, ratio, seed)
    part = tf.image.resize(part, size, "bicubic", antialias=True)
    # The cubic kernel has negative weights, and files hold no values beyond these.
    return tf.clip_by_value(part, 0.0, 255.0)


def _random_box(image, area, ratio, seed):
    tf = tensorflow()
    begin, part, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([0, 0, 4]),
        seed,
        min_object_covered=0,
        aspect_ratio_range=ratio,
        area_range=area,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.slice(image, begin, part)


def random_crop(
    image: tf.Tensor, size: tuple[int, int], resize_factor: float, seed: tf.Tensor
) -> tf.Tensor:
    """Resizes the smaller side, keeps the proportions, and cuts out a random part.

    The smaller side becomes `round(size * resize_factor)`, as in BigVision's
    `resize_small(448)|random_crop(384)`.
    """
    resized = resized_small(tensorflow().shape(image), size, resize_factor)
    return _random_part(image, size, resized, seed)


def square_crop(
    image: tf.Tensor, size: tuple[int, int], resize_factor: float, seed: tf.Tensor
) -> tf.Tensor:
    """Resizes the whole image to `resize_factor` times the size, and cuts out a part.

    Source: BiT (arXiv 1912.11370), section 3.3; BigVision's `resize(512)|random_crop(480)`.
    """
    return _random_part(image, size, resized_whole(size, resize_factor), seed)


def _random_part(image, size, resized, seed):
    tf = tensorflow()
    room = tf.cast(resized - size + 1, "float32")
    offset = tf.floor(tf.random.stateless_uniform([2], seed) * room)
    # The product may round up to `room`.
    return _part_of_resized(image, size, resized, tf.minimum(offset, room - 1))


def center_crop(
    image: tf.Tensor,
    size: tuple[int, int],
    resize_factor: float,
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """Resizes as `random_crop` does, and cuts out the middle part.

    `interpolation` is that of `Augmentation.evaluation_interpolation`.
    """
    resized = resized_small(tensorflow().shape(image), size, resize_factor)
    return _middle(image, size, resized, interpolation)


def whole_image(
    image: tf.Tensor,
    size: tuple[int, int],
    resize_factor: float,
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """Resizes as `square_crop` does, and cuts out the middle part.

    `interpolation` is that of `Augmentation.evaluation_interpolation`.
    """
    return _middle(image, size, resized_whole(size, resize_factor), interpolation)


def _middle(image, size, resized, interpolation):
    tf = tensorflow()
    offset = tf.cast(middle_offset(resized, size), "float32")
    if interpolation == "area":
        return _part_of_means(image, size, resized, offset)
    return _part_of_resized(image, size, resized, offset, _KERNELS[interpolation])


def middle_offset(resized: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Rows and columns of a resized image before its middle part of a size."""
    return (resized - size) // 2


def plain_resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes the whole image, also if that changes its proportions."""
    return tensorflow().image.resize(image, size, antialias=True)


def resized_whole(size: tuple[int, int], resize_factor: float) -> tf.Tensor:
    """Size (height, width) of the resized image of which `whole_image` keeps the middle."""
    return tensorflow().constant([round(side * resize_factor) for side in size])


def resized_small(
    shape: tf.Tensor | tuple[int, ...], size: tuple[int, int], resize_factor: float
) -> tf.Tensor:
    """Size (height, width) of the resized image of which `center_crop` keeps the middle.

    `shape` is that of the image, of which its height and width are used.
    """
    tf = tensorflow()
    least = resized_whole(size, resize_factor)
    shape = tf.cast(shape[:2], "float64")
    scale = tf.reduce_max(tf.cast(least, "float64") / shape)
    return tf.maximum(tf.cast(tf.round(shape * scale), "int32"), least)


# TensorFlow's kernels: its cubic one has the parameter of Pillow, -0.5.
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}


def _part_of_resized(image, size, resized, offset, kernel="triangle"):
    """Cuts a part, at an offset, out of `tf.image.resize(image, resized, antialias=True)`.

    Only that part is computed: the rest of a very long image would not fit in memory.
    """
    tf = tensorflow()
    scale = tf.cast(resized, "float32") / tf.cast(tf.shape(image)[:2], "float32")
    part = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=size,
        scale=scale,
        translation=-offset,
        kernel_type=kernel,
        antialias=True,
    )[0]
    # The cubic kernel has negative weights, and files hold no values beyond these.
    return part if kernel == "triangle" else tf.clip_by_value(part, 0.0, 255.0)


def _part_of_means(image, size, resized, offset):
    """Cuts a part, at an offset, out of `tf.image.resize(image, resized, "area")`."""
    tf = tensorflow()
    shape = tf.shape(image)
    rows, columns = (_means(shape[i], resized[i], size[i], offset[i]) for i in (0, 1))
    image = tf.cast(image, "float32")
    return tf.einsum("rh,hwc,kw->rkc", rows, image, columns)


def _means(length, resized, size, offset):
    """Weights (size, length) of the pixels on one axis that lie below each new pixel."""
    tf = tensorflow()
    scale = tf.cast(length, "float64") / tf.cast(resized, "float64")
    edges = (tf.cast(offset, "float64") + tf.range(size + 1, dtype="float64")) * scale
    pixels = tf.range(length + 1, dtype="float64")
    start = tf.maximum(edges[:-1, None], pixels[None, :-1])
    end = tf.minimum(edges[1:, None], pixels[None, 1:])
    return tf.cast(tf.maximum(end - start, 0.0) / scale, "float32")
