"""Nearest neighbours: a vote of the most similar training examples."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vit.evaluation.checks import (
    check_examples,
    check_finite,
    check_number,
    check_numbers,
    count_classes,
)
from keras_vit.evaluation.result import ProtocolResult
from keras_vit.evaluation.unit_vectors import unit_vectors

# Rows compared at once: 2048 × 16,384 similarities in float32 are 134 MB.
_TEST_ROWS = 2048
_FIRST_ROWS, _TRAIN_ROWS = 1024, 16_384
_VOTING_ROWS = 256  # test examples times classes: 45 MB for ImageNet-21k


def nearest_neighbors(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    k: Sequence[int] = (10, 20),
    temperature: float | None = 0.07,
    num_classes: int | None = None,
) -> ProtocolResult:
    """Accuracy of a vote of the `k` training examples that are most similar.

    The similarity is the cosine of two features, and a vote counts exp(similarity /
    temperature). The class with the most votes is the prediction, the first of several.

    Every pair is compared, a block at a time, and of each test example only the best are
    kept: the memory is some 500 MB beside the features, of which memory-mapped ones are
    read in blocks. The similarities are computed in float64 for features in float64, else
    in float32, as scikit-learn's `KNeighborsClassifier(metric="cosine")` does; both may
    order examples otherwise that differ by less than the rounding. Of equally similar
    examples the first counts.

    Source: Wu et al. (arXiv 1805.01978, section 3.4), with the numbers of DINO (arXiv
    2104.14294, appendix F.1).

    Args:
        train_features: array (examples, width).
        train_labels: int array (examples,), classes from 0.
        test_features: array (test examples, width).
        test_labels: int array (test examples,).
        k: numbers of neighbours.
        temperature: temperature of the votes; `None` for votes that count the same.
        num_classes: number of classes; `None` for one more than the largest label.

    Returns:
        A `ProtocolResult` with the axis (k,).

    Raises:
        ValueError: if the arrays do not match, a number is not positive, or there are fewer
            training examples than neighbours.
    """
    arrays = check_examples(train_features, train_labels, test_features, test_labels)
    train, train_labels, test, test_labels = arrays
    num_classes = count_classes(num_classes, train_labels, test_labels)
    k = check_numbers(k, "k", whole=True)
    if temperature is not None:
        temperature = check_number(temperature, "temperature")
    if max(k) > len(train):
        raise ValueError(
            "`k` must be at most the number of training examples. Received: "
            f"k={max(k)} and {len(train)} examples"
        )
    similarities, indices = _search(train, test, max(k))
    predictions = np.empty((len(k), len(test)), np.int64)
    for rows in _blocks(len(test), _VOTING_ROWS, _VOTING_ROWS):
        labels, weights = train_labels[indices[rows]], np.ones(indices[rows].shape)
        if temperature is not None:
            # Divided by the largest vote, which changes none and cannot overflow.
            relative = similarities[rows].astype(np.float64) - similarities[rows, :1]
            weights = np.exp(relative / temperature)
        for number, own in zip(k, predictions, strict=True):
            votes = _votes(labels[:, :number], weights[:, :number], num_classes)
            own[rows] = votes.argmax(axis=1)
    vote = "the same" if temperature is None else f"exp(cosine / {temperature:g})"
    protocol = f"nearest neighbours, votes count {vote}, {num_classes} classes"
    return ProtocolResult(protocol, {"k": k}, predictions, test_labels)


def _search(train, test, k) -> tuple[NDArray, NDArray]:
    """(similarities, indices) of the `k` best for each test example, the best first."""
    is_double = np.float64 in (train.dtype, test.dtype)
    dtype = np.float64 if is_double else np.float32
    best = np.full((len(test), k), -np.inf, dtype)
    indices = np.zeros((len(test), k), np.int64)
    # Most of a later block is less similar than the k best so far. The first block is
    # small, as nothing is known then, and all of it is sorted.
    for columns in _blocks(len(train), max(k, _FIRST_ROWS), _TRAIN_ROWS):
        block = _unit(train[columns], dtype, "train_features")
        for rows in _blocks(len(test), _TEST_ROWS, _TEST_ROWS):
            similarities = _unit(test[rows], dtype, "test_features") @ block.T
            _keep_best(best[rows], indices[rows], similarities, columns.start)
    return best, indices


def _blocks(total, first, most) -> Iterator[slice]:
    """Slices of `total` rows; each is twice as long as the one before, up to `most`."""
    start, size = 0, first
    while start < total:
        yield slice(start, min(start + size, total))
        start, size = start + size, max(first, min(2 * size, most))


def _unit(features, dtype, name) -> NDArray:
    features = np.asarray(features, dtype)
    check_finite(features, name)
    return unit_vectors(features)


def _keep_best(best, indices, similarities, offset) -> None:
    """Merges the similarities of a block into the best so far, in place.

    Args:
        best: array (rows, k), sorted, the largest first.
        indices: int array (rows, k), of the training examples.
        similarities: array (rows, columns).
        offset: index of the first column among the training examples.
    """
    k = best.shape[1]
    rows, columns = np.nonzero(similarities > best[:, -1:])
    if not len(rows):
        return
    counts = np.bincount(rows, minlength=len(best))
    # Found ones move to the left, behind the best: (rows, k + most in a row).
    place = k + np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    candidates = np.full((len(best), k + counts.max()), -np.inf, best.dtype)
    candidates[:, :k], candidates[rows, place] = best, similarities[rows, columns]
    of_candidates = np.zeros(candidates.shape, np.int64)
    of_candidates[:, :k], of_candidates[rows, place] = indices, offset + columns
    # Stable: of equals the first stays first.
    order = np.argsort(-candidates, axis=1, kind="stable")[:, :k]
    best[:] = np.take_along_axis(candidates, order, axis=1)
    indices[:] = np.take_along_axis(of_candidates, order, axis=1)


def _votes(labels, weights, num_classes) -> NDArray:
    """Sum of the weights for each class: (rows, classes)."""
    rows = np.arange(len(labels))[:, None] * num_classes
    flat = np.bincount((rows + labels).ravel(), weights.ravel(), len(rows) * num_classes)
    return flat.reshape(-1, num_classes)
