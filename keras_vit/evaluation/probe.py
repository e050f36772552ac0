"""Linear probe: logistic regression on features, its regularisation chosen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vit.data.wording import listed
from keras_vit.evaluation.checks import (
    check_examples,
    check_features,
    check_finite,
    check_labels,
    check_number,
    check_numbers,
    check_seeds,
)
from keras_vit.evaluation.result import ProtocolResult
from keras_vit.extras import require

_ROWS = 16_384  # read and standardised at once


def linear_probe(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    l2: float | Sequence[float] = (0.01, 1.0, 100.0, 10_000.0),
    validation_split: float = 0.2,
    validation_data: tuple[ArrayLike, ArrayLike] | None = None,
    seed: int = 0,
    standardize: bool = True,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
) -> ProtocolResult:
    """Accuracy of a multinomial logistic regression on all training examples.

    scikit-learn's `LogisticRegression(C=1 / l2)` with its L-BFGS minimises the sum of the
    cross-entropies and l2 / 2 times the squared weights; the bias is not regularised. Of
    several `l2` the one with the best accuracy on validation examples is chosen, the
    largest of equal ones, and the classifier is fitted again to the training and
    validation examples together. Features are standardised, as by `StandardScaler`, with
    the mean and standard deviation of the examples that the classifier is fitted to.

    Computes in float64 for features in float64, else in float32. The memory is that of one
    standardised copy of the training features, and of three arrays (training examples,
    classes); memory-mapped features are read in blocks.

    Source: the logistic regression of CLIP (arXiv 2103.00020, appendix A.3), which also
    sweeps the regularisation on validation examples and fits to all of them at the end.

    Args:
        train_features: array (examples, width).
        train_labels: int array (examples,), classes from 0.
        test_features: array (test examples, width).
        test_labels: int array (test examples,).
        l2: regularisations to choose from; a single one is taken without a choice.
        validation_split: share of the training examples that the choice is made on, drawn
            class by class; unused with `validation_data`.
        validation_data: features and labels that the choice is made on instead.
        seed: seed of the draw.
        standardize: whether to standardise the features.
        tolerance: largest element of the gradient at which L-BFGS ends.
        max_iterations: iterations of L-BFGS after which it ends in any case, with
            scikit-learn's warning.

    Returns:
        A `ProtocolResult` with the axis (l2,) of the chosen one. `chosen` is that number,
        `validation` the result of each `l2` on the validation examples.

    Raises:
        ImportError: if scikit-learn is missing.
        ValueError: if the arrays do not match, a number is not positive, there is one class
            alone, or the training examples cannot be split.
    """
    require("sklearn", "A linear probe", "evaluation")
    arrays = check_examples(train_features, train_labels, test_features, test_labels)
    train, train_labels, test, test_labels = arrays
    fitting = {
        "standardize": standardize,
        "tol": check_number(tolerance, "tolerance"),
        "max_iter": check_number(max_iterations, "max_iterations", whole=True),
    }
    grid = check_numbers(l2, "l2")
    examples = [_Examples(train, train_labels, "train_features")]
    if validation_data is not None:
        examples.append(_validation_examples(train, validation_data))
    validation, notes = None, []
    if len(grid) > 1:
        parts = examples if len(examples) > 1 else _split(*examples, validation_split, seed)
        validation = _try_each(*parts, grid, fitting)
    chosen = grid[0] if validation is None else _best(validation.accuracy, grid)
    if validation is not None and chosen in (min(grid), max(grid)):
        end, way = ("smallest", "smaller") if chosen == min(grid) else ("largest", "larger")
        notes.append(f"The chosen l2 is the {end} of those tried: try {way} ones, too.")
    probe = _Probe(examples, **fitting)
    predictions = probe.predictions(chosen, _Examples(test, test_labels, "test_features"))
    return ProtocolResult(
        "linear probe",
        {"l2": (chosen,)},
        predictions[None],
        test_labels,
        chosen,
        validation,
        (*notes, *probe.notes),
    )


class _Examples:
    """Rows of features with their labels, read in blocks.

    Args:
        features: array (examples, width).
        labels: int array (examples,).
        name: name of the features in errors.
        rows: indices of the rows, in rising order; `None` for all.
    """

    def __init__(self, features, labels, name, rows=None):
        self.features, self.name, self.rows = features, name, rows
        self.labels = labels if rows is None else labels[rows]

    @property
    def dtype(self):
        """The type to compute in."""
        return np.float64 if self.features.dtype == np.float64 else np.float32

    def blocks(self):
        """Float arrays (rows, width)."""
        for start in range(0, len(self.labels), _ROWS):
            block = slice(start, start + _ROWS)
            rows = block if self.rows is None else self.rows[block]
            features = np.asarray(self.features[rows], self.dtype)
            check_finite(features, self.name)
            yield features


def _validation_examples(train, data) -> _Examples:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(
            "`validation_data` must be a pair (features, labels). Received: a "
            f"{type(data).__name__}"
            + (f" of {len(data)}" if isinstance(data, tuple | list) else "")
        )
    features, labels = check_features(data[0], "features of validation_data"), data[1]
    if features.shape[1] != train.shape[1]:
        raise ValueError(
            "Features of `validation_data` must have the shape (examples, "
            f"{train.shape[1]}), as those to train with. Received: shape {features.shape}"
        )
    labels = check_labels(labels, len(features), "labels of validation_data")
    return _Examples(features, labels, "validation_data")


def _split(examples, share, seed) -> tuple[_Examples, _Examples]:
    """Examples to fit and to choose by, each class split alike."""
    split = require("sklearn.model_selection", "A linear probe", "evaluation")
    labels = examples.labels
    (seed,) = check_seeds(seed, "seed")
    share = float(check_number(share, "validation_split"))  # of scikit-learn an int counts
    names = listed(f"class {c}" for c in np.flatnonzero(np.bincount(labels) == 1))
    way_out = "Give `validation_data`, or a single `l2`, which needs no choice."
    if names:
        raise ValueError(
            "Each class must have two training examples, as one is kept to choose the l2. "
            f"Received: one example of {names}. {way_out}"
        )
    try:
        parts = split.train_test_split(
            np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise ValueError(
            "`validation_split` must leave examples of each class in both parts. Received: "
            f"validation_split={share} ({error}). {way_out}"
        ) from error
    fit, validation = (
        _Examples(examples.features, labels, examples.name, np.sort(part)) for part in parts
    )
    return fit, validation


def _try_each(fit, validation, grid, fitting) -> ProtocolResult:
    """Result of each l2 on the validation examples."""
    probe = _Probe([fit], **fitting)
    predictions = np.stack([probe.predictions(l2, validation) for l2 in grid])
    name = "linear probe, validation"
    settings = {"l2": grid}
    return ProtocolResult(name, settings, predictions, validation.labels, notes=probe.notes)


def _best(accuracy, grid) -> float:
    """The l2 with the best accuracy, the largest of equal ones."""
    return max(zip(accuracy, grid, strict=True))[1]


class _Probe:
    """Standardised training examples, and classifiers that are fitted to them.

    Args:
        parts: the examples, one or two parts.
        standardize: whether to standardise the features.
        **options: arguments of `LogisticRegression`.
    """

    def __init__(self, parts: list[_Examples], standardize: bool, **options: Any):
        preprocessing = require("sklearn.preprocessing", "A linear probe", "evaluation")
        self.options, self.notes = options, []
        self.labels = np.concatenate([part.labels for part in parts])
        if len(np.unique(self.labels)) < 2:
            raise ValueError(
                "A linear probe needs training examples of two classes. Received: examples "
                f"of class {self.labels[0]} alone"
            )
        self.scaler = None
        if standardize:
            self.scaler = preprocessing.StandardScaler()
            for part in parts:
                for block in part.blocks():
                    self.scaler.partial_fit(block)
        self.features = self._standardized(parts)

    def _standardized(self, parts) -> NDArray[Any]:
        """The only copy of the features: (examples, width)."""
        shape = len(self.labels), parts[0].features.shape[1]
        features = np.empty(shape, np.result_type(*(part.dtype for part in parts)))
        start = 0
        for part in parts:
            for block in part.blocks():
                features[start : start + len(block)] = self._scaled(block)
                start += len(block)
        return features

    def _scaled(self, block):
        return block if self.scaler is None else self.scaler.transform(block)

    def predictions(self, l2: float, examples: _Examples) -> NDArray[Any]:
        """Predicted classes (examples,) of the classifier with this l2."""
        models = require("sklearn.linear_model", "A linear probe", "evaluation")
        model = models.LogisticRegression(C=1 / l2, **self.options)
        model.fit(self.features, self.labels)
        if model.n_iter_.max() >= self.options["max_iter"]:
            self.notes.append(
                f"L-BFGS had not converged at l2={l2:g} after {model.n_iter_.max()} "
                f"iterations on {len(self.labels):,} examples."
            )
        blocks = examples.blocks()
        return np.concatenate([model.predict(self._scaled(block)) for block in blocks])
