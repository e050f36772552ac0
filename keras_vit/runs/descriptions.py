"""One line each on the data, the recipe and the model of a training."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_vit.data import ImageData
from keras_vit.runs.choices import NO_WEIGHTS
from keras_vit.runs.results import model_name
from keras_vit.training.recipe import Recipe

_MOST_NAMES = 6


def describe_data(data: ImageData) -> str:
    """Name, classes and number of images of each split."""
    names = ", ".join(data.class_names[:_MOST_NAMES])
    more = ", …" if len(data.class_names) > _MOST_NAMES else ""
    classes = f"{data.num_classes} classes ({names}{more})" if names else "no labels"
    return f"data    {data.name}: {classes}; images: {describe_examples(data.num_examples)}"


def describe_examples(examples: Mapping[str, int]) -> str:
    """Number of images of each split."""
    return ", ".join(f"{n:,} {split}" for split, n in examples.items())


def describe_recipe(recipe: Recipe) -> str:
    """Length, optimizer and the hyperparameters that are not the default."""
    parts = [
        f"{type(recipe).__name__}: {recipe.steps:,} steps of {recipe.batch_size} images",
        f"{recipe.algorithm} with a learning rate of {recipe.base_learning_rate:g}",
    ]
    if recipe.gradient_accumulation_steps > 1:
        parts[0] += f" ({recipe.micro_batch_size} at a time)"
    options = ("weight_decay", "layerwise_decay", "label_smoothing", "ema_momentum")
    for name in (*options, "freeze", "lora_rank", "rematerialize"):
        value, default = getattr(recipe, name), Recipe.__dataclass_fields__[name].default
        if value != default:
            parts.append(f"{name.replace('_', ' ')} {value}")
    if not recipe.augmentation.flip:
        parts.append("no mirroring")
    return f"recipe  {', '.join(parts)}"


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """The name and the hyperparameters of a recipe."""
    return {"name": type(recipe).__name__, **dataclasses.asdict(recipe)}


def describe_model(model: keras.Model, weights: str | None) -> str:
    """Name, checkpoint, image size and number of parameters."""
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    total = model.count_params()
    some = "all trained" if trainable == total else f"{trainable:,} of them trained"
    height, width = model.get_config()["image_size"]
    origin = {None: "from its default weights", NO_WEIGHTS: "from scratch"}
    origin = origin.get(weights, f"from {weights}")
    return (
        f"model   {model_name(model.get_config())} {origin}, images of {height} × "
        f"{width}; {total:,} parameters, {some}"
    )
