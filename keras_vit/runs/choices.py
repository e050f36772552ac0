"""Chooses the recipe and builds the model that the arguments of `fine_tune` name."""

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_vit import arguments
from keras_vit.data import ImageData
from keras_vit.runs.folder import find_run
from keras_vit.runs.options import Options
from keras_vit.training.recipe import Recipe
from keras_vit.training.recipes import (
    FINE_TUNING,
    VTAB,
    BigVisionS16,
    BiTHyperRule,
    DeiT,
    SmallData,
    ViTFineTuning,
    num_steps,
)
from keras_vit.weights.checkpoint import split_subtree
from keras_vit.zoo.constructors import CONSTRUCTORS, preset_of
from keras_vit.zoo.description import describe
from keras_vit.zoo.pretrained import from_pretrained, named_preset

RECIPES = ("auto", "small", "vit", "vtab", "bit", "bigvision", "deit")
NO_WEIGHTS = "none"
FREEZE = ("linear", "norms")
_SAMPLE = 16  # images whose median size counts as the size of the data's images


def choose_recipe(
    recipe: str | Recipe,
    data: ImageData,
    options: Options,
    *,
    epochs: float | None = None,
    known_name: str | None = None,
) -> Recipe:
    """The recipe with its hyperparameters for the data, changed as the options say.

    Args:
        recipe: one of `RECIPES`, or a `Recipe`.
        data: the images to train on.
        options: `recipe` and `augmentation` of them change fields of the recipe.
        epochs: passes over the training images, instead of steps.
        known_name: the result of `find_known_name`.

    Raises:
        ValueError: if the recipe or one of its fields is refused.
    """
    changes = dict(options.recipe)
    if "freeze" in changes:
        _check_freeze(changes["freeze"])
    if not isinstance(recipe, Recipe):
        recipe = _recipe_by_name(recipe, data, known_name, changes.get("batch_size"))
    return changed_recipe(recipe, data, options, epochs)


def changed_recipe(
    recipe: Recipe, data: ImageData, options: Options, epochs: float | None
) -> Recipe:
    """The recipe, changed as the options and the number of epochs say.

    Args: see `choose_recipe`.

    Raises:
        ValueError: if a field is refused.
    """
    changes = dict(options.recipe)
    if options.augmentation:
        changes["augmentation"] = recipe.augmentation.replace(**options.augmentation)
    if epochs is not None:
        if epochs <= 0:
            raise ValueError(f"`epochs` must be positive. Received: epochs={epochs}")
        if "steps" in changes:
            raise ValueError(
                "`steps` and `epochs` both give the length of the training. Received: "
                f"steps={changes['steps']}, epochs={epochs}. Give one of them."
            )
        batch_size = changes.get("batch_size", recipe.batch_size)
        changes["steps"] = num_steps(epochs, data.num_examples["train"], batch_size)
    return recipe.replace(**changes)


def _check_freeze(freeze):
    is_count = isinstance(freeze, int) and not isinstance(freeze, bool) and freeze >= 0
    if freeze not in FREEZE and not is_count:
        raise ValueError(
            f"`freeze` must be one of {', '.join(FREEZE)}, or a number of last blocks to "
            f"train. Received: {freeze!r}"
        )


def _recipe_by_name(name, data, known_name, batch_size):
    """The recipe with hyperparameters chosen by the size of the data set."""
    arguments.one_of(name, RECIPES, "recipe")
    examples = data.num_examples["train"]
    if name == "auto":
        is_bit = known_name and "num_units" in describe(known_name).config()
        name = "bit" if is_bit else "small"
    if name in ("small", "deit"):
        given = {"batch_size": batch_size} if batch_size else {}
        return {"small": SmallData, "deit": DeiT}[name].for_examples(examples, **given)
    if name == "bit":
        return BiTHyperRule.for_data(examples, _median_size(data))
    tfds_name = data.name.split("/")[0]  # without configuration and version
    if name == "vit" and tfds_name in FINE_TUNING:
        return ViTFineTuning.for_data(tfds_name)
    return {"vit": ViTFineTuning, "vtab": VTAB, "bigvision": BigVisionS16}[name]()


def _median_size(data):
    """(height, width) of a few training images, the median of each."""
    indices = np.linspace(0, data.num_examples["train"] - 1, _SAMPLE).astype(int)
    sizes = [image.shape[:2] for image in data.images("train", indices)]
    return tuple(int(side) for side in np.median(sizes, axis=0))


def find_known_name(model: str | None, weights: str | None) -> str | None:
    """The name by which `keras_vit.describe` knows the model; `None` for a checkpoint.

    Raises:
        ValueError: if the arguments name no model, or an unknown one.
        FileNotFoundError: if the checkpoint does not exist.
    """
    if model is not None:
        arguments.one_of(model, CONSTRUCTORS, "model")
        if weights not in (None, NO_WEIGHTS):
            _check_weights(model, weights)
        return model
    if weights in (None, NO_WEIGHTS):
        raise ValueError(
            "Nothing says which model to train. Give `model`, such as model='ViTB16', or a "
            "checkpoint as `weights`. `keras-vit list` lists those with a name."
        )
    preset = named_preset(weights)
    _check_file(preset, weights)
    return weights if preset else None


def _check_file(preset, weights):
    path, _ = split_subtree(weights)
    if not preset and "://" not in weights and not os.path.exists(path):
        raise FileNotFoundError(f"There is no checkpoint at {weights!r}")


def _check_weights(model, weights):
    preset = preset_of(model, weights)
    _check_file(preset, weights)
    if preset and preset.architecture != model:
        raise ValueError(
            f"{weights!r} is a checkpoint of {preset.architecture}. Received: "
            f"model={model!r}. Leave `model` out, or give the tag of another checkpoint."
        )


def build_model(
    model: str | None,
    weights: str | None,
    data: ImageData,
    recipe: Recipe,
    *,
    dtype: str,
    overrides: Mapping[str, Any],
) -> keras.Model:
    """Builds the model with a head for the classes of the data.

    A head of the checkpoint is kept only if it was trained on the same classes.

    Args:
        model: name of a constructor, or `None` for the checkpoint's architecture.
        weights: tag, name, path or address of a checkpoint, the folder of a run, or
            `"none"`.
        data: the images to train on.
        recipe: says the size of the images and some arguments of the model.
        dtype: name of the dtype policy.
        overrides: further arguments of the model.
    """
    network = _load_model(model, weights, data, recipe, dtype, overrides)
    head = network.get_layer("head")
    is_new = not np.any(keras.ops.convert_to_numpy(head.kernel))  # new heads are zeros
    if is_new or _trained_classes(weights, network) == data.class_names:
        return network
    given = {"classifier_activation": None, **recipe.model_arguments()}
    headless = from_pretrained(network, classes=0)
    return from_pretrained(headless, classes=data.num_classes, **given)


def _load_model(model, weights, data, recipe, dtype, overrides):
    given = {
        "image_size": arguments.pair(recipe.image_size, "image_size"),
        "classes": data.num_classes,
        "classifier_activation": None,
        "dtype": dtype,
        "trainable": True,  # the recipe freezes, whatever the checkpoint's file says
        **overrides,
        **recipe.model_arguments(),
    }
    if not model:
        found = find_run(weights)
        return from_pretrained(found[1] if found else weights, **given)
    if weights is not None:
        given["weights"] = None if weights == NO_WEIGHTS else weights
    return CONSTRUCTORS[model](**given)


def _trained_classes(weights, network):
    """Names of the classes that a model was trained on; `None` if nothing says them."""
    if noted := network.get_config().get("class_names"):
        return noted
    found = find_run(weights) if weights else None  # a run of an earlier version
    return tuple(found[0].config()["class_names"]) if found else None
