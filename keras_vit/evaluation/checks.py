"""Checks of the features and labels that the protocols take."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vit.data.wording import listed


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
    train, test = np.asarray(train_features), np.asarray(test_features)
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise ValueError(
            "Features must be two arrays (examples, width) of the same width. Received: "
            f"shapes {train.shape} to train with and {test.shape} to test"
        )
    return (
        train,
        check_labels(train_labels, len(train), "train_labels"),
        test,
        check_labels(test_labels, len(test), "test_labels"),
    )


def check_labels(labels: ArrayLike, examples: int, name: str) -> NDArray:
    """Returns labels as an int64 array; raises a ValueError if they are no classes."""
    labels = np.asarray(labels)
    if labels.shape != (examples,) or not examples or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` must be a whole number for each example, of at least one. Received: "
            f"{name} of shape {labels.shape} and type {labels.dtype}, {examples} examples"
        )
    if labels.min() < 0:
        raise ValueError(
            f"`{name}` must be classes from 0. Received: {name} with {labels.min()}"
        )
    return labels.astype(np.int64)


def count_classes(num_classes: int | None, *labels: NDArray) -> int:
    """Returns `num_classes`, or one more than the largest label for `None`.

    Raises:
        ValueError: if a label is no class of so few.
    """
    largest = max(int(array.max()) for array in labels)
    if num_classes is None:
        return largest + 1
    if num_classes <= largest:
        raise ValueError(
            "`num_classes` must be more than the largest label. Received: "
            f"num_classes={num_classes} and the label {largest}"
        )
    return num_classes


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


def check_finite(numbers: NDArray, name: str) -> None:
    """Raises a ValueError if some of the numbers (examples, width) are not finite."""
    rows = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(rows):
        raise ValueError(
            f"`{name}` must be finite numbers. Received: {len(rows)} rows with NaN or "
            f"infinity, {listed(map(str, rows))}. A model that overflows in float16 gives "
            "such numbers: compute them in float32 or bfloat16."
        )


def check_seeds(seeds: object) -> tuple[int, ...]:
    """Returns one seed or several as a tuple.

    Raises:
        ValueError: if there is none, one is no whole number from 0, or one comes twice.
    """
    found = tuple(np.atleast_1d(np.asarray(seeds)).tolist())
    is_seed = [type(seed) is int and seed >= 0 for seed in found]
    if not found or not all(is_seed) or len(set(found)) < len(found):
        raise ValueError(
            "`seeds` must be whole numbers from 0, each once: two runs of one seed are the "
            f"same run. Received: seeds={seeds!r}"
        )
    return found
