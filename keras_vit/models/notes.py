"""Facts that a model's file keeps and its computation does not use.

Without them a file that is copied out of its run could not be used: nothing would say how
images are cropped and what the classes are called.
"""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from keras_vit import arguments

NOTES = ("class_names", "probabilities", "preprocessing")
OF_THE_HEAD = ("class_names", "probabilities")
PROBABILITIES = ("softmax", "sigmoid")
EVALUATION_CROPS = ("center", "square", "resize")
INTERPOLATIONS = ("bilinear", "bicubic", "area")
ALPHA = ("drop", "white")
RESIZE_FACTOR = 448 / 384  # of the ViT paper's code


def check_notes(c: SimpleNamespace) -> None:
    """Checks the notes among the fields of a config, and brings each into one form.

    Raises:
        ValueError: if one is out of its range, or does not fit the head.
    """
    if c.class_names is not None:
        c.class_names = _checked_names(c.class_names, c.classes)
    arguments.one_of(c.probabilities, (*PROBABILITIES, None), "probabilities")
    if c.preprocessing is not None:
        c.preprocessing = _checked_preprocessing(c.preprocessing)


def without_empty(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the notes that are `None`."""
    return {k: v for k, v in config.items() if k not in NOTES or v is not None}


def _checked_names(names, classes) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"`class_names` must be a sequence of strings. Received: class_names={names!r}"
        )
    names = tuple(names)
    if len(names) != classes:
        raise ValueError(
            "`class_names` must have a name for each output of the head. Received: "
            f"{len(names)} names, classes={classes}"
        )
    return names


def _checked_preprocessing(fields) -> dict[str, Any]:
    if not isinstance(fields, Mapping) or set(fields) - set(_CHECKS):
        raise ValueError(
            f"`preprocessing` must be a dictionary of some of {', '.join(_CHECKS)}. "
            f"Received: preprocessing={fields!r}"
        )
    checked = {name: _CHECKS[name](value) for name, value in fields.items()}
    if checked.get("evaluation_crop") in ("center", "square"):
        checked.setdefault("resize_factor", RESIZE_FACTOR)
    return checked


def _crop(value):
    return arguments.one_of(value, EVALUATION_CROPS, "evaluation_crop")


def _interpolation(value):
    return arguments.one_of(value, INTERPOLATIONS, "interpolation")


def _factor(value):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 1 <= value < math.inf:
        raise ValueError(
            "`resize_factor` must be 1 or more, as the crop is taken from the resized "
            f"image. Received: resize_factor={value!r}"
        )
    return float(value)


def _size(value):
    return arguments.pair(value, "image_size")


def _range(value):
    values = tuple(float(v) for v in value)
    if len(values) != 2 or not -math.inf < values[0] < values[1] < math.inf:
        raise ValueError(
            "`value_range` must be a pair (black, white) of two numbers. Received: "
            f"value_range={value!r}"
        )
    return values


def _alpha(value):
    return arguments.one_of(value, ALPHA, "alpha")


_CHECKS = {
    "image_size": _size,
    "evaluation_crop": _crop,
    "resize_factor": _factor,
    "interpolation": _interpolation,
    "value_range": _range,
    "alpha": _alpha,
}
