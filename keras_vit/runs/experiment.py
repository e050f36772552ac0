"""The frame of an experiment: what any training writes to its folder, and checks."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_vit.data import ImageData
from keras_vit.distribution import is_first_process
from keras_vit.runs.callbacks import EventFiles, Progress
from keras_vit.runs.classifier import image_fields
from keras_vit.runs.descriptions import describe_examples, describe_model, recipe_fields
from keras_vit.runs.folder import EXAMPLES, METRICS, TENSORBOARD, RunFolder
from keras_vit.runs.image_digests import image_digests
from keras_vit.training.recipe import Recipe

_PACKAGES = ("keras", "numpy", "tensorflow", "jax", "torch", "pillow", "keras-cv")


def begin(
    run: RunFolder, images: ImageData, config: Mapping[str, Any], resumes: bool
) -> None:
    """Creates the folder of a training, or goes on in it, and locks it, in one process.

    Args:
        run: the folder.
        images: images to train on.
        config: the content of `config.json` of a new training.
        resumes: whether the folder holds this training already.

    Raises:
        ValueError: if another process trains in it.
    """
    if not is_first_process():
        return
    if not resumes:
        run.create(config)
    run.lock()
    _write_digests(run, images)


def check_same_images(run: RunFolder, data: ImageData) -> None:
    """Raises a ValueError if the images of an unfinished training have changed."""
    before = run.config()["data"]
    if before["fingerprint"] == data.fingerprint:
        return
    counts = [
        describe_examples(examples) for examples in (before["examples"], data.num_examples)
    ]
    changed = f"{counts[0]} before, {counts[1]} now"
    if counts[0] == counts[1]:
        changed = "as many, but some of them are different"
    raise ValueError(
        f"The training in {os.fspath(run.path)!r} is not finished, and the images have "
        f"changed since: {changed}. Restore them to resume it, or pass `overwrite=True` "
        "to train anew."
    )


def with_size_of(
    network: keras.Model, recipe: Recipe, overrides: Mapping[str, Any]
) -> Recipe:
    """The recipe with the image size that `input_shape` gave the model."""
    size = network.get_config()["image_size"]
    if "input_shape" in overrides and None not in size:
        return recipe.replace(image_size=size)
    return recipe


def run_callbacks(
    run: RunFolder,
    checkpoints: keras.callbacks.Callback,
    weights: str | None,
    say: Callable[[str], None],
) -> list[keras.callbacks.Callback]:
    """Callbacks that write a run's files, and describe the model that is trained.

    Args:
        run: the folder.
        checkpoints: saves the checkpoints.
        weights: the argument of the training.
        say: called with a line of text.
    """
    return [
        _Announcement(weights, say),
        Progress(),
        checkpoints,
        keras.callbacks.CSVLogger(run.file(METRICS)),
        EventFiles(run.file(TENSORBOARD)),
    ]


class _Announcement(keras.callbacks.Callback):
    """Describes the model once the recipe has prepared it."""

    def __init__(self, weights, say):
        super().__init__()
        self._weights, self._say = weights, say

    def on_train_begin(self, logs=None):
        around = ("encoder", "student")  # a model that another trains
        inside = (getattr(self.model, n) for n in around if hasattr(self.model, n))
        network = next(inside, self.model)
        self._say(describe_model(network, self._weights))

    def resume(self, state, epochs):
        self._say(f"resumes after step {int(self.model.optimizer.iterations):,}")


def _write_digests(run, data):
    """Writes the digests of the images, unless an earlier process did.

    Of other images than the run's there are none: training refuses them.
    """
    is_same = run.config()["data"]["fingerprint"] == data.fingerprint
    if is_same and not run.file(EXAMPLES).exists() and (found := image_digests(data)):
        run.write_digests(found)


def configuration(
    arguments: Mapping[str, Any],
    data_arguments: Mapping[str, Any],
    data: ImageData,
    network: keras.Model,
    recipe: Recipe,
) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "arguments": arguments,
        "seed": arguments["seed"],
        "class_names": data.class_names,
        "data": {
            "arguments": data_arguments,
            "name": data.name,
            "examples": data.num_examples,
            "fingerprint": data.fingerprint,
        },
        "images": image_fields(data.pipeline),
        "activation": recipe.loss,
        "recipe": recipe_fields(recipe),
        "model": {
            "weights": arguments.get("weights"),
            "parameters": network.count_params(),
            "config": network.get_config(),
        },
        "backend": keras.backend.backend(),
        "machine": platform.platform(),
        "packages": _versions(),
    }


def _versions():
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
