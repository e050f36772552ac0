"""Teachers of a training."""

import keras

from keras_vit import arguments
from keras_vit.data import ImageData
from keras_vit.pretraining import Distillation
from keras_vit.runs.folder import find_run
from keras_vit.training.recipe import Recipe
from keras_vit.zoo.pretrained import from_pretrained

DISTILLATIONS = ("hard", "soft")


def check_teacher(teacher: str | None, distillation: str | None) -> None:
    """Checks the arguments of a training that name its teacher.

    Raises:
        ValueError: if there is no such kind of distillation, or no teacher for it.
        FileNotFoundError: if the teacher is a run without a checkpoint.
    """
    if distillation is not None:
        arguments.one_of(distillation, DISTILLATIONS, "distillation")
        if teacher is None:
            raise ValueError(
                "`distillation` needs a teacher. Received: distillation="
                f"{distillation!r} and teacher=None. Give `teacher`, a preset, a "
                "checkpoint or another run."
            )
    if teacher is not None:
        find_run(teacher)


def distilled(
    student: keras.Model,
    teacher: str,
    distillation: str | None,
    data: ImageData,
    recipe: Recipe,
) -> Distillation:
    """The model that trains a student with the teacher that the arguments name.

    Args:
        student: the model to be trained.
        teacher: preset, path or address of a checkpoint, or the folder of a run.
        distillation: `"hard"` or `"soft"`; `None` for `"hard"`.
        data: the images to train on.
        recipe: says the label smoothing.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if the teacher has learned other classes than those of the data.
    """
    found = find_run(teacher)
    model = from_pretrained(found[1] if found else teacher)
    names = model.get_config().get("class_names")
    if names and data.class_names and tuple(names) != tuple(data.class_names):
        raise ValueError(
            "The teacher must have learned the classes of the data, in the same order. "
            f"Received: {_shown(names)} of {teacher!r}, {_shown(data.class_names)} of the "
            "data. Fine-tune a teacher on this data first, and give its run."
        )
    return Distillation(
        student, model, kind=distillation or "hard", label_smoothing=recipe.label_smoothing
    )


def _shown(names):
    return f"{len(names)} classes ({', '.join(names[:3])}, …)"
