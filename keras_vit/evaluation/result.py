"""The result of a protocol: accuracies with intervals, and a table of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_vit.intervals import student_interval, wilson_interval
from keras_vit.tables import percent, percent_range, table

SEEDS = "seeds"


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """Predictions of a protocol's classifiers, with one classifier for each setting.

    With one seed, or none, the interval of an accuracy is Wilson's, of the finite number of
    test examples (`keras_vit.intervals.wilson_interval`). With several seeds it is
    Student's, of the mean over them (`student_interval`): it tells how far the draw of
    the training examples moves the mean, for these test examples.

    `print(result)` shows a row for each setting, the mean over the seeds and its interval.

    Attributes:
        protocol: name of the protocol.
        settings: values of each setting by its name, in the order of the axes below; such
            as `{"seeds": (0, 1), "shots": (1, 5), "l2": (1024.0,)}`.
        predictions: int array (one axis for each setting, test examples), the classes.
        labels: int array (test examples,), the true classes.
        chosen: the choice that the protocol made, if it makes one; see there.
        validation: the result on validation examples, if the protocol chose by it.
        notes: sentences that are printed below the table.
    """

    protocol: str
    settings: Mapping[str, Sequence[Any]]
    predictions: NDArray[Any]
    labels: NDArray[Any]
    chosen: Any = None
    validation: "ProtocolResult | None" = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        shape = (*map(len, self.settings.values()), len(self.labels))
        seeds_first = SEEDS not in self.settings or next(iter(self.settings)) == SEEDS
        if self.predictions.shape != shape or not seeds_first:
            raise ValueError(
                f"Predictions must have the shape {shape} of the settings, seeds first, "
                f"and examples. Received: {self.predictions.shape} of {self.settings}"
            )

    @cached_property
    def correct(self) -> NDArray[Any]:
        """Number of correct predictions for each setting, an int array."""
        return (self.predictions == self.labels).sum(axis=-1)

    @property
    def accuracy(self) -> NDArray[Any]:
        """Share of correct predictions for each setting; few-shot (seeds, shots, l2)."""
        return self.correct / len(self.labels)

    @property
    def mean_accuracy(self) -> NDArray[Any]:
        """Mean of `accuracy` over the seeds, an axis less."""
        return self.accuracy.mean(axis=0) if SEEDS in self.settings else self.accuracy

    @property
    def interval(self) -> NDArray[Any]:
        """The 95 % interval of `mean_accuracy`: its shape and (low, high)."""
        runs = self.correct if SEEDS in self.settings else self.correct[None]
        intervals = np.apply_along_axis(self._interval_of, 0, runs)  # (2, settings)
        return np.moveaxis(intervals, 0, -1)

    def _interval_of(self, correct):
        """(low, high) of the runs that differ in their seed alone."""
        total = len(self.labels)
        if len(correct) == 1:
            return np.array(wilson_interval(int(correct[0]), total))
        return np.clip(student_interval(correct / total), 0, 1)

    @property
    def interval_name(self) -> str:
        """Name of the interval, and what it is over."""
        seeds = len(self.settings.get(SEEDS, "1"))
        if seeds > 1:
            return f"Student's t over {seeds} seeds"
        return f"Wilson, of {len(self.labels):,} test examples"

    def rows(self) -> list[dict[str, Any]]:
        """Each setting with `accuracy`, `accuracy_low` and `accuracy_high`, for JSON.

        With several seeds, `accuracy` is their mean, and `accuracy_by_seed` lists them.
        """
        names = [name for name in self.settings if name != SEEDS]
        by_seed = self.accuracy if SEEDS in self.settings else self.accuracy[None]
        rows = []
        for index in np.ndindex(self.mean_accuracy.shape):
            values = [self.settings[n][i] for n, i in zip(names, index, strict=True)]
            low, high = self.interval[index].tolist()
            row = dict(zip(names, values, strict=True))
            row["accuracy"] = float(self.mean_accuracy[index])
            row |= {"accuracy_low": low, "accuracy_high": high}
            if len(by_seed) > 1:
                row["accuracy_by_seed"] = by_seed[:, *index].tolist()
            rows.append(row)
        return rows

    def summary(self) -> dict[str, Any]:
        """The numbers by name, for JSON."""
        summary: dict[str, Any] = {
            "protocol": self.protocol,
            "test_examples": len(self.labels),
            "interval": self.interval_name,
            "results": self.rows(),
        }
        if SEEDS in self.settings:
            summary[SEEDS] = list(self.settings[SEEDS])
        if self.validation is not None:
            summary["validation"] = self.validation.summary()
        if self.notes:
            summary["notes"] = list(self.notes)
        return summary

    def __str__(self) -> str:
        names = [name for name in self.settings if name != SEEDS]
        rows = [(*names, "accuracy", "95 % interval")]
        for row in self.rows():
            interval = percent_range(row["accuracy_low"], row["accuracy_high"])
            settings = [f"{row[name]:g}" for name in names]
            rows.append((*settings, percent(row["accuracy"]), interval))
        head = f"{self.protocol}; intervals: {self.interval_name}"
        chosen_by = [] if self.validation is None else [str(self.validation)]
        return "\n".join([head, table(rows, left=()), *self.notes, *chosen_by])
