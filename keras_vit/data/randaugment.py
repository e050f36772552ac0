"""RandAugment as AugReg and BigVision use it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from keras_vit.data.packages import require, tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

MAX_LEVEL = 10  # magnitude of an operation's full strength
SIZE = 224  # side of the image, in pixels, for strengths in pixels
GREY = 128.0  # value of pixels from outside of the image


class RandAugment:
    """Applies random operations of one magnitude to an image.

    Source: RandAugment (arXiv 1909.13719) with the 16 operations and strengths of
    BigVision's code. With l = magnitude / 10:

    | operation | strength |
    |---|---|
    | AutoContrast, Equalize, Invert | – |
    | Rotate | 30° · l, either way |
    | ShearX, ShearY | 0.3 · l, either way |
    | TranslateX, TranslateY | 100/224 of the side · l, either way |
    | Cutout | a square of 80/224 of the sides · l |
    | Color, Contrast, Brightness, Sharpness | factor 0.1 + 1.8 · l |
    | Posterize | keeps int(4 · l) bits, at most 8 |
    | Solarize | inverts values from int(256 · l) on |
    | SolarizeAdd | adds int(110 · l) to values below 128 |

    The quirks of the original code in the last rows are kept: Posterize and Solarize grow
    weaker with the magnitude, and Posterize gives black at magnitude 0. Three things
    differ. Translations and Cutout are shares of the image, and pixels in the original;
    they agree at 224 pixels. Values stay floats; the original rounds after each operation.
    Contrast keeps each channel's mean, as keras-cv does; the original means the mean grey,
    and by mistake uses a constant that depends on the image's size.

    keras-cv's layers compute the pixels. They are given the transformation, which they
    would otherwise draw from a stateful generator. Brightness as in Pillow and SolarizeAdd
    have no layer and are written here. Color leaves grey images unchanged.

    Args:
        num_layers: number of operations applied to an image, one after another.
        magnitude: strength from 0; AugReg uses 0, 10, 15 and 20.
    """

    num_layers: int
    operations: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]

    def __init__(self, num_layers: int, magnitude: float):
        self.num_layers = num_layers
        self.operations = _operations(magnitude / MAX_LEVEL)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments an image.

        Args:
            image: float32 tensor (height, width, channels) with values from 0 to 255.
            seed: int64 tensor (2,); the same seed gives the same result.
        """
        tf = tensorflow()
        images = image[None]
        for layer_seed in tf.unstack(tf.random.split(seed, self.num_layers)):
            images = self._apply_one(images, layer_seed)
        return images[0]

    def _apply_one(self, images, seed):
        tf = tensorflow()
        which, where = tf.unstack(tf.random.split(seed, 2))
        operations = list(self.operations.values())
        index = tf.random.stateless_uniform([], which, 0, len(operations), "int32")
        place = tf.random.stateless_uniform([2], where)
        shape = images.shape

        def branch(operation):
            return lambda: tf.ensure_shape(operation(images, place), shape)

        return tf.switch_case(index, [branch(operation) for operation in operations])


def _operations(level: float) -> dict:
    """Returns functions of images (1, height, width, channels) and 2 numbers in [0, 1)."""
    factor = 0.1 + 1.8 * level
    return {
        "AutoContrast": _fixed(_layer("AutoContrast", value_range=(0, 255))),
        "Equalize": _fixed(_layer("Equalization", value_range=(0, 255))),
        "Invert": _solarize(0),
        "Rotate": _rotate(math.radians(30) * level),
        "Posterize": _posterize(int(4 * level)),
        "Solarize": _solarize(int(256 * level)),
        "SolarizeAdd": _solarize_add(int(110 * level)),
        "Color": _color(factor),
        "Contrast": _contrast(factor),
        "Brightness": _brightness(factor),
        "Sharpness": _sharpness(factor),
        "ShearX": _shear(0.3 * level, "shear_x"),
        "ShearY": _shear(0.3 * level, "shear_y"),
        "TranslateX": _translate(100 / SIZE * level, "width_translations"),
        "TranslateY": _translate(100 / SIZE * level, "height_translations"),
        "Cutout": _cutout(80 / SIZE * level),
    }


def _layer(name: str, **arguments):
    """Makes a layer of keras-cv in float32, whatever Keras' dtype policy is."""
    return getattr(require("keras_cv.layers"), name)(dtype="float32", **arguments)


def _moving_layer(name: str, **arguments):
    """Makes a layer that moves pixels, with the fill and interpolation of the original."""
    fill = {"fill_mode": "constant", "fill_value": GREY, "interpolation": "nearest"}
    return _layer(name, **fill, **arguments)


def _fixed(layer):
    return lambda images, place: _applied(layer, images)


def _applied(layer, images, transformations=None):
    """Applies a layer with a given transformation in place of a random one."""
    layer.get_random_transformation_batch = lambda *args, **kwargs: transformations
    return layer(images)


def _sign(place):
    return tensorflow().where(place[0] < 0.5, -1.0, 1.0)


def _rotate(angle: float):
    layer = _moving_layer("RandomRotation", factor=0.0)

    def rotate(images, place):
        angles = (angle * _sign(place))[None]
        return _applied(layer, images, {"angles": angles})

    return rotate


def _shear(shear: float, axis: str):
    layer = _moving_layer("RandomShear", x_factor=0.0, y_factor=0.0)

    def apply(images, place):
        shears = {"shear_x": None, "shear_y": None, axis: [[shear * _sign(place)]]}
        return _applied(layer, images, shears)

    return apply


def _translate(share: float, axis: str):
    layer = _moving_layer("RandomTranslation", height_factor=0.0, width_factor=0.0)

    def translate(images, place):
        translations = {"height_translations": [[0.0]], "width_translations": [[0.0]]}
        translations[axis] = [[share * _sign(place)]]
        return _applied(layer, images, translations)

    return translate


def _cutout(share: float):
    layer = _layer("RandomCutout", height_factor=0.0, width_factor=0.0, fill_value=GREY)

    def cutout(images, place):
        tf = tensorflow()
        sides = tf.cast(tf.shape(images)[1:3], "float32")
        center = tf.cast(tf.floor(place * sides), "int32")
        cut = tf.cast(tf.round(share * sides), "int32")
        rectangle = {
            "centers_x": center[1:],
            "centers_y": center[:1],
            "rectangles_width": cut[1:],
            "rectangles_height": cut[:1],
        }
        return _applied(layer, images, rectangle)

    return cutout


def _color(factor: float):
    layer = _layer("RandomColorDegeneration", factor=0.0)

    def color(images, place):
        if images.shape[-1] == 1:
            return images
        return _applied(layer, images, 1 - factor)

    return color


def _contrast(factor: float):
    layer = _layer("RandomContrast", value_range=(0, 255), factor=0.5)
    return lambda images, place: _applied(layer, images, factor)


def _sharpness(factor: float):
    layer = _layer("RandomSharpness", value_range=(0, 255), factor=0.0)
    return lambda images, place: _applied(layer, images, 1 - factor)


def _posterize(bits: int):
    if bits == 0:
        return lambda images, place: tensorflow().zeros_like(images)
    layer = _layer("Posterization", value_range=(0, 255), bits=min(bits, 8))
    return lambda images, place: _applied(layer, images)


def _solarize(threshold: int):
    layer = _layer("Solarization", value_range=(0, 255))
    values = {"additions": 0.0, "thresholds": float(threshold)}
    return lambda images, place: _applied(layer, images, values)


def _brightness(factor: float):
    return lambda images, place: tensorflow().clip_by_value(images * factor, 0.0, 255.0)


def _solarize_add(addition: int):
    def solarize_add(images, place):
        tf = tensorflow()
        return tf.where(images < 128, tf.minimum(images + addition, 255.0), images)

    return solarize_add
