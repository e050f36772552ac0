"""`formula_images`: images by formula as a data set."""

from collections.abc import Sequence
from typing import Any

from keras_vit.data.formula.kinds import KINDS
from keras_vit.data.formula.source import formula_splits
from keras_vit.data.image_data import ImageData
from keras_vit.data.pipeline import Pipeline


def formula_images(
    count: int = 100_000,
    size: int = 64,
    *,
    seed: int = 0,
    kinds: str | Sequence[str] = tuple(KINDS),
    classes: int = 1000,
    validation_split: float = 0.0,
    in_memory: bool = False,
    **pipeline: Any,
) -> ImageData:
    """Makes labelled images by formula, without a licence and without a download.

    Image i of a seed is the same bytes on every machine, whatever `count` is, as long as
    size, kinds and classes are the same. Its label is the class of the formula: the maps
    of a fractal, the corners of a contour, the spectrum of a noise. Images of a class
    differ in place, angle, colors, background, and a little in the formula.

    The name `"formula"` stands for such images in `keras_vit.data.load` and on the command
    line; `"formula:count=5000,kinds=fractals+strokes"` sets arguments.

    Args:
        count: number of images, at least one for each class to train on.
        size: pixels of a side, from 16 to 512.
        seed: random seed of formulas, images and their order, from 0 to 2**63 - 1.
        kinds: one or more of `"fractals"` (iterated function systems), `"julia"` (Julia
            sets by escape time), `"contours"` (nested closed lines), `"shapes"` (polygons,
            stars, blobs), `"strokes"` (signs as by hand), `"noise"` (spectra of 1/f^a),
            `"gratings"`, `"leaves"` (dead leaves). Class c is of the kind
            c % len(kinds), so that all have equally many.
        classes: number of classes. Image i is of the class i % classes.
        validation_split: fraction in [0, 1) of the images, the last ones, for validation.
        in_memory: keeps each image after it was drawn once: size² · 3 bytes for each.
            Otherwise every reading draws it again, about 1 ms for 64 pixels.
        **pipeline: fields of `Pipeline`; `image_size` is `size` if it is not given.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: if an argument is out of its range.

    Sources: FractalDB (arXiv 2101.08515), radial contours (arXiv 2206.09132), noise and
    dead leaves (arXiv 2106.05963).

    Example:

    >>> data = keras_vit.data.formula_images(50_000, 64, kinds=("fractals", "strokes"))
    >>> model = keras_vit.VisionTransformer(64, 8, 192, 6, 3, 768, classes=1000)
    >>> data = data.prepared_for(model, batch_size=64)
    """
    splits = formula_splits(
        count,
        size,
        seed=seed,
        kinds=kinds,
        classes=classes,
        in_memory=in_memory,
        fractions=(validation_split, 0.0),
    )
    settings = Pipeline(**{"image_size": size, **pipeline})
    ordered = {split: splits[split] for split in ("train", "validation") if split in splits}
    return ImageData("formula", splits["train"].class_names, ordered, settings, seed)
