"""`Objective`: an objective of pre-training as `runs.pretrain` needs it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Protocol

import keras
import numpy as np

from keras_vit.data import ImageData
from keras_vit.models import VisionTransformer
from keras_vit.training.pretraining_recipes import SelfSupervisedRecipe
from keras_vit.training.recipe import Recipe

# Arguments of the models that are not the user's to choose here.
_OURS = ("encoder", "seed", "steps", "dtype", "name", "trainable", "kwargs")


def _seed_alone(encoder: VisionTransformer, recipe: Recipe, seed: int) -> dict[str, Any]:
    return {"seed": seed}


class RecipeFor(Protocol):
    """Makes a recipe for a number of training images, with other fields."""

    def __call__(self, num_examples: int, **changes: Any) -> SelfSupervisedRecipe: ...


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of some images, for the report.

    Attributes:
        columns: captions of the pictures of an image.
        rows: for each image its pictures, uint8 (height, width, channels).
        note: sentences on what they show.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[np.ndarray]]
    note: str


@dataclass(frozen=True, kw_only=True)
class Objective:
    """An objective of pre-training.

    Attributes:
        title: name in texts, such as `"masked autoencoder"`.
        paper: paper and section.
        model: class of the model around the encoder, called with the encoder and
            arguments. It has the attribute `encoder` and a loss of its own.
        paper_recipe: the paper's recipe for a number of training images.
        small_recipe: the recipe for one machine.
        encoder_arguments: arguments of the encoder if it is new.
        arguments: makes arguments of the model from the encoder, the recipe and the seed;
            those that a user gives come after them.
        streams: makes (training, validation) batches of an `ImageData` for the model, where
            it takes others than images; `None` for images.
        monitor: metric of the logs by which the best checkpoint is chosen; `"step"` with
            the mode `"max"` for the last one.
        mode: `"min"` if its lowest value is the best, or `"max"`.
        curves: for the report, the titles of the charts by metric.
        operations: multiply-accumulates of a step of the model for one image, with the
            gradients, for `keras_vit.planning`.
        pictures: makes pictures of what the model does with images, as the encoder takes
            them; `None` for none.
    """

    title: str
    paper: str
    model: Callable[..., keras.Model]
    paper_recipe: RecipeFor
    small_recipe: RecipeFor
    operations: Callable[..., int]
    encoder_arguments: Mapping[str, Any] = field(default_factory=dict)
    arguments: Callable[[VisionTransformer, Recipe, int], dict[str, Any]] = _seed_alone
    streams: Callable[[ImageData, keras.Model], tuple[Any, Any]] | None = None
    monitor: str = "val_loss"
    mode: str = "min"
    curves: Mapping[str, str] = field(default_factory=lambda: {"loss": "Loss"})
    pictures: Callable[[keras.Model, np.ndarray], Pictures] | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the model's arguments that a user may give."""
        return tuple(n for n in signature(self.model).parameters if n not in _OURS)
