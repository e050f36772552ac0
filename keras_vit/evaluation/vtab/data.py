"""Data of VTAB's tasks, as TensorFlow Datasets has prepared them."""

import os
import shlex
from typing import Any

import keras

from keras_vit.data import Augmentation, ImageData, Pipeline
from keras_vit.data.records import StoredLabel
from keras_vit.data.tfds import find_prepared, records_of
from keras_vit.evaluation.vtab.tasks import Task
from keras_vit.models import ImageModel

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
    name = f"{task.name} ({builder.info.full_name})"
    settings = {"augmentation": WHOLE_IMAGE, "label_mode": "int", **pipeline}
    settings = Pipeline(**{**settings, **_reading(task)})
    return ImageData(name, _class_names(task, builder), sources, settings, seed)


def prepare_task(
    data: ImageData, task: Task, model: keras.Model, **pipeline: Any
) -> ImageData:
    """The same examples, with images as a model takes them.

    Args:
        data: the result of `load_task`.
        task: the task.
        model: a model. The size, channels, mean and standard deviation of images are those
            of a model of this package; of a model for any size, and of other models, those
            of the pipeline.
        **pipeline: fields of `keras_vit.data.Pipeline`.

    Raises:
        ValueError: if the model takes images that are neither grey nor RGB.
    """
    if not isinstance(model, ImageModel):
        return data.with_pipeline(**pipeline)
    if None in model.input_shape[1:]:
        pipeline = {"image_size": data.pipeline.image_size, **pipeline}
    data = data.prepared_for(model, **{**pipeline, **_reading(task)})
    # The model's interpolation stays, its crop does not.
    return data.with_pipeline(
        augmentation=data.pipeline.augmentation.replace(evaluation_crop="resize")
    )


def _reading(task) -> dict[str, Any]:
    """The fields of the pipeline that say how the task's files are read."""
    return {"value_range": task.value_range, "alpha": "drop"}


def is_prepared(task: Task, data_dir: str | os.PathLike[str] | None = None) -> bool:
    """`True` if TensorFlow Datasets has prepared the task's data set."""
    return find_prepared(task.data_set, data_dir) is not None


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
