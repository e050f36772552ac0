"""Pre-training without labels by a recipe: `compile` and `fit`."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_vit.data import ImageData
from keras_vit.distribution.checks import check, check_batches, check_processes
from keras_vit.training.finetune import prepare_data, preprocessing_notes
from keras_vit.training.fitting import fit
from keras_vit.training.pretraining_recipes import SelfSupervisedRecipe, SmallPreTraining


def pretrain(
    model: keras.Model,
    data: ImageData,
    recipe: SelfSupervisedRecipe | None = None,
    *,
    evaluations: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    save_freq: str | int = "epoch",
    callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
    streams: Callable[[ImageData, keras.Model], tuple[Any, Any]] | None = None,
) -> keras.callbacks.History:
    """Trains a model of `keras_vit.pretraining` by a recipe: `compile` and `fit`.

    Args:
        model: a model of `keras_vit.pretraining`, such as a `MaskedAutoencoder`. It is
            compiled and trained in place; afterwards `model.encoder` is kept.
        data: `keras_vit.data.ImageData`, with labels or without. The encoder sets the image
            size and the value range, the recipe the batch size and the augmentation.
        recipe: `SelfSupervisedRecipe`; `None` for `SmallPreTraining.for_examples` of the
            training images.
        evaluations: see `keras_vit.training.finetune`.
        resume: folder of checkpoints. If training is killed, the same call resumes from
            it, bit for bit. `None` saves no checkpoints.
        save_freq: see `keras_vit.training.finetune`.
        callbacks: callbacks for `fit`, after those of the recipe.
        verbose: as in `fit`.
        streams: makes the batches for training and validation from the prepared data and
            the model, where this takes others than images; `None` for `data.train` and
            `data.validation`.

    Returns:
        The history of `fit`, with one entry per evaluation.

    Raises:
        ValueError: if the model has no encoder, or another image size or other arguments
            than the recipe; if the devices do not divide a batch, an image cannot be read,
            no weight is trainable, or several processes train without a strategy.

    Example:

    >>> data = keras_vit.data.load("photos", labels="none")
    >>> encoder = keras_vit.ViTS16(weights=None, include_top=False, position="sincos2d")
    >>> mae = keras_vit.pretraining.MaskedAutoencoder(encoder)
    >>> keras_vit.training.pretrain(mae, data)
    """
    check_processes(model)
    encoder = _encoder(model)
    if recipe is None:
        recipe = SmallPreTraining.for_examples(data.num_examples["train"])
        recipe = recipe.replace(image_size=encoder.get_config()["image_size"])
    if not isinstance(recipe, SelfSupervisedRecipe):
        raise ValueError(
            "`recipe` must be an instance of `SelfSupervisedRecipe`. Received: "
            f"{recipe!r}. Use one such as SmallPreTraining.for_examples(1000)."
        )
    data = prepare_data(data, encoder, recipe, label_mode="int")
    check_batches(data.pipeline.batch_size)
    recipe.prepare(encoder)
    if not model.trainable_weights:
        raise ValueError(
            f"A model must have trainable weights. Received: {model.name!r}, which is "
            "frozen. Set model.trainable = True."
        )
    model.compile(optimizer=recipe.optimizer(model))
    check(model)
    encoder.note(preprocessing=preprocessing_notes(encoder, data))
    return fit(
        model,
        data,
        recipe,
        evaluations=evaluations,
        resume=resume,
        save_freq=save_freq,
        callbacks=callbacks,
        verbose=verbose,
        streams=streams,
    )


def _encoder(model):
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, keras.Model):
        raise ValueError(
            "`pretrain` trains a model of `keras_vit.pretraining`, which has an encoder. "
            f"Received: a {type(model).__name__}. Train a classifier with "
            "keras_vit.training.finetune."
        )
    return encoder
