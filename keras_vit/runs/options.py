"""Keyword arguments that a training hands on, sorted by who takes them."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from inspect import signature
from typing import Any

from keras_vit.models import VisionTransformer
from keras_vit.training.recipe import Recipe
from keras_vit.zoo.pretrained import from_pretrained

DATA = ("data_dir", "splits", "validation_split", "test_split", "duplicates")
DATA += ("bad_images", "image_column", "label_column", "split_column")
READING = ("value_range", "alpha")  # how values in image files are meant
AUGMENTATION = ("flip", "crop", "evaluation_crop")
RECIPE = {f.name for f in dataclasses.fields(Recipe)} - {"augmentation"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Keyword arguments by who takes them; those that are `None` are left out.

    Attributes:
        data: arguments of `keras_vit.data.load`.
        augmentation: fields of `keras_vit.data.Augmentation`.
        recipe: fields of `keras_vit.training.Recipe`.
        model: arguments of `VisionTransformer` and `from_pretrained`.
        objective: arguments of a model of `keras_vit.pretraining`.
    """

    data: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    recipe: Mapping[str, Any]
    model: Mapping[str, Any]
    objective: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def model_options() -> set[str]:
    """Names of the arguments that a model takes, from `from_pretrained` or by itself."""
    names = {*signature(VisionTransformer).parameters}
    names |= {*signature(from_pretrained).parameters}
    return names - {"source", "overrides", "input_tensor"}


def sort_options(
    options: Mapping[str, Any],
    function: str = "fine_tune",
    **more: Collection[str],
) -> Options:
    """Sorts keyword arguments by who takes them.

    Args:
        options: the keyword arguments.
        function: name of the function that was given them.
        **more: further names by the attribute of `Options`, which come first.

    Raises:
        TypeError: if nobody takes one of them; it names those near it.
    """
    groups = {
        "objective": {*more.get("objective", ())},
        "data": {*DATA, *READING, *more.get("data", ())},
        "augmentation": {*AUGMENTATION},
        "recipe": RECIPE,
        "model": model_options(),
    }
    sorted_options = {name: {} for name in groups}
    for name, value in options.items():
        group = next((group for group, names in groups.items() if name in names), None)
        if group is None:
            known = sorted(set().union(*groups.values()))
            near = difflib.get_close_matches(name, known) or known
            raise TypeError(
                f"`{function}` has no argument {name!r}. Near it: {', '.join(near)}."
            )
        if value is not None:
            sorted_options[group][name] = value
    return Options(**sorted_options)
