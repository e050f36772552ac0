"""Data of VTAB's tasks, as TensorFlow Datasets has prepared them."""

import os
import shlex
from typing import Any

from keras_vit.data import Augmentation, ImageData, Pipeline
from keras_vit.data.records import StoredLabel
from keras_vit.data.tfds import find_prepared, records_of
from keras_vit.evaluation.vtab.tasks import Task

# The whole image, as some tasks ask where an object is.
WHOLE_IMAGE = Augmentation(crop="resize", flip=False, evaluation_crop="resize")


def load_task(
    task: Task,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    joined: bool = False,
    seed: int = 0,
    **pipeline: Any,
) -> ImageData:
    """Loads the images and labels of a task; prepares and downloads nothing.

    Images are as TensorFlow Datasets decodes them: a fourth channel is left out. They are
    resized, not cropped.

    Args:
        task: a row of `TASKS`.
        data_dir: folder of TensorFlow Datasets' data; `None` for its default.
        joined: whether the 800 training and 200 validation examples are one split
            `"train"` of 1,000.
        seed: random seed of the order of training.
        **pipeline: fields of `keras_vit.data.Pipeline`.

    Returns:
        An `ImageData` with the splits `"train"`, `"validation"` (not if `joined`) and
        `"test"`.

    Raises:
        FileNotFoundError: if the data set is not prepared; it says how to.
        ValueError: if the data set has too few examples, or other classes.
        ImportError: if a package of the `data` extra is missing.
    """
    builder = find_prepared(task.data_set, data_dir)
    if builder is None:
        raise FileNotFoundError(
            f"The data set {task.data_set!r} of VTAB's task {task.name!r} is not prepared "
            f"in {'the default folder' if data_dir is None else os.fspath(data_dir)!r}. "
            f"Run: {prepare_command(task, data_dir)}"
        )
    expressions = _expressions(task, builder)
    if joined:
        both = (expressions["train"], expressions.pop("validation"))
        expressions["train"] = "+".join(both)
    sources = records_of(builder, expressions, "image", task.label, task.name)
    settings = {"augmentation": WHOLE_IMAGE, "label_mode": "int", **pipeline}
    settings |= {"value_range": task.value_range, "alpha": "drop"}
    name = f"{task.name} ({builder.info.full_name})"
    names = _class_names(task, builder)
    return ImageData(name, names, sources, Pipeline(**settings), seed)


def prepare_command(task: Task, data_dir: str | os.PathLike[str] | None = None) -> str:
    """The shell command that downloads and prepares a task's data set."""
    folder = "" if data_dir is None else f" --data_dir {shlex.quote(os.fspath(data_dir))}"
    return f"tfds build {task.data_set}{folder}"


def _expressions(task, builder):
    counts = {name: info.num_examples for name, info in builder.info.splits.items()}
    try:
        return task.splits.expressions(counts)
    except ValueError as error:
        raise ValueError(f"{task.name} ({builder.info.full_name}): {error}") from error


def _class_names(task, builder):
    """Names of the classes: those of the data set, or numbers of a computed label."""
    if not isinstance(task.label, StoredLabel):
        return tuple(map(str, range(task.num_classes)))
    names = tuple(builder.info.features[task.label.key].names)
    if len(names) != task.num_classes:
        raise ValueError(
            f"VTAB's task {task.name!r} has {task.num_classes} classes. Received: "
            f"{builder.info.full_name} with {len(names)}. Prepare the data set of "
            "TensorFlow Datasets itself."
        )
    return names
