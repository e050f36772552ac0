"""Training by a recipe: `compile` and `fit`."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.data import Augmentation, ImageData
from keras_vit.distribution.checks import check, check_batches, check_processes
from keras_vit.log import log
from keras_vit.models import ImageModel
from keras_vit.training.fitting import fit
from keras_vit.training.recipe import Recipe
from keras_vit.training.recipes import SmallData


def finetune(
    model: keras.Model,
    data: ImageData,
    recipe: Recipe | None = None,
    *,
    evaluations: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    save_freq: str | int = "epoch",
    callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
) -> keras.callbacks.History:
    """Trains a model on images by a recipe: `recipe.prepare`, `compile` and `fit`.

    Args:
        model: a model of this package with a head of `data.num_classes`, or a
            `pretraining.Distillation` around one, whose loss is its own. It is compiled and
            trained in place.
        data: `keras_vit.data.ImageData`, see `keras_vit.data.load`. The model sets the
            image size and the value range, the recipe the batch size and the
            augmentation.
        recipe: `Recipe`; `None` for `SmallData.for_examples` of the training examples.
        evaluations: int, number of evaluations on `data.validation`. The steps are split
            into as many equal epochs, or into the nearest number that divides them.
            `None` for one per pass over the data, at most 20.
        resume: folder of checkpoints. If training is killed, the same call resumes from
            it, bit for bit. `None` saves no checkpoints. For more options pass an
            `ExactResume` in `callbacks` instead.
        save_freq: `"epoch"` saves a checkpoint to `resume` after each evaluation, an int
            after that many batches.
        callbacks: callbacks for `fit`, after those of the recipe.
        verbose: as in `fit`.

    Returns:
        The history of `fit`, with one entry per evaluation.

    Raises:
        ValueError: if the model is not one of this package, has another number of classes
            than the data, another image size than the recipe or other arguments than
            `recipe.model_arguments()`; if a `Distillation` has another loss for the labels
            than the recipe; if the devices do not divide a batch, an image
            cannot be read, no weight is trainable, or several processes train without a
            strategy.

    Example:

    >>> data = keras_vit.data.load("flowers")
    >>> model = keras_vit.ViTB16(weights="augreg_imagenet21k", classes=data.num_classes,
    ...                          classifier_activation=None)
    >>> keras_vit.training.finetune(model, data)
    """
    check_processes(model)
    _check_data(data)
    network = getattr(model, "student", model)  # of a `Distillation`
    recipe = _default_recipe(network, data) if recipe is None else recipe
    _check_recipe(recipe)
    _check_classes(network, data)
    data = prepare_data(data, network, recipe)
    check_batches(data.pipeline.batch_size)
    recipe.prepare(network)
    if not model.trainable_weights:
        raise ValueError(
            f"A model must have trainable weights. Received: {model.name!r}, which is "
            "frozen. Use freeze(model, None), or a recipe with freeze='linear'."
        )
    _compile(model, network, recipe, data.num_classes)
    check(model)
    network.note(**notes(network, data, recipe))  # after every check
    return fit(
        model,
        data,
        recipe,
        evaluations=evaluations,
        resume=resume,
        save_freq=save_freq,
        callbacks=callbacks,
        verbose=verbose,
    )


def _compile(model, network, recipe, num_classes):
    optimizer = recipe.optimizer(network)
    if model is not network:
        _check_loss(model, recipe)
        model.compile(optimizer)
        return
    model.compile(
        optimizer=optimizer,
        loss=recipe.loss_function(model),
        # Weighted: images that pad a batch have weight 0.
        weighted_metrics=metrics(num_classes),
    )


def _check_loss(model, recipe):
    """Refuses a `Distillation` whose own loss is not what a recipe says of the labels."""
    asked = {"loss": recipe.loss, "label_smoothing": recipe.label_smoothing}
    own = {"loss": "softmax", "label_smoothing": model.label_smoothing}
    if asked != own:
        raise ValueError(
            "A `Distillation` and its recipe must have the same loss for the labels. "
            f"Received: {own} and {asked}. Build it with label_smoothing="
            f"{recipe.label_smoothing}, or use recipe.replace(**{own})."
        )


def _check_data(data):
    if not isinstance(data, ImageData):
        raise ValueError(
            "`data` must be a `keras_vit.data.ImageData`. Received: "
            f"{type(data).__name__}. Load it from a folder, a CSV file, the name of a "
            "data set or arrays: keras_vit.data.load((images, labels))."
        )


def _check_recipe(recipe):
    if not isinstance(recipe, Recipe):
        raise ValueError(
            "`recipe` must be an instance of `Recipe`. Received: "
            f"{recipe!r}. Use one such as SmallData.for_examples(1000)."
        )


def _default_recipe(model, data):
    recipe = SmallData.for_examples(data.num_examples["train"])
    if not isinstance(model, ImageModel) or _is_of_any_size(model):
        return recipe
    return recipe.replace(image_size=model.get_config()["image_size"])


def _check_classes(model, data):
    if not isinstance(model, ImageModel):
        raise ValueError(
            "`finetune` trains a model of this package with a head of its own. "
            f"Received: a {type(model).__name__}. Replace the head instead of adding "
            f"layers: keras_vit.from_pretrained(model, classes={data.num_classes}, "
            "classifier_activation=None). Train any other model with `compile` and `fit` "
            "on data.train."
        )
    classes = model.get_config()["classes"]
    if classes != data.num_classes:
        raise ValueError(
            "The model's head must have as many classes as the data. Received: "
            f"classes={classes}, data of {data.num_classes} classes. Build the model with "
            f"classes={data.num_classes}."
        )


def prepare_data(
    data: ImageData, model: keras.Model, recipe: Recipe, label_mode: str = "categorical"
) -> ImageData:
    """A copy of the data with the batches and images that a recipe feeds to a model.

    Args:
        data: `keras_vit.data.ImageData`. Its augmentation counts if the recipe has the
            default one of its class.
        model: a model of this package. It sets the image size and the value range; a
            model for any size takes `recipe.image_size`.
        recipe: `Recipe`. It sets the batch size and the augmentation.
        label_mode: as in `keras_vit.data.Pipeline`.

    Raises:
        ValueError: if the recipe and the model have different image sizes, or the recipe
            and the data different augmentations.
    """
    fields = {
        "batch_size": recipe.micro_batch_size or recipe.batch_size,
        "augmentation": _augmentation(data, recipe),
        "label_mode": label_mode,
    }
    data = data.prepared_for(model, **fields)
    image_size = arguments.pair(recipe.image_size, "image_size")
    if _is_of_any_size(model):
        return data.with_pipeline(image_size=image_size)
    _check_image_size(data.pipeline.image_size, image_size, recipe)
    return data


def _is_of_any_size(model):
    return None in model.input_shape[1:]


def _augmentation(data, recipe):
    """The data's augmentation if only the data has one, otherwise the recipe's."""
    loaded, asked = data.pipeline.augmentation, recipe.augmentation
    if loaded in (Augmentation(), asked):
        return asked
    if asked == _default_of(recipe, "augmentation"):
        return loaded
    raise ValueError(
        "Data and recipe must not have different augmentations. Received: data with "
        f"{_changes(loaded)}, a recipe with {_changes(asked)}. Load the data without "
        "`augmentation`, or use recipe.replace(augmentation=data.pipeline.augmentation)."
    )


def _changes(augmentation):
    """The fields of an augmentation that differ from their defaults, as text."""
    default = vars(Augmentation())
    changed = [f"{n}={v!r}" for n, v in vars(augmentation).items() if v != default[n]]
    return ", ".join(changed) or "the default augmentation"


def _check_image_size(size, asked, recipe):
    if size == asked:
        return
    asked_text, size_text = (f"{height} × {width}" for height, width in (asked, size))
    if recipe.image_size == _default_of(recipe, "image_size"):
        log.warning(
            "The model takes images of %s, so %s does not use its default of %s.",
            *(size_text, type(recipe).__name__, asked_text),
        )
        return
    raise ValueError(
        f"Recipe and model must have the same image size. Received: a recipe for images of "
        f"{asked_text} and a model for {size_text}. Build the model for that size, "
        f"keras_vit.from_pretrained(model, input_shape=({asked[0]}, {asked[1]}, 3)), or "
        f"use recipe.replace(image_size={size})."
    )


def _default_of(recipe, name):
    """The default value of a recipe's field."""
    field = recipe.__dataclass_fields__[name]
    if field.default_factory is dataclasses.MISSING:
        return field.default
    return field.default_factory()


def notes(model: keras.Model, data: ImageData, recipe: Recipe) -> dict[str, Any]:
    """Metadata that is saved with a trained model: class names and preprocessing.

    Args:
        model: a model of this package.
        data: the result of `prepare_data` for the model.
        recipe: `Recipe`.
    """
    return {
        "class_names": data.class_names,
        "probabilities": recipe.loss,
        "preprocessing": preprocessing_notes(model, data),
    }


def preprocessing_notes(model: keras.Model, data: ImageData) -> dict[str, Any]:
    """The preparation of images that is saved with a trained model.

    Args:
        model: a model of this package.
        data: the result of `prepare_data` for the model.
    """
    pipeline = data.pipeline
    preprocessing = {
        "evaluation_crop": pipeline.augmentation.evaluation_crop,
        "resize_factor": pipeline.augmentation.resize_factor,
    }
    if (how := pipeline.augmentation.evaluation_interpolation) != "bilinear":
        preprocessing["interpolation"] = how
    for name in ("value_range", "alpha"):
        if (value := getattr(pipeline, name)) is not None:
            preprocessing[name] = value
    if pipeline.image_size != model.get_config()["image_size"]:
        preprocessing["image_size"] = pipeline.image_size
    return preprocessing


def metrics(num_classes: int) -> list[keras.metrics.Metric]:
    """Accuracy, and with more than five classes top-5 accuracy, for one-hot labels."""
    chosen = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    if num_classes > 5:
        chosen.append(keras.metrics.TopKCategoricalAccuracy(k=5, name="top5_accuracy"))
    return chosen
