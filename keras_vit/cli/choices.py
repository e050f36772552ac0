"""The recipe and the model that the arguments of `keras-vit finetune` ask for."""

import contextlib
import os

import keras
import numpy as np

import keras_vit
from keras_vit import arguments
from keras_vit.cli.options import size_of
from keras_vit.models.sizes import architecture_fields
from keras_vit.presets import PRESETS, Preset, find_preset
from keras_vit.runs import find_run
from keras_vit.training.recipe import OF_THE_MODEL, Recipe
from keras_vit.training.recipes import (
    FINE_TUNING,
    VTAB,
    BigVisionS16,
    BiTHyperRule,
    SmallData,
    ViTFineTuning,
    steps_of,
)
from keras_vit.weights.checkpoint import split_subtree
from keras_vit.weights.files.opening import ENDINGS

RECIPES = ("auto", "small", "vit", "vtab", "bit", "bigvision")
AUGMENTATION = ("flip", "crop", "evaluation_crop")  # what of it has an option
NO_WEIGHTS = "none"
FROZEN = ("linear", "norms")
_LOOKED_AT = 16  # images, of which the usual size is taken


def recipe_of(args, data, settings: dict, known: str | None) -> Recipe:
    """The recipe with its numbers for the data, and what the arguments change."""
    changes = {
        "steps": args.steps,
        "batch_size": args.batch_size,
        "micro_batch_size": args.micro_batch_size,
        "base_learning_rate": args.learning_rate,
        "warmup_steps": args.warmup_steps,
        "weight_decay": args.weight_decay,
        "resolution": size_of(args.resolution),
        "label_smoothing": args.label_smoothing,
        "layerwise_decay": args.layerwise_decay,
        "lora_rank": args.lora_rank,
        "ema_momentum": args.ema,
        "freeze": _frozen(args.freeze),
        "rematerialize": args.rematerialize,
        **{name: value for name, value in settings.items() if name in OF_THE_MODEL},
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    recipe = _recipe_of_the_data(args, data, known)
    augmentation = {
        name: getattr(args, name)
        for name in AUGMENTATION
        if getattr(args, name) is not None
    }
    if augmentation:
        changes["augmentation"] = recipe.augmentation.replace(**augmentation)
    if args.epochs is not None:
        if args.epochs <= 0:
            raise ValueError(f"`--epochs` must be positive. Received: {args.epochs}")
        batch_size = changes.get("batch_size", recipe.batch_size)
        changes["steps"] = steps_of(args.epochs, data.num_examples["train"], batch_size)
    return recipe.replace(**changes)


def _frozen(text):
    if text is None or text in FROZEN:
        return text
    if text.isdigit():
        return int(text)
    raise ValueError(
        f"`--freeze` must be one of {', '.join(FROZEN)}, or a number of last blocks to "
        f"train. Received: {text!r}"
    )


def _recipe_of_the_data(args, data, known):
    """With the numbers for this many examples, as far as the recipe has any."""
    name, examples = args.recipe, data.num_examples["train"]
    if name == "auto":
        is_bit = known and "num_units" in keras_vit.describe(known).config()
        name = "bit" if is_bit else "small"
    if name == "small":
        given = {"batch_size": args.batch_size} if args.batch_size else {}
        return SmallData.for_examples(examples, **given)
    if name == "bit":
        return BiTHyperRule.for_data(examples, _usual_size(data))
    tfds_name = data.name.split("/")[0]  # without configuration and version
    if name == "vit" and tfds_name in FINE_TUNING:
        return ViTFineTuning.for_data(tfds_name)
    return {"vit": ViTFineTuning, "vtab": VTAB, "bigvision": BigVisionS16}[name]()


def _usual_size(data):
    indices = np.linspace(0, data.num_examples["train"] - 1, _LOOKED_AT).astype(int)
    sizes = [image.shape[:2] for image in data.images("train", indices)]
    return tuple(int(side) for side in np.median(sizes, axis=0))


def known_model(args) -> str | None:
    """What `describe` knows the model by; `None` where only a checkpoint tells it.

    Raises:
        ValueError: if the arguments name no model, or one that there is not.
        FileNotFoundError: if there is no such checkpoint.
    """
    if args.model is not None:
        if args.model not in constructors():
            raise ValueError(
                f"`--model` must be one of {', '.join(constructors())}. Received: "
                f"{args.model!r}"
            )
        if args.weights not in (None, NO_WEIGHTS):
            _check_weights(args.model, args.weights)
        return args.model
    if args.weights in (None, NO_WEIGHTS):
        raise ValueError(
            "Nothing says which model to train. Give --model, such as --model ViTB16, "
            "or a checkpoint as --weights. `keras-vit list` lists those with a name."
        )
    return args.weights if _preset(args.weights) else None


def constructors() -> list[str]:
    """Names of the architectures that the package has a constructor for."""
    known = {}
    for name in keras_vit.__all__:
        with contextlib.suppress(ValueError):
            known[name] = architecture_fields(name)
    return list(known)


def _preset(weights) -> Preset | None:
    """The preset of a name, `None` of a file or an address."""
    path, _ = split_subtree(weights)
    if "://" in weights or os.path.exists(path):
        return None
    if os.sep in path or path.endswith(ENDINGS):
        raise FileNotFoundError(f"There is no checkpoint at {weights!r}")
    return find_preset(weights)


def _check_weights(model, weights):
    tags = [row.tag for row in PRESETS.values() if row.architecture == model]
    if weights in tags:
        return
    try:
        preset = _preset(weights)
    except ValueError as error:
        raise ValueError(
            f"Unknown `--weights` of {model}: {weights!r}. Expected one of the tags "
            f"{', '.join(tags) or '(none is published)'}; the name of a file of AugReg or "
            "BiT; a file or an address; or none."
        ) from error
    if preset and preset.architecture != model:
        raise ValueError(
            f"{weights!r} is a checkpoint of {preset.architecture}. Received: --model "
            f"{model}. Leave --model out, or give the tag of another checkpoint."
        )


def build(args, data, recipe: Recipe, settings: dict) -> keras.Model:
    """The model, with a head for the classes of the data."""
    model = _from_weights(args, data, recipe, settings)
    head = model.get_layer("head")
    is_new = not np.any(keras.ops.convert_to_numpy(head.kernel))  # zeros, as all new ones
    if is_new or _class_names(args.weights, model) == data.class_names:
        return model
    # What another data set of as many classes left in the head says nothing here.
    given = {"classifier_activation": None, **recipe.model_arguments()}
    headless = keras_vit.from_pretrained(model, classes=0)
    return keras_vit.from_pretrained(headless, classes=data.num_classes, **given)


def _from_weights(args, data, recipe, settings):
    given = {
        "image_size": arguments.pair(recipe.resolution, "resolution"),
        "classes": data.num_classes,
        "classifier_activation": None,
        "dtype": args.precision,
        "trainable": True,  # what `--freeze` says counts, not what a file was trained by
        **settings,
        **recipe.model_arguments(),
    }
    if not args.model:
        found = find_run(args.weights)
        return keras_vit.from_pretrained(found[1] if found else args.weights, **given)
    if args.weights is not None:
        given["weights"] = None if args.weights == NO_WEIGHTS else args.weights
    return getattr(keras_vit, args.model)(**given)


def _class_names(weights, model):
    """Names of the classes that a model was trained on, `None` where nothing tells them."""
    if noted := model.get_config().get("class_names"):
        return noted
    found = find_run(weights) if weights else None  # an earlier version's
    return tuple(found[0].config()["class_names"]) if found else None
