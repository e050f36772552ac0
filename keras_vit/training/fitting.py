"""`fit` of a compiled model by a recipe."""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.data import ImageData, failures
from keras_vit.training.recipe import Recipe
from keras_vit.training.resume import ExactResume

MAX_EVALUATIONS = 20  # if `evaluations` is None


def fit(
    model: keras.Model,
    data: ImageData,
    recipe: Recipe,
    *,
    evaluations: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    save_freq: str | int = "epoch",
    callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
    streams: Callable[[ImageData, keras.Model], tuple[Any, Any]] | None = None,
) -> keras.callbacks.History:
    """Calls `fit` of a compiled model for the steps of a recipe.

    Args:
        model: a compiled model.
        data: the result of `keras_vit.training.prepare_data` for it.
        recipe: `Recipe`. It sets the number of steps, and adds its own callbacks.
        evaluations: see `keras_vit.training.finetune`, as the following ones.
        resume: folder of checkpoints.
        save_freq: when they are saved.
        callbacks: callbacks for `fit`, after those of the recipe.
        verbose: as in `fit`.
        streams: makes the training and validation batches of the data for the model. The
            first is a pure function of the data's seed that begins at `data.start`. `None`
            takes `data.train` and `data.validation`.
    """
    saves = []
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    if resume is not None:
        settings = {"recipe": type(recipe).__name__, **dataclasses.asdict(recipe)}
        saves = [ExactResume(resume, save_freq, data=data, configuration=settings)]
    epochs, steps_per_epoch = split_into_epochs(
        recipe, data.num_examples["train"], evaluations
    )
    train, validation = (data.train, data.validation)
    if streams is not None:
        train, validation = streams(data, model)
    with failures.named():
        return model.fit(
            train,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            validation_data=validation,
            callbacks=[*recipe.callbacks(), *saves, *callbacks],
            shuffle=False,  # `data` shuffles by its own seed
            verbose=verbose,
        )


def split_into_epochs(
    recipe: Recipe, num_examples: int, evaluations: int | None
) -> tuple[int, int]:
    """Keras' (epochs, steps_per_epoch) for all micro-batches of a recipe.

    Args:
        recipe: `Recipe`.
        num_examples: int, images in the training set.
        evaluations: number of epochs, see `keras_vit.training.finetune`.
    """
    if evaluations is None:
        passes = recipe.steps * recipe.batch_size / num_examples
        evaluations = min(MAX_EVALUATIONS, max(1, round(passes)))
    arguments.positive(evaluations, "evaluations")
    divisors = [d for d in range(1, recipe.steps + 1) if recipe.steps % d == 0]
    epochs = min(divisors, key=lambda d: abs(math.log(d / evaluations)))
    updates = recipe.steps // epochs
    return epochs, updates * recipe.gradient_accumulation_steps
