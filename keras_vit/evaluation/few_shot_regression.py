"""Few-shot linear evaluation: a regression on a few examples of each class."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vit.arguments import one_of
from keras_vit.data.wording import listed
from keras_vit.evaluation.checks import (
    check_examples,
    check_finite,
    check_numbers,
    check_seeds,
    count_classes,
)
from keras_vit.evaluation.result import ProtocolResult

BIAS = 100.0  # the constant feature; it is regularised like the others
FEWER = ("all", "error")
_TEST_ROWS = 4096  # scored at once: 33 MB of scores for a thousand classes


def few_shot(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    shots: Sequence[int] = (1, 5, 10, 25),
    l2: Sequence[float] = (1024.0,),
    seeds: Sequence[int] = (0,),
    num_classes: int | None = None,
    fewer: str = "all",
) -> ProtocolResult:
    """Accuracy of a linear regression on a few training examples of each class.

    Features are whitened by the mean and the standard deviation (+ 1e-5) of the chosen
    examples, and a constant feature of 100 is the bias. The targets are 1 for the class and
    -1 for the others, and the least squares with `l2` times the squared weights are solved
    in closed form. The class with the largest output is the prediction.

    Everything is computed in float64, whatever the l2. In float32 the largest eigenvalue,
    10,000 times the number of examples by the constant feature, is rounded by more than a
    small l2: up to 0.5 % of the predictions changed at an l2 of 1 and below (256 features,
    5 shots of 20 classes), none at 1024. float64 took no longer: 1.8 s for 25 shots of
    1000 classes and 50,000 test examples of 768 features on two cores.

    Source: the few-shot evaluation of the ViT paper (arXiv 2010.11929, section 4.1), as
    big_vision's `evaluators/fewshot_lsr.py` computes it; the same examples are chosen for
    the same seed, and the predictions are the same.

    Args:
        train_features: array (examples, width); a memory-mapped one is read in part.
        train_labels: int array (examples,), classes from 0.
        test_features: array (test examples, width).
        test_labels: int array (test examples,).
        shots: numbers of training examples of each class.
        l2: regularisations; the papers report 2¹⁰.
        seeds: seeds of the choice of examples.
        num_classes: number of classes; `None` for one more than the largest label.
        fewer: use of a class with fewer examples than a number of shots: `"all"` that it
            has, as big_vision does, which a note of the result says; or `"error"`.

    Returns:
        A `ProtocolResult` with the axes (seeds, shots, l2). `chosen` is an int array
        (seeds, shots, most examples): indices of the chosen training examples, class by
        class, and -1 behind their end.

    Raises:
        ValueError: if the arrays do not match, a number is not positive, or with
            fewer="error" a class has fewer examples than a number of shots.
    """
    arrays = check_examples(train_features, train_labels, test_features, test_labels)
    train, train_labels, test, test_labels = arrays
    num_classes = count_classes(num_classes, train_labels, test_labels)
    shots, l2 = check_numbers(shots, "shots", whole=True), check_numbers(l2, "l2")
    seeds = check_seeds(seeds)
    one_of(fewer, FEWER, "fewer")
    scarce = _scarce(train_labels, num_classes, max(shots))
    if scarce and fewer == "error":
        raise ValueError(
            "Each class must have as many training examples as the most shots, "
            f"{max(shots)}. Received: {scarce}. Give smaller `shots`, or fewer='all' to "
            "use all that such a class has."
        )
    notes = [f"Fewer examples than {max(shots)} shots: {scarce}."] if scarce else []
    chosen = [
        [_choose(train_labels, num_classes, n, seed) for n in shots] for seed in seeds
    ]
    shape = (len(seeds), len(shots), len(l2), len(test))
    predictions = np.empty(shape, np.int64)
    for of_seed, seed_predictions in zip(chosen, predictions, strict=True):
        for examples, own in zip(of_seed, seed_predictions, strict=True):
            features = _float64(train[examples], "train_features")
            regressions = _Regressions(features, train_labels[examples], num_classes, l2)
            regressions.predict(test, own)
    settings = {"seeds": seeds, "shots": shots, "l2": l2}
    name = f"few-shot regression, {num_classes} classes"
    return ProtocolResult(
        name, settings, predictions, test_labels, _padded(chosen), notes=notes
    )


def _scarce(labels, num_classes, shots) -> str:
    """Names the classes with fewer examples than `shots`; `""` if there is none."""
    counts = np.bincount(labels, minlength=num_classes)
    scarce = np.flatnonzero(counts < shots)
    return listed(f"class {label} has {counts[label]}" for label in scarce)


def _choose(labels, num_classes, shots, seed) -> NDArray:
    """Indices of the first `shots` of each class, in an order drawn with the seed."""
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(num_classes + 1))
    classes = [order[a:b] for a, b in itertools.pairwise(starts) if a < b]
    return np.concatenate([rng.permutation(indices)[:shots] for indices in classes])


def _padded(chosen) -> NDArray:
    """Arrays of several lengths as one, with -1 behind their ends."""
    longest = max(len(indices) for of_seed in chosen for indices in of_seed)
    padded = np.full((len(chosen), len(chosen[0]), longest), -1)
    for of_seed, rows in zip(chosen, padded, strict=True):
        for indices, row in zip(of_seed, rows, strict=True):
            row[: len(indices)] = indices
    return padded


def _float64(features, name) -> NDArray:
    features = np.asarray(features, np.float64)
    check_finite(features, name)
    return features


class _Regressions:
    """Linear regressions of the classes on the same examples, one for each `l2`.

    As the whitened features have the mean zero, they are orthogonal to the constant
    feature. So the bias is solved alone, and its large eigenvalue, 100² times the number
    of examples, stays out of the matrix that is decomposed.

    Args:
        features: float64 array (examples, width).
        labels: int array (examples,).
        num_classes: number of classes.
        l2: regularisations.
    """

    def __init__(self, features, labels, num_classes, l2):
        self.mean, self.scale = features.mean(axis=0), features.std(axis=0) + 1e-5
        whitened = (features - self.mean) / self.scale
        targets = np.full((len(labels), num_classes), -1.0)
        targets[np.arange(len(labels)), labels] = 1.0
        total = targets.sum(axis=0)  # (classes,)
        self.biases = [BIAS**2 * total / (BIAS**2 * len(labels) + one) for one in l2]
        self.weights = _ridge(whitened, targets, l2)

    def predict(self, features: NDArray, predictions: NDArray) -> None:
        """Fills `predictions` (l2, examples) with the classes of the features."""
        for start in range(0, len(features), _TEST_ROWS):
            rows = slice(start, start + _TEST_ROWS)
            whitened = _float64(features[rows], "test_features")
            whitened = (whitened - self.mean) / self.scale
            solutions = zip(self.weights, self.biases, predictions, strict=True)
            for weights, bias, own in solutions:
                own[rows] = (whitened @ weights + bias).argmax(axis=1)


def _ridge(features, targets, l2) -> list[NDArray]:
    """Weights (width, classes) of least squares with each l2.

    (XᵀX + l2)⁻¹ Xᵀ = Xᵀ (XXᵀ + l2)⁻¹: the smaller of the two matrices is decomposed, once
    for all l2.
    """
    examples, width = features.shape
    if examples >= width:
        values, vectors = np.linalg.eigh(features.T @ features)
        projected = vectors.T @ (features.T @ targets)
    else:
        values, vectors = np.linalg.eigh(features @ features.T)
        projected, vectors = vectors.T @ targets, features.T @ vectors
    return [vectors @ (projected / (values + one)[:, None]) for one in l2]
