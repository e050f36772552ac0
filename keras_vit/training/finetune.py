"""A recipe, put together: `compile` and `fit`."""

import dataclasses
import math
import os
from collections.abc import Sequence

import keras

from keras_vit import arguments
from keras_vit.data import Augmentation, ImageData, failures
from keras_vit.distribution import check, check_batches, check_processes
from keras_vit.log import log
from keras_vit.models import BiTResNet, VisionTransformer
from keras_vit.training.recipe import Recipe
from keras_vit.training.recipes import SmallData
from keras_vit.training.resume import ExactResume

EVALUATIONS = 20  # at most, where nobody says how many


def finetune(
    model: keras.Model,
    data,
    recipe: Recipe | None = None,
    *,
    evaluations: int | None = None,
    resume: str | os.PathLike | None = None,
    save_freq: str | int = "epoch",
    callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
) -> keras.callbacks.History:
    """Trains a model on images by a recipe: `prepare`, `compile` and `fit`, no more.

    Args:
        model: a model of this package with a head of `data.num_classes`. It is trained
            in place, and compiled when this returns.
        data: `keras_vit.data.ImageData`, see `keras_vit.data.load`. The image size and
            the value range are taken from the model, the batch size and the augmentation
            from the recipe.
        recipe: `Recipe`; `None` for `SmallData.for_examples` of the training examples.
        evaluations: int, into how many equal parts ("epochs" to Keras) the steps are cut,
            with an evaluation on `data.validation` after each. Where it does not divide
            the steps, the nearest number that does is taken. `None` for one in each pass
            over the data, at most 20.
        resume: folder of checkpoints from which the same call goes on, bit for bit, where
            it was killed; `None` for none. For more than `save_freq` leave it out, and
            give `callbacks` an `ExactResume`.
        save_freq: `"epoch"`, for after each evaluation, or int, after how many batches
            a checkpoint is written to `resume`.
        callbacks: callbacks for `fit`, after those of the recipe.
        verbose: as in `fit`.

    Returns:
        The history of `fit`, an entry for each evaluation.

    Raises:
        ValueError: if the model is none of this package, its head has another number of
            classes than the data, it was built with other arguments than the recipe's
            `model_arguments` or for another resolution, the batches do not divide over
            the devices, an image cannot be read, all of the model is frozen, or each
            process of several would train for itself.

    Example:

    >>> data = keras_vit.data.load("flowers")
    >>> model = keras_vit.ViTB16(weights="augreg_imagenet21k", classes=data.num_classes,
    ...                          classifier_activation=None)
    >>> keras_vit.training.finetune(model, data)
    """
    check_processes(model)
    _check_data(data)
    recipe = _default_recipe(model, data) if recipe is None else recipe
    _check_recipe(recipe)
    _check_classes(model, data)
    data = configured(data, model, recipe)
    check_batches(data.pipeline.batch_size)
    recipe.prepare(model)
    if not model.trainable_weights:
        raise ValueError(
            f"A model must have weights to train. Received: {model.name!r}, all of it "
            "frozen. Use freeze(model, None), or a recipe with freeze='linear'."
        )
    model.compile(
        optimizer=recipe.optimizer(model),
        loss=recipe.loss_function(model),
        weighted_metrics=metrics(data.num_classes),  # images that pad a batch weigh 0
    )
    check(model)
    saves = []
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]  # as `fit` takes it
    if resume is not None:
        numbers = {"recipe": type(recipe).__name__, **dataclasses.asdict(recipe)}
        saves = [ExactResume(resume, save_freq, data=data, configuration=numbers)]
    epochs, steps_per_epoch = cut(recipe, data.num_examples["train"], evaluations)
    model.note(**notes(model, data, recipe))  # nothing is refused from here on
    with failures.named():
        return model.fit(
            data.train,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            validation_data=data.validation,
            callbacks=[*recipe.callbacks(), *saves, *callbacks],
            shuffle=False,  # the data is, by its own seed
            verbose=verbose,
        )


def _check_data(data):
    if not isinstance(data, ImageData):
        raise ValueError(
            "`data` must be what `keras_vit.data.load` makes of a folder, a CSV file, the "
            "name of a data set or arrays, as keras_vit.data.load((images, labels)). "
            f"Received: {type(data).__name__}"
        )


def _check_recipe(recipe):
    if not isinstance(recipe, Recipe):
        raise ValueError(
            "`recipe` must be a recipe with its numbers, as "
            f"SmallData.for_examples(1000). Received: {recipe!r}"
        )


def _default_recipe(model, data):
    recipe = SmallData.for_examples(data.num_examples["train"])
    if not isinstance(model, VisionTransformer | BiTResNet) or _is_of_any_size(model):
        return recipe
    return recipe.replace(resolution=model.get_config()["image_size"])


def _check_classes(model, data):
    if not isinstance(model, VisionTransformer | BiTResNet):
        raise ValueError(
            "`finetune` trains a VisionTransformer or a BiTResNet, with a head of its own. "
            f"Received: a {type(model).__name__}. Instead of layers around a model of this "
            "package give it another head: keras_vit.from_pretrained(model, "
            f"classes={data.num_classes}, classifier_activation=None). Any other model is "
            "trained with `compile` and `fit` on data.train."
        )
    classes = model.get_config()["classes"]
    if classes != data.num_classes:
        raise ValueError(
            "The model's head must have as many classes as the data. Received: "
            f"classes={classes}, data of {data.num_classes} classes. Build the model with "
            f"classes={data.num_classes}."
        )


def configured(data, model: keras.Model, recipe: Recipe):
    """The data as a recipe feeds it to a model: sizes, value range, augmentation.

    Args:
        data: `keras_vit.data.ImageData`. An augmentation that it was loaded with counts
            where the recipe has that of its class.
        model: a model of this package. Where it takes images of any size, they are of the
            recipe's resolution.
        recipe: `Recipe`.

    Raises:
        ValueError: if the recipe asks for another resolution than the model has, or the
            data and the recipe for two augmentations.
    """
    fields = {
        "batch_size": recipe.micro_batch_size or recipe.batch_size,
        "augmentation": _augmentation(data, recipe),
        "label_mode": "categorical",
    }
    data = data.configured_for(model, **fields)
    resolution = arguments.pair(recipe.resolution, "resolution")
    if _is_of_any_size(model):
        return data.configured(image_size=resolution)
    _check_resolution(data.pipeline.image_size, resolution, recipe)
    return data


def _is_of_any_size(model):
    return None in model.input_shape[1:]


def _augmentation(data, recipe):
    """The data's where it has one and the recipe none of its own, else the recipe's."""
    loaded, asked = data.pipeline.augmentation, recipe.augmentation
    if loaded in (Augmentation(), asked):
        return asked
    if asked == _default_of(recipe, "augmentation"):
        return loaded
    raise ValueError(
        "The data and the recipe have two augmentations. Received: data with "
        f"{_changes(loaded)}, a recipe with {_changes(asked)}. Say it once: load the data "
        "without `augmentation`, or give the recipe the data's: "
        "recipe.replace(augmentation=data.pipeline.augmentation)."
    )


def _changes(augmentation):
    """The fields of an augmentation that are not the default's, as text."""
    default = Augmentation()
    names = augmentation.__dataclass_fields__
    values = {n: getattr(augmentation, n) for n in names}
    changed = [f"{n}={v!r}" for n, v in values.items() if v != getattr(default, n)]
    return ", ".join(changed) or "the default one"


def _check_resolution(size, resolution, recipe):
    if size == resolution:
        return
    asked, taken = (f"{height} × {width}" for height, width in (resolution, size))
    if recipe.resolution == _default_of(recipe, "resolution"):
        log.warning(
            "%s is for images of %s; they are of %s, the size of the model.",
            *(type(recipe).__name__, asked, taken),
        )
        return
    raise ValueError(
        f"The recipe asks for images of {asked}, and the model takes {taken}. Build it for "
        "that size, as keras_vit.from_pretrained(model, "
        f"input_shape=({resolution[0]}, {resolution[1]}, 3)) does, or give the recipe "
        f"resolution={size}."
    )


def _default_of(recipe, name):
    """The default of a recipe's field."""
    field = recipe.__dataclass_fields__[name]
    if field.default_factory is dataclasses.MISSING:
        return field.default
    return field.default_factory()


def notes(model: keras.Model, data, recipe: Recipe) -> dict:
    """Notes of a training for the model's file: class names, the preparation of images.

    Args:
        model: a model of this package.
        data: `keras_vit.data.ImageData`, as `configured` for it.
        recipe: `Recipe`.
    """
    pipeline = data.pipeline
    preprocessing = {
        "evaluation_crop": pipeline.augmentation.evaluation_crop,
        "resize_factor": pipeline.augmentation.resize_factor,
    }
    for name in ("value_range", "alpha"):
        if (value := getattr(pipeline, name)) is not None:
            preprocessing[name] = value
    if pipeline.image_size != model.get_config()["image_size"]:
        preprocessing["image_size"] = pipeline.image_size
    return {
        "class_names": data.class_names,
        "probabilities": recipe.loss,
        "preprocessing": preprocessing,
    }


def metrics(num_classes: int) -> list:
    """Accuracy, and from six classes on top-5 accuracy, of one-hot labels."""
    chosen = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    if num_classes > 5:
        chosen.append(keras.metrics.TopKCategoricalAccuracy(k=5, name="top5_accuracy"))
    return chosen


def cut(recipe: Recipe, num_examples: int, evaluations: int | None) -> tuple[int, int]:
    """Keras' `epochs` and `steps_per_epoch`, of which the product is all micro-batches.

    Args:
        recipe: `Recipe`.
        num_examples: int, images in the training set.
        evaluations: see `finetune`.
    """
    if evaluations is None:
        passes = recipe.steps * recipe.batch_size / num_examples
        evaluations = min(EVALUATIONS, max(1, round(passes)))
    arguments.positive(evaluations, "evaluations")
    divisors = [d for d in range(1, recipe.steps + 1) if recipe.steps % d == 0]
    epochs = min(divisors, key=lambda d: abs(math.log(d / evaluations)))
    updates = recipe.steps // epochs
    return epochs, updates * recipe.gradient_accumulation_steps
