"""The paper's crops: images of any size to images of one size.

All take an image (height, width, channels) and give float32 values on the same scale,
with the size (height, width) asked for. Resizing is bilinear. It is antialiased but for
the Inception crop, where the original code does not, either.
"""

from keras_vit.data.packages import tensorflow


def inception_crop(image, size, area, ratio, seed):
    """A random part of the image, resized.

    `area` is the (smallest, largest) share of the image's, `ratio` the (smallest,
    largest) width by height. Source: arXiv 1409.4842, section 6, as in BigVision's code.
    """
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
    return tf.image.resize(tf.slice(image, begin, part), size)


def random_crop(image, size, resize_factor, seed):
    """The image resized to `resize_factor` times the size or more, then a random part.

    The smaller side is resized to `round(size * resize_factor)` and the shape kept, as
    in BigVision's `resize_small(448)|random_crop(384)`.
    """
    return _random_part(image, size, _resized_small(image, size, resize_factor), seed)


def square_crop(image, size, resize_factor, seed):
    """The whole image resized to `resize_factor` times the size, then a random part.

    Source: BiT (arXiv 1912.11370), section 3.3; BigVision's `resize(512)|random_crop(480)`.
    """
    resized = tensorflow().constant([round(side * resize_factor) for side in size])
    return _random_part(image, size, resized, seed)


def _random_part(image, size, resized, seed):
    tf = tensorflow()
    room = tf.cast(resized - size + 1, "float32")
    offset = tf.floor(tf.random.stateless_uniform([2], seed) * room)
    # The product can round up to the whole room.
    return _part_of_resized(image, size, resized, tf.minimum(offset, room - 1))


def center_crop(image, size, resize_factor):
    """As `random_crop`, with the part in the middle."""
    tf = tensorflow()
    resized = _resized_small(image, size, resize_factor)
    return _part_of_resized(image, size, resized, tf.cast((resized - size) // 2, "float32"))


def plain_resize(image, size):
    """The whole image, whatever becomes of its shape."""
    return tensorflow().image.resize(image, size, antialias=True)


def _resized_small(image, size, resize_factor):
    """Size of the image once its smaller side is resized."""
    tf = tensorflow()
    least = tf.constant([round(side * resize_factor) for side in size])
    shape = tf.cast(tf.shape(image)[:2], "float64")
    scale = tf.reduce_max(tf.cast(least, "float64") / shape)
    return tf.maximum(tf.cast(tf.round(shape * scale), "int32"), least)


def _part_of_resized(image, size, resized, offset):
    """What `tf.image.resize(image, resized, antialias=True)` holds at an offset.

    Only that part is computed: of a very long image the rest would not fit in memory.
    """
    tf = tensorflow()
    scale = tf.cast(resized, "float32") / tf.cast(tf.shape(image)[:2], "float32")
    return tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=size,
        scale=scale,
        translation=-offset,
        kernel_type="triangle",
        antialias=True,
    )[0]
