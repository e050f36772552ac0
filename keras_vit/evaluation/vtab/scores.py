"""Scores on VTAB's tasks: accuracies, their means, and what has none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_vit.evaluation.vtab.tasks import GROUPS, TASKS
from keras_vit.intervals import wilson_interval
from keras_vit.tables import percent, percent_range, table


@dataclass(frozen=True)
class TaskScore:
    """Accuracy on all test examples of a task.

    Attributes:
        correct: number of test examples that are classified correctly.
        examples: number of test examples.
        details: what the protocol chose or measured on the way, by name, for JSON.
    """

    correct: int
    examples: int
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of correct test examples."""
        return self.correct / self.examples

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, Wilson's, of the number of test examples."""
        return wilson_interval(self.correct, self.examples)


@dataclass(frozen=True)
class Mean:
    """Mean of the accuracies of tasks.

    Attributes:
        accuracy: the mean; `None` if no task has a score.
        tasks: number of tasks with a score.
        of: number of tasks that VTAB has there.
    """

    accuracy: float | None
    tasks: int
    of: int

    @property
    def is_complete(self) -> bool:
        """`True` if all tasks count: only such means compare with published ones."""
        return self.tasks == self.of

    @property
    def count(self) -> str:
        """The number of tasks that count, such as `"7 tasks"` or `"3 of 7 tasks"`."""
        return (
            f"{self.of} tasks" if self.is_complete else f"{self.tasks} of {self.of} tasks"
        )

    def __str__(self) -> str:
        share = percent(self.accuracy)
        return share if self.is_complete else f"{share} ({self.count})"


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of a model on VTAB's tasks.

    The mean of VTAB is that of the nineteen accuracies; the paper also gives the mean of
    each group. `print(scores)` shows a table.

    Attributes:
        protocol: name of the protocol.
        scores: `TaskScore` of each task that has one, by name.
        missing: for each task whose data is not prepared, the command that prepares it.
        failed: for each task that has failed, the error.
    """

    protocol: str
    scores: Mapping[str, TaskScore]
    missing: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def mean(self, group: str | None = None) -> Mean:
        """The mean of a group's tasks, or of all nineteen for `None`.

        It counts the tasks that have a score; `is_complete` tells if these are all.
        """
        names = [name for name, t in TASKS.items() if group in (None, t.group)]
        found = [self.scores[name].accuracy for name in names if name in self.scores]
        mean = sum(found) / len(found) if found else None
        return Mean(mean, len(found), len(names))

    def summary(self) -> dict[str, Any]:
        """The numbers by name, for JSON."""
        tasks = {}
        for name in TASKS:
            if score := self.scores.get(name):
                low, high = score.interval
                numbers = {"accuracy": score.accuracy, "correct": score.correct}
                numbers |= {"examples": score.examples, **score.details}
                numbers |= {"accuracy_low": low, "accuracy_high": high}
                tasks[name] = {"group": TASKS[name].group, **numbers}
        means = {group: vars(self.mean(group)) for group in GROUPS}
        return {
            "protocol": self.protocol,
            "tasks": tasks,
            "means": {**means, "all": vars(self.mean())},
            "missing": dict(self.missing),
            "failed": dict(self.failed),
        }

    def rows(self, group: str | None = None) -> list[tuple[str, ...]]:
        """Name, accuracy, interval and test examples, as text, of each task with a score.

        Args:
            group: the group of the tasks; `None` for all.
        """
        rows = []
        for name, task in TASKS.items():
            if name in self.scores and group in (None, task.group):
                score = self.scores[name]
                share, interval = percent(score.accuracy), percent_range(*score.interval)
                rows.append((name, share, interval, f"{score.examples:,}"))
        return rows

    def __str__(self) -> str:
        rows = [("task", "accuracy", "95 % interval", "test examples")]
        for group in GROUPS:
            rows += [(f"  {name}", *numbers) for name, *numbers in self.rows(group)]
            rows.append(_mean_row(group, self.mean(group)))
        rows.append(_mean_row("all", self.mean()))
        lines = [f"VTAB-1k, protocol {self.protocol}", table(rows, left=(0,))]
        lines += [f"failed {name}: {error}" for name, error in self.failed.items()]
        for command in dict.fromkeys(self.missing.values()):
            names = [name for name, other in self.missing.items() if other == command]
            lines.append(f"missing {', '.join(names)}: {command}")
        return "\n".join(lines)


def _mean_row(name, mean) -> tuple[str, ...]:
    return f"mean, {name}", percent(mean.accuracy), "", mean.count
