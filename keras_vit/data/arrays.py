"""Sources of arrays: images and labels in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.data.images import Reading
from keras_vit.data.sources import ImageArrays
from keras_vit.data.spelling import one_spelling
from keras_vit.data.wording import listed

SPLITS = ("train", "validation", "test")
FEW = 32


def load_arrays(
    arrays: Any,
    splits: Mapping[str, Any] | None,
    reading: Reading,
    known: Sequence[str] | None = None,
    labelled: str = "required",
) -> tuple[dict[str, ImageArrays], tuple[str, ...]]:
    """Returns sources and class names of a pair (images, labels), or of one per split.

    If the classes are `known`, integer labels are indices into them, and a split may lack
    some classes. Where `labelled` is not `"required"`, images alone are taken as well, and
    have no names.

    Raises:
        ValueError: if the arrays are not pairs of images and labels that fit.
    """
    if splits is not None:
        raise ValueError(
            "`splits` is for folders, CSV files and TensorFlow Datasets. Give arrays as a "
            "dictionary: {'train': (images, labels), 'validation': …, 'test': …}"
        )
    pairs = arrays if isinstance(arrays, Mapping) else {"train": arrays}
    if "train" not in pairs or not set(pairs) <= set(SPLITS):
        raise ValueError(
            "Arrays by split must be a dictionary with 'train', and perhaps 'validation' "
            f"and 'test'. Received the keys: {sorted(map(str, pairs))}"
        )
    if labelled == "none" or (labelled == "optional" and not _are_pairs(pairs)):
        return _without_labels(pairs, reading), ()
    images, labels = {}, {}
    for split, pair in pairs.items():
        images[split], labels[split] = _checked_pair(pair, split, reading)
    if len({array.dtype.kind == "U" for array in labels.values()}) > 1:
        raise ValueError("Labels must be strings in every split, or in none of them")
    class_names = _class_names(labels, known)
    sources = {
        split: ImageArrays(
            images[split],
            _as_indices(labels[split], class_names, split),
            np.arange(len(images[split])),
        )
        for split in SPLITS
        if split in pairs
    }
    return sources, class_names


def _are_pairs(pairs) -> bool:
    return all(isinstance(pair, tuple | list) for pair in pairs.values())


def _without_labels(pairs, reading: Reading) -> dict[str, ImageArrays]:
    """Returns the images of each split, which have the label 0."""
    sources = {}
    for split in (split for split in SPLITS if split in pairs):
        pair = pairs[split]
        images = pair[0] if isinstance(pair, tuple | list) else pair
        images = checked_images(images, f"The images of {split!r}", reading)
        number = len(images)
        sources[split] = ImageArrays(images, np.zeros(number, "int32"), np.arange(number))
    return sources


def _checked_pair(pair, split: str, reading: Reading):
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(
            f"The arrays of {split!r} must be a pair (images, labels). Received: "
            f"{type(pair).__name__}"
        )
    images = checked_images(pair[0], f"The images of {split!r}", reading)
    labels = checked_labels(pair[1], split)
    if len(images) != len(labels):
        raise ValueError(
            f"Every image needs a label. Received for {split!r}: {len(images)} images "
            f"and {len(labels)} labels"
        )
    return images, labels


def checked_images(images: ArrayLike, name: str, reading: Reading) -> np.ndarray:
    """Returns images as an array (n, height, width, 1, 3 or 4), after checks of its values.

    Args:
        images: array (n, height, width) or (n, height, width, 1, 3 or 4).
        name: name of the images in errors.
        reading: meaning of the values.

    Raises:
        ValueError: if the shape, the dtype or a value is not one of images.
    """
    images = np.asanyarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape:
        raise ValueError(
            f"{name} must have the shape (n, height, width) or (n, height, width, 1, 3 or "
            f"4), with n at least 1. Received: {images.shape}"
        )
    if images.dtype.kind not in "uif":
        raise ValueError(
            f"{name} must be numbers from 0 to 255. Received: an array of {images.dtype}"
        )
    if reading.value_range is not None:
        _check_finite(images, name)
    elif images.dtype == np.uint8:
        _check_masks(images, name)
    else:
        _check_range(images, name)
    return images


def _check_finite(images, name: str) -> None:
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise ValueError(f"{name} must be finite numbers. Received: NaN or infinity")


def _check_masks(images, name: str) -> None:
    """Refuses integers that are only 0 and 1; checks a few images before all of them."""
    few = images[:: len(images) // FEW + 1]
    if few.max() <= 1 and images.max() == 1:
        raise ValueError(
            f"{name} must hold values from 0 to 255. Received: only 0 and 1, as in masks; "
            "the images would be almost black. Give the values of black and white: "
            "value_range=(0, 1), or value_range=(0, 255) if they are that dark."
        )


def _check_range(images, name: str) -> None:
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255):  # NaN fails too
        raise ValueError(
            f"{name} must hold values from 0 to 255. Received: values from {low} to "
            f"{high}. Give the values of black and white: value_range=(…, …)"
        )
    if images.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"{name} must hold values from 0 to 255. Received: values up to {high}, as on "
            "a scale of 0 to 1; the images would be almost black. Multiply them by 255, "
            "or give value_range=(0, 1)."
        )
    if images.dtype.kind != "f":
        _check_masks(images, name)


def checked_labels(labels: ArrayLike, split: str) -> np.ndarray:
    """Returns labels as an array (n,) of integers or strings."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf":
        if (
            not np.array_equal(labels.sum(1), np.ones(len(labels)))
            or not np.isin(labels, (0, 1)).all()
        ):
            raise ValueError(
                f"The labels of {split!r} have the shape {labels.shape}, so each row must "
                "be one-hot: a single 1, and 0 elsewhere"
            )
        return labels.argmax(1)
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    if labels.dtype.kind == "U" and labels.ndim == 1:
        labels = np.array([one_spelling(label) for label in labels.tolist()], str)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"The labels of {split!r} must be integers from 0, strings, or one-hot rows. "
            f"Received: an array of {labels.dtype} of the shape {labels.shape}"
        )
    return labels


def _class_names(labels: Mapping, known) -> tuple[str, ...]:
    of_train = labels["train"]
    if of_train.dtype.kind == "U":
        every = of_train if known is None else np.concatenate(list(labels.values()))
        return tuple(str(name) for name in np.unique(every))
    if of_train.min() < 0:
        raise ValueError(
            f"Labels must be integers from 0. Received: {of_train.min()} in 'train'"
        )
    if known is not None:
        return tuple(map(str, known))
    return tuple(str(index) for index in range(int(of_train.max()) + 1))


def _as_indices(labels, class_names, split: str) -> np.ndarray:
    if labels.dtype.kind != "U":
        unknown = sorted(set(labels.tolist()) - set(range(len(class_names))))
    else:
        unknown = sorted(set(labels.tolist()) - set(class_names))
        labels = np.searchsorted(np.array(class_names), labels)
    if unknown and split == "train":  # integers, with `class_names` given
        raise ValueError(
            f"Labels must be from 0 to {len(class_names) - 1}, as `class_names` has "
            f"{len(class_names)}. Received: {listed(map(repr, unknown))}"
        )
    if unknown:
        raise ValueError(
            f"Every class must be in 'train'. Received in {split!r} only: "
            f"{listed(map(repr, unknown))}"
        )
    return labels.astype("int32")
