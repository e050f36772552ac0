"""VTAB-1k: nineteen tasks of 1,000 training examples (arXiv 1910.04867)."""

from keras_vit.evaluation.vtab.data import load_task, prepare_command
from keras_vit.evaluation.vtab.protocols import evaluate
from keras_vit.evaluation.vtab.scores import Mean, Scores, TaskScore
from keras_vit.evaluation.vtab.tasks import GROUPS, TASKS, Task

__all__ = [
    "GROUPS",
    "TASKS",
    "Mean",
    "Scores",
    "Task",
    "TaskScore",
    "evaluate",
    "load_task",
    "prepare_command",
]
