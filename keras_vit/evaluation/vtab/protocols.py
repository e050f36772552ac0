"""Protocols that judge a model's features on VTAB's tasks, without training the model."""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_vit import arguments
from keras_vit.evaluation.features import extract_features
from keras_vit.evaluation.few_shot_regression import few_shot
from keras_vit.evaluation.probe import linear_probe
from keras_vit.evaluation.vtab.data import (
    is_prepared,
    load_task,
    prepare_command,
    prepare_task,
)
from keras_vit.evaluation.vtab.scores import Scores, TaskScore
from keras_vit.evaluation.vtab.tasks import TASKS, Task, chosen
from keras_vit.extras import require
from keras_vit.log import log

Examples = tuple[np.ndarray, np.ndarray]  # features (examples, width), labels (examples,)


def evaluate(
    model: keras.Model,
    tasks: str | Iterable[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    protocol: str = "linear",
    *,
    layer: str = "pooled",
    cache_dir: str | os.PathLike[str] | None = None,
    verbose: str | int = "auto",
    say: Callable[[str], None] = log.warning,
    **pipeline: Any,
) -> Scores:
    """Accuracy of simple classifiers on a model's features, on each task of VTAB-1k.

    The classifiers are trained on 1,000 examples of a task and tested on all of its test
    examples. Images are resized to the model's size, not cropped. Nothing is downloaded:
    a task whose data is not prepared is listed in the result, and so is one that fails.

    Source: the tasks are those of VTAB (arXiv 1910.04867). Its published scores, and those
    of the ViT paper, are of models fine-tuned on each task, as by
    `keras_vit.runs.evaluate_vtab(…, protocol="finetune")`.

    Args:
        model: a model of this package, or any other built model of images.
        tasks: names of `TASKS`, or of groups in `GROUPS`; `None` for all.
        data_dir: folder of TensorFlow Datasets' data; `None` for its default.
        protocol: `"linear"`, the logistic regression of `evaluation.linear_probe`, whose
            regularisation is chosen by the 200 validation examples before it is fitted to
            all 1,000; or `"few-shot"`, the least squares of `evaluation.few_shot` on the
            1,000, with the ViT paper's l2 of 2¹⁰.
        layer: output of the model, see `evaluation.extract_features`.
        cache_dir: folder in which features stay, see `evaluation.extract_features`.
        verbose: as in `predict` of Keras.
        say: called with a sentence on each task that fails; by default it goes to the log
            as a warning.
        **pipeline: fields of `keras_vit.data.Pipeline`, such as `batch_size`; for a model
            that is not of this package also `image_size`, `image_mean` and `image_std`.

    Returns:
        `Scores`: an accuracy for each task, and the means.

    Raises:
        ValueError: if the protocol or a task is unknown.

    Example:

    >>> model = keras_vit.ViTB16(weights="imagenet21k")
    >>> print(keras_vit.evaluation.vtab.evaluate(model, ["natural"], cache_dir="features"))
    """
    check_protocol(protocol)
    features = TaskFeatures(model, data_dir, layer, cache_dir, verbose, pipeline)
    score = partial(score_features, protocol, features)
    return score_tasks(chosen(tasks), data_dir, protocol, score, say)


def check_protocol(protocol: str) -> None:
    """Checks a protocol on fixed features, before hours of computing them.

    Raises:
        ValueError: if there is no such protocol.
        ImportError: if scikit-learn is missing, which `"linear"` needs.
    """
    if protocol == "finetune":
        raise ValueError(
            "`evaluate` trains no model. Received: protocol='finetune'. Use "
            "keras_vit.runs.evaluate_vtab(source, output, protocol='finetune'), which "
            "writes checkpoints to a folder and can be resumed."
        )
    if arguments.one_of(protocol, tuple(PROTOCOLS), "protocol") == "linear":
        require("sklearn", "A linear probe", "evaluation")


def score_tasks(
    tasks: Iterable[Task],
    data_dir: str | os.PathLike[str] | None,
    protocol: str,
    score: Callable[[Task], TaskScore],
    say: Callable[[str], None],
) -> Scores:
    """Scores one task after the other, and goes on after one that fails.

    Args:
        tasks: rows of `TASKS`.
        data_dir: folder of TensorFlow Datasets' data; `None` for its default.
        protocol: name of the protocol.
        score: returns the score of a task.
        say: called with a sentence on each task that fails.
    """
    scores, missing, failed = {}, {}, {}
    for task in tasks:
        if not is_prepared(task, data_dir):
            missing[task.name] = prepare_command(task, data_dir)
            continue
        try:
            scores[task.name] = score(task)
        # A damaged image, a full disk, too little memory …: the others can still be done.
        except Exception as error:
            failed[task.name] = f"{type(error).__name__}: {error}"
            say(f"VTAB's task {task.name!r} has failed: {failed[task.name]}")
    return Scores(protocol, scores, missing, failed)


class TaskFeatures:
    """Features of the images of tasks, computed once for tasks with the same images.

    Args:
        model: see `evaluate`.
        data_dir: see `evaluate`.
        layer: see `evaluate`.
        cache_dir: see `evaluate`.
        verbose: see `evaluate`.
        pipeline: fields of `keras_vit.data.Pipeline`.
    """

    def __init__(
        self,
        model: keras.Model,
        data_dir: str | os.PathLike[str] | None,
        layer: str,
        cache_dir: str | os.PathLike[str] | None,
        verbose: str | int,
        pipeline: Mapping[str, Any],
    ) -> None:
        self._model, self._data_dir, self._pipeline = model, data_dir, pipeline
        self._options = {"layer": layer, "cache_dir": cache_dir, "verbose": verbose}
        self._images, self._features = "", {}  # of the last data set

    def of(self, task: Task) -> dict[str, Examples]:
        """Features and labels of the splits `"train"`, `"validation"` and `"test"`."""
        data = load_task(task, self._data_dir)
        if self._images != task.data_set:
            # Tasks with the same images share the cache of the first of them.
            first = next(t for t in TASKS.values() if t.data_set == task.data_set)
            images = load_task(first, self._data_dir)
            images = prepare_task(images, first, self._model, **self._pipeline)
            self._images, self._features = "", {}
            for split in images.splits:
                batches = images.evaluation(split)
                found = extract_features(self._model, batches, **self._options)
                self._features[split] = found.features
            self._images = task.data_set
        return {
            split: (features, data.labels(split))
            for split, features in self._features.items()
        }


def score_features(protocol: str, features: TaskFeatures, task: Task) -> TaskScore:
    """The score of a task by a protocol on fixed features."""
    return PROTOCOLS[protocol](task, **features.of(task))


def _linear(task, train: Examples, validation: Examples, test: Examples) -> TaskScore:
    result = linear_probe(*train, *test, validation_data=validation)
    tried = zip(result.validation.settings["l2"], result.validation.accuracy, strict=True)
    details = {
        "l2": result.chosen,
        "validation_accuracy": {f"{l2:g}": float(accuracy) for l2, accuracy in tried},
        "notes": list(result.notes),
    }
    return TaskScore(int(result.correct[0]), len(test[1]), details)


def _few_shot(task, train: Examples, validation: Examples, test: Examples) -> TaskScore:
    features, labels = (
        np.concatenate(parts) for parts in zip(train, validation, strict=True)
    )
    result = few_shot(
        *(features, labels, *test),
        shots=(len(labels),),  # all of each class
        num_classes=task.num_classes,
    )
    (l2,) = result.settings["l2"]
    return TaskScore(int(result.correct[0, 0, 0]), len(test[1]), {"l2": l2})


PROTOCOLS: Mapping[str, Callable[..., TaskScore]] = {
    "linear": _linear,
    "few-shot": _few_shot,
}
