"""The objective `"self_distillation"` (DINO)."""

from typing import Any

import keras

from keras_vit.data import ImageData, multi_crop
from keras_vit.data.views import views_of_augmentation
from keras_vit.models import VisionTransformer
from keras_vit.pretraining import SelfDistillation
from keras_vit.pretraining.operations import distillation_operations
from keras_vit.runs.objectives.objective import Objective
from keras_vit.training.pretraining_recipes import DINOPreTraining
from keras_vit.training.recipe import Recipe

_SMALL_BATCH, _SMALL_OUTPUT = 256, 4096


def _arguments(encoder: VisionTransformer, recipe: Recipe, seed: int) -> dict[str, Any]:
    """The length of the schedules, and fewer outputs for the batches of one machine.

    Batches up to 256 images would leave most of the paper's 65,536 outputs without one.
    """
    is_small = recipe.batch_size <= _SMALL_BATCH
    return {"steps": recipe.steps, **({"output_dim": _SMALL_OUTPUT} if is_small else {})}


def _streams(data: ImageData, model: keras.Model) -> tuple[Any, Any]:
    views = views_of_augmentation(data.pipeline.augmentation)
    return multi_crop(data, model, views)


OBJECTIVE = Objective(
    title="self-distillation",
    paper="DINO (arXiv 2104.14294)",
    model=SelfDistillation,
    paper_recipe=DINOPreTraining.for_examples,
    small_recipe=DINOPreTraining.for_one_machine,
    arguments=_arguments,
    operations=distillation_operations,
    streams=_streams,
    # The loss rises with the teacher's temperature, and falls in a collapse.
    monitor="step",
    mode="max",
    curves={
        "loss": "Loss",
        "kl_divergence": "Divergence of student and teacher (0 in a collapse)",
        "teacher_entropy": "Entropy of the teacher, in nats",
    },
)
