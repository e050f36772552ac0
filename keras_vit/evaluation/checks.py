"""Checks of the features and labels that the protocols take."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vit.data.wording import listed

MOST_CLASSES = 1_000_000  # ImageNet-21k has 21,843; arrays (examples, classes) are made


def check_examples(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Returns the four as arrays, without a copy; memory-mapped ones stay on the disk.

    Args:
        train_features: array (examples, width).
        train_labels: int array (examples,), classes from 0.
        test_features: array (test examples, width).
        test_labels: int array (test examples,).

    Raises:
        ValueError: if a shape or a type is another one, or there are no examples.
    """
    train = check_features(train_features, "train_features")
    test = check_features(test_features, "test_features")
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            "Features to train with and to test must have the same width. Received: shapes "
            f"{train.shape} and {test.shape}"
        )
    return (
        train,
        check_labels(train_labels, len(train), "train_labels"),
        test,
        check_labels(test_labels, len(test), "test_labels"),
    )


def check_features(features: ArrayLike, name: str) -> NDArray:
    """Returns features as an array; raises a ValueError if they are no real numbers."""
    features = np.asarray(features)
    is_real = features.dtype.kind not in "cSUOMm"  # "V" is bfloat16
    if features.ndim != 2 or not features.shape[1] or not is_real:
        raise ValueError(
            f"`{name}` must be an array (examples, width) of real numbers, at least one "
            f"for each example. Received: shape {features.shape} and type {features.dtype}"
        )
    return features


def check_labels(labels: ArrayLike, examples: int, name: str) -> NDArray:
    """Returns labels as an int64 array; raises a ValueError if they are no classes."""
    labels = np.asarray(labels)
    if labels.shape != (examples,) or not examples or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` must be a whole number for each example, of at least one. Received: "
            f"{name} of shape {labels.shape} and type {labels.dtype}, {examples} examples"
        )
    outside = [n for n in (labels.min(), labels.max()) if not 0 <= n < MOST_CLASSES]
    if outside:
        raise ValueError(
            f"`{name}` must be classes from 0, below {MOST_CLASSES:,}. Received: {name} "
            f"with {outside[0]}. np.unique(labels, return_inverse=True) numbers classes."
        )
    return labels.astype(np.int64)


def count_classes(num_classes: int | None, *labels: NDArray) -> int:
    """Returns `num_classes`, or one more than the largest label for `None`.

    Raises:
        ValueError: if a label is no class of so few, or it is no whole number.
    """
    largest = max(int(array.max()) for array in labels)
    if num_classes is None:
        return largest + 1
    number = check_number(num_classes, "num_classes", whole=True)
    if not largest < number <= MOST_CLASSES:
        raise ValueError(
            "`num_classes` must be more than the largest label, and at most "
            f"{MOST_CLASSES:,}. Received: num_classes={num_classes} and the label {largest}"
        )
    return number


def check_numbers(values: object, name: str, whole: bool = False) -> tuple:
    """Returns one positive number or several as a tuple.

    Raises:
        ValueError: if there is none, or one is not positive, or not whole if it must be.
    """
    numbers = tuple(np.atleast_1d(np.asarray(values)).tolist())
    kinds = int if whole else (int, float)
    is_number = [isinstance(n, kinds) and not isinstance(n, bool) for n in numbers]
    if not numbers or not all(is_number) or not all(0 < n < np.inf for n in numbers):
        kind = "positive whole numbers" if whole else "positive numbers"
        raise ValueError(f"`{name}` must be {kind}. Received: {name}={values!r}")
    return numbers


def check_number(value: object, name: str, whole: bool = False) -> float:
    """Returns one positive number.

    Raises:
        ValueError: if it is no number, not positive, or not whole if it must be.
    """
    if np.ndim(value):
        kind = "whole number" if whole else "number"
        raise ValueError(f"`{name}` must be one {kind}. Received: {name}={value!r}")
    return check_numbers(value, name, whole)[0]


def check_finite(numbers: NDArray, name: str) -> None:
    """Raises a ValueError if some of the numbers (examples, width) are not finite."""
    rows = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(rows):
        raise ValueError(
            f"`{name}` must be finite numbers. Received: {len(rows)} rows with NaN or "
            f"infinity, {listed(map(str, rows))}. A model that overflows in float16 gives "
            "such numbers: compute them in float32 or bfloat16."
        )


def check_seeds(seeds: object, name: str = "seeds") -> tuple[int, ...]:
    """Returns one seed or several as a tuple.

    Raises:
        ValueError: if there is none, one is no whole number from 0, or one comes twice.
    """
    found = tuple(np.atleast_1d(np.asarray(seeds)).tolist())
    is_seed = [type(seed) is int and seed >= 0 for seed in found]
    if not found or not all(is_seed) or len(set(found)) < len(found):
        raise ValueError(
            f"`{name}` must be whole numbers from 0, each once: two runs of one seed are "
            f"the same run. Received: {name}={seeds!r}"
        )
    return found
