"""Kinds of images by formula: what a class is, and how an image of it is drawn."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_vit.data.formula import curves, fractals, textures
from keras_vit.data.formula.draws import Draws

_CLASSES, _IMAGES = 0, 1  # streams of random numbers


class Kind(NamedTuple):
    """Kind of images.

    Attributes:
        code: draws the parameters of a class.
        draw: draws an image of a class: int32 (3, size, size), about 0 to 255.
    """

    code: Callable[[Draws], Any]
    draw: Callable[[Any, Draws, int], np.ndarray]


KINDS = {
    "fractals": Kind(fractals.system, fractals.draw_system),
    "julia": Kind(fractals.julia, fractals.draw_julia),
    "contours": Kind(curves.contours, curves.draw_contours),
    "shapes": Kind(curves.shape, curves.draw_shape),
    "strokes": Kind(curves.glyph, curves.draw_glyph),
    "noise": Kind(textures.cloud, textures.draw_noise),
    "gratings": Kind(textures.grating, textures.draw_grating),
    "leaves": Kind(textures.leaves, textures.draw_leaves),
}


@functools.lru_cache(2**16)
def code_of(kind: str, seed: int, number: int) -> Any:
    """Parameters of class `number` of a kind."""
    stream = 2 * tuple(KINDS).index(kind) + _CLASSES
    return KINDS[kind].code(Draws(seed, stream, number))


def draw(kind: str, seed: int, number: int, image: int, size: int) -> np.ndarray:
    """Draws an image.

    Args:
        kind: one of `KINDS`.
        seed: random seed of classes and images.
        number: number of the class within its kind.
        image: number of the image.
        size: pixels of a side.

    Returns:
        uint8 (size, size, 3).
    """
    stream = 2 * tuple(KINDS).index(kind) + _IMAGES
    pixels = KINDS[kind].draw(code_of(kind, seed, number), Draws(seed, stream, image), size)
    pixels = np.clip(pixels, 0, 255).astype("uint8")
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
