"""Statistics of predictions: accuracy with an interval, classes, confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keras_vit.data.wording import listed
from keras_vit.intervals import wilson_interval
from keras_vit.tables import percent, percent_range

# Zero probabilities count as this in the loss. It is below any that a training's logits
# give, as Keras computes the loss from logits, without a bound.
_SMALLEST = float(np.finfo("float32").tiny)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """True classes and predicted probabilities, and the statistics of both.

    Args:
        labels: int array (examples,), the true classes.
        probabilities: float array (examples, classes).
        class_names: a name for each class.

    Raises:
        ValueError: if the shapes do not match, a label is not a class, or there are no
            examples.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    class_names: Sequence[str]

    def __post_init__(self) -> None:
        labels, probabilities = np.asarray(self.labels), np.asarray(self.probabilities)
        expected = (*labels.shape, len(self.class_names))
        if labels.ndim != 1 or probabilities.shape != expected or not labels.size:
            raise ValueError(
                "An evaluation needs labels (examples,) and probabilities (examples, "
                f"classes) of at least one example. Received: shapes {labels.shape} and "
                f"{probabilities.shape}, {len(self.class_names)} class names"
            )
        if labels.min() < 0 or labels.max() >= len(self.class_names):
            raise ValueError(
                f"Labels must be from 0 to {len(self.class_names) - 1}, as there are "
                f"{len(self.class_names)} classes. Received: {labels.min()} to "
                f"{labels.max()}"
            )
        object.__setattr__(self, "labels", labels.astype(np.int64))
        object.__setattr__(self, "probabilities", probabilities)

    @property
    def num_examples(self) -> int:
        return len(self.labels)

    @cached_property
    def predictions(self) -> np.ndarray:
        """The most probable class of each example."""
        return self.probabilities.argmax(axis=1)

    @property
    def num_correct(self) -> int:
        return int((self.predictions == self.labels).sum())

    @property
    def accuracy(self) -> float:
        return self.num_correct / self.num_examples

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, see `wilson_interval`."""
        return wilson_interval(self.num_correct, self.num_examples)

    @property
    def top_5_accuracy(self) -> float | None:
        """Share with the true class among the best five; `None` below 6 classes."""
        if len(self.class_names) < 6:
            return None
        # Stable: of equal probabilities the first class comes first, as in argmax.
        best = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :5]
        return float((best == self.labels[:, None]).any(axis=1).mean())

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have examples.

        A model that always predicts the most frequent class can have a high accuracy; its
        balanced accuracy is one divided by the number of classes.
        """
        return _mean([row.recall for row in self.by_class() if row.examples])

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have examples."""
        return _mean([row.f1 for row in self.by_class() if row.examples])

    @property
    def absent_classes(self) -> list[str]:
        """Names of the classes without examples, which the means over classes leave out."""
        return [row.name for row in self.by_class() if not row.examples]

    @property
    def loss(self) -> float:
        """Mean cross-entropy of the true classes, without label smoothing."""
        of_truth = self.probabilities[np.arange(self.num_examples), self.labels]
        return float(-np.log(np.maximum(of_truth.astype("float64"), _SMALLEST)).mean())

    @cached_property
    def confusion(self) -> np.ndarray:
        """Confusion matrix: examples by true class (row) and predicted class (column)."""
        size = len(self.class_names)
        flat = np.bincount(self.labels * size + self.predictions, minlength=size * size)
        return flat.reshape(size, size)

    def by_class(self) -> list["ClassResult"]:
        """The result of each class, in the order of the classes."""
        correct = self.confusion.diagonal()
        examples, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        rows = zip(self.class_names, examples, predicted, correct, strict=True)
        return [ClassResult(name, *map(int, numbers)) for name, *numbers in rows]

    def confusions(self, most: int) -> list[tuple[int, int, int]]:
        """(true class, predicted class, examples) of the most frequent confusions."""
        wrong = self.confusion - np.diag(self.confusion.diagonal())
        rows, columns = np.nonzero(wrong)
        counts = wrong[rows, columns]
        order = np.argsort(-counts, kind="stable")[:most]
        return [(int(rows[i]), int(columns[i]), int(counts[i])) for i in order]

    def confident_mistakes(self, most: int) -> np.ndarray:
        """Indices of the mistakes with the highest probability, the highest first."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        confidence = self.probabilities[wrong, self.predictions[wrong]]
        return wrong[np.argsort(-confidence, kind="stable")[:most]]

    def summary(self) -> dict[str, object]:
        """The statistics over all classes by name, for JSON."""
        low, high = self.interval
        summary = {
            "examples": self.num_examples,
            "correct": self.num_correct,
            "accuracy": self.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "loss": self.loss,
        }
        if (top_5 := self.top_5_accuracy) is not None:
            summary["top_5_accuracy"] = top_5
        if absent := self.absent_classes:
            summary["classes_without_examples"] = absent
        return summary


@dataclass(frozen=True)
class ClassResult:
    """The result of one class.

    Args:
        name: name of the class.
        examples: number of examples of the class.
        predicted: number of examples predicted as the class.
        correct: number of both.
    """

    name: str
    examples: int
    predicted: int
    correct: int

    @property
    def precision(self) -> float | None:
        """Share of the predicted examples that are correct; `None` without any."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """Share of the examples that are predicted correctly; `None` without any."""
        return self.correct / self.examples if self.examples else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; `None` if the class never occurs."""
        both = self.examples + self.predicted
        return 2 * self.correct / both if both else None


def _mean(shares: Sequence[float]) -> float:
    return float(np.mean(shares))


def accuracy_text(evaluation: Evaluation) -> str:
    """Accuracy, its interval and the number of examples, in one line."""
    return (
        f"{percent(evaluation.accuracy)} (95 % interval "
        f"{percent_range(*evaluation.interval)}; "
        f"{evaluation.num_correct:,} of {evaluation.num_examples:,})"
    )


def absent_note(evaluation: Evaluation) -> str:
    """A phrase that names the classes without examples; `""` without any."""
    if not (absent := evaluation.absent_classes):
        return ""
    return (
        f"without images, so left out of balanced accuracy and macro F1: {listed(absent)}"
    )
