"""Chooses the recipe and builds the models that the arguments of `pretrain` name."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.data import ImageData
from keras_vit.models import VisionTransformer
from keras_vit.runs.choices import NO_WEIGHTS, changed_recipe
from keras_vit.runs.folder import find_run
from keras_vit.runs.objectives import Objective
from keras_vit.runs.options import Options
from keras_vit.training.pretraining_recipes import LABELLED, SelfSupervisedRecipe
from keras_vit.zoo.constructors import CONSTRUCTORS
from keras_vit.zoo.pretrained import from_pretrained

RECIPES = ("auto", "paper")
# Fields of a recipe of which others follow: they are given as the recipe is made.
_LEADING = ("batch_size", "steps")


def choose_pretraining_recipe(
    recipe: str | SelfSupervisedRecipe,
    objective: Objective,
    data: ImageData,
    options: Options,
    *,
    epochs: float | None = None,
    is_new: bool = True,
) -> SelfSupervisedRecipe:
    """The recipe with its hyperparameters for the data, changed as the options say.

    Args:
        recipe: one of `RECIPES`, or a `SelfSupervisedRecipe`.
        objective: the objective.
        data: the images to train on.
        options: `recipe` and `augmentation` of them change fields of the recipe.
        epochs: passes over the training images, instead of steps.
        is_new: whether the encoder has new weights. Another keeps its own positions.

    Raises:
        ValueError: if the recipe or one of its fields is refused.
    """
    for name in LABELLED:
        if name in options.recipe:
            raise ValueError(
                f"Training without labels has no `{name}`. Received: "
                f"{name}={options.recipe[name]!r}. Leave it out."
            )
    if isinstance(recipe, str):
        arguments.one_of(recipe, RECIPES, "recipe")
        make = {"auto": objective.small_recipe, "paper": objective.paper_recipe}[recipe]
        given = {n: options.recipe[n] for n in _LEADING if n in options.recipe}
        recipe = make(data.num_examples["train"], **given)
        if not is_new:
            recipe = recipe.replace(position=None)
    if not isinstance(recipe, SelfSupervisedRecipe):
        raise ValueError(
            f"`recipe` must be {', '.join(map(repr, RECIPES))} or an instance of "
            f"`SelfSupervisedRecipe`. Received: {recipe!r}"
        )
    return changed_recipe(recipe, data, options, epochs)


def build_encoder(
    model: str | None,
    weights: str | None,
    objective: Objective,
    recipe: SelfSupervisedRecipe,
    dtype: str,
    overrides: Mapping[str, Any],
) -> VisionTransformer:
    """Builds the encoder, without a head.

    Args:
        model: name of a constructor, or `None` for the checkpoint's architecture.
        weights: tag, name, path or address of a checkpoint, the folder of a run, or
            `None` or `"none"` for new weights.
        objective: says some arguments of a new encoder.
        recipe: says the size of the images and some arguments of the encoder.
        dtype: name of the dtype policy.
        overrides: further arguments of the encoder.
    """
    is_new = weights in (None, NO_WEIGHTS)
    given = {
        "image_size": arguments.pair(recipe.image_size, "image_size"),
        "dtype": dtype,
        "trainable": True,  # whatever the checkpoint's file says
        **(objective.encoder_arguments if is_new else {}),
        **overrides,
        **recipe.model_arguments(),
    }
    if not model:
        found = find_run(weights)
        return from_pretrained(found[1] if found else weights, classes=0, **given)
    given.setdefault("pooling", "token")
    return CONSTRUCTORS[model](
        include_top=False, weights=None if is_new else weights, **given
    )


def build_model(
    objective: Objective,
    encoder: VisionTransformer,
    recipe: SelfSupervisedRecipe,
    seed: int,
    given: Mapping[str, Any],
) -> keras.Model:
    """Builds the model of the objective around the encoder.

    Args:
        objective: the objective.
        encoder: the result of `build_encoder`.
        recipe: the recipe.
        seed: seed of the objective's own random numbers.
        given: arguments of the model that the user gave.
    """
    return objective.model(
        encoder, **{**objective.arguments(encoder, recipe, seed), **given}
    )
