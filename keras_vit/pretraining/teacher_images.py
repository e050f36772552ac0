"""Images of a student made those of its teacher, where both are models of this package."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_vit.models import ImageModel
from keras_vit.resize import resize_matrix
from keras_vit.types import Tensor

# Arguments of a model that say what its images are.
_RANGE = ("image_mean", "image_std", "include_preprocessing", "data_format")


def conversion(student: ImageModel, teacher: ImageModel) -> Callable[[Tensor], Tensor]:
    """A function of a batch of the student's images that gives the teacher's.

    Size (bilinear interpolation with antialiasing), value range and order of the axes are
    those of the models' arguments.

    Raises:
        ValueError: if the models take images of other channels, or only the teacher's size
            is known.
    """
    ours, theirs = _facts(student), _facts(teacher)
    _check(student, teacher, ours, theirs)
    is_same_range = all(ours[name] == theirs[name] for name in _RANGE[:3])
    sizes = None
    if None not in theirs["size"] and theirs["size"] != ours["size"]:
        sizes = (ours["size"], theirs["size"])

    def convert(images: Tensor) -> Tensor:
        images = ops.cast(images, "float32")
        if ours["data_format"] == "channels_first":
            images = ops.transpose(images, (0, 2, 3, 1))
        if sizes:
            images = _resized(images, *sizes)
        if not is_same_range:
            images = _from_unit(_to_unit(images, ours), theirs)
        if theirs["data_format"] == "channels_first":
            images = ops.transpose(images, (0, 3, 1, 2))
        return images

    return convert


def _facts(model) -> dict[str, Any]:
    facts = {name: model.arguments[name] for name in _RANGE}
    shape = model.input_shape[1:]
    if facts["data_format"] == "channels_first":
        shape = (*shape[1:], shape[0])
    return {**facts, "size": shape[:2], "channels": shape[2]}


def _check(student, teacher, ours, theirs):
    way_out = "Give `preprocess`, a function of the student's images."
    if ours["channels"] != theirs["channels"]:
        raise ValueError(
            "`teacher` must take images of as many channels as the student. Received: "
            f"{ours['channels']} channels of {student.name!r}, {theirs['channels']} of "
            f"{teacher.name!r}. {way_out}"
        )
    if None in ours["size"] and None not in theirs["size"]:
        raise ValueError(
            "A teacher of images of one size needs a student whose size is known. "
            f"Received: {ours['size']} of {student.name!r}, {theirs['size']} of "
            f"{teacher.name!r}. {way_out}"
        )


def _resized(images, source, target):
    rows, columns = (
        resize_matrix(own, wanted, "bilinear").astype("float32")
        for own, wanted in zip(source, target, strict=True)
    )
    return ops.einsum("ir,brcd,jc->bijd", rows, images, columns)


def _to_unit(images, facts):
    """Pixel values on a scale from 0 to 1."""
    if facts["include_preprocessing"]:
        return images / 255
    return images * _constant(facts["image_std"]) + _constant(facts["image_mean"])


def _from_unit(pixels, facts):
    if facts["include_preprocessing"]:
        return pixels * 255
    return (pixels - _constant(facts["image_mean"])) / _constant(facts["image_std"])


def _constant(values):
    return ops.convert_to_tensor(np.asarray(values), "float32")
