"""`keras-vit plan`: memory and time of a training on devices that are not here."""

import argparse
import contextlib
import json
import sys

from keras_vit import arguments
from keras_vit.cli.options import (
    DIFFERENT,
    OK,
    add_command,
    add_dtype,
    add_image_size,
    add_numbers,
    add_rematerialize,
    add_settings,
    settings_of,
    size_of,
)
from keras_vit.planning import CHIPS, CLASSES, PlannedObjective, plan
from keras_vit.planning.targets import CPU
from keras_vit.runs.objectives import OBJECTIVES
from keras_vit.training.recipe import MODEL_ARGUMENTS, Recipe
from keras_vit.training.recipes import (
    IMAGENET,
    IMAGENET_21K,
    JFT_300M,
    NUM_EXAMPLES,
    AugReg,
    BigVisionS16,
    DeiT,
    ViTFineTuning,
    ViTPreTraining,
)
from keras_vit.zoo.constructors import CONSTRUCTORS

# The data that each recipe is for by default.
RECIPES = {
    "pretraining": JFT_300M,
    "augreg": IMAGENET_21K,
    "deit": IMAGENET,
    "vit": IMAGENET,
    "bigvision": IMAGENET,
}


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands,
        "plan",
        _plan,
        "compile a training step for devices that are not here: does it fit, and how fast "
        "is it at best (exit status 1 if it does not fit)",
    )
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="architecture, such as ViTH14"
    )
    parser.add_argument(
        "--devices",
        required=True,
        metavar="NAME",
        help=f"kind of TPU or GPU ({', '.join(CHIPS)}) and its topology, such as v5e:4x4 "
        "or h100:8, or cpu:8 for virtual devices of the CPU",
    )
    parser.add_argument(
        "--strategy",
        default="auto",
        metavar="NAME",
        help="auto (default: data_parallel), fully_sharded or fsdp; with the number of "
        "devices that share a layer tensor_parallel:4, fully_sharded:4",
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="pretraining (default): the ViT paper's, table 3; augreg, deit: for any "
        "model; vit, bigvision: as in `finetune`",
    )
    parser.add_argument(
        "--objective",
        choices=OBJECTIVES,
        help="plan `keras-vit pretrain` by this objective and its paper's recipe, without "
        "labels, in place of --recipe",
    )
    parser.add_argument(
        "--data",
        choices=CLASSES,
        metavar="NAME",
        help=f"{', '.join(CLASSES)}: sets the number of classes and steps (default: "
        f"{', '.join(f'{data} for {name}' for name, data in RECIPES.items())})",
    )
    numbers = {
        "batch-size": "images in each update, on all devices together",
        "micro-batch-size": "images in memory at a time; accumulates gradients",
        "steps": "updates of the weights",
        "epochs": "passes over the data, but for vit and bigvision",
        "classes": "classes of the head (default: those of the data)",
    }
    add_numbers(parser, {name: (int, text) for name, text in numbers.items()})
    add_rematerialize(parser)
    add_image_size(parser, "size of the images in pixels (default: the recipe's)")
    add_dtype(parser, default="mixed_bfloat16")
    add_settings(parser, "dropout_rate=0.1")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _plan(args):
    arguments.one_of(args.model, CONSTRUCTORS, "model")
    row = OBJECTIVES[args.objective] if args.objective else None
    if row:
        for name in ("recipe", "classes"):
            if (given := getattr(args, name)) is not None:
                raise ValueError(
                    "An objective has its paper's recipe and no classes. Received: "
                    f"--objective {args.objective} --{name} {given}. Leave one out."
                )
    args.recipe = args.recipe or "pretraining"
    settings = settings_of(args.set, row.options if row else ())
    recipe = _recipe(args, settings)
    objective = _objective(args.objective, recipe, settings) if row else None
    _prepare_jax(args.devices)
    made = plan(
        args.model,
        args.devices,
        args.strategy,
        recipe,
        classes=args.classes or CLASSES[args.data or RECIPES[args.recipe]],
        objective=objective,
        dtype=args.dtype,
        say=lambda line: print(f"… {line}", file=sys.stderr, flush=True),
        **{name: value for name, value in settings.items() if name not in MODEL_ARGUMENTS},
    )
    print(json.dumps(made.summary(), indent=2) if args.json else made)
    return DIFFERENT if made.fits is False else OK


def _objective(name, recipe, settings) -> PlannedObjective:
    """The objective, whose arguments are taken out of the settings."""
    row = OBJECTIVES[name]
    own = {option: settings.pop(option) for option in row.options if option in settings}

    def around(encoder):
        return row.model(encoder, **{**row.arguments(encoder, recipe, 0), **own})

    return PlannedObjective(name, around, row.operations)


def _recipe(args, settings) -> Recipe:
    given = {"batch_size": args.batch_size} if args.batch_size else {}
    length = {"epochs": args.epochs} if args.epochs else {}
    data = args.data or RECIPES[args.recipe]
    if args.objective:
        data = args.data or IMAGENET
        recipe = OBJECTIVES[args.objective].paper_recipe(
            NUM_EXAMPLES[data], **length, **given
        )
    elif args.recipe in ("vit", "bigvision"):
        for name in ("epochs", "data"):
            if getattr(args, name) is not None:
                raise ValueError(
                    f"`--{name}` is for the recipes pretraining, augreg and deit. "
                    f"Received: --recipe {args.recipe}. Give --steps and --classes instead."
                )
        kind = {"vit": ViTFineTuning, "bigvision": BigVisionS16}[args.recipe]
        recipe = kind(**given)
    elif args.recipe == "deit":
        recipe = DeiT.for_examples(NUM_EXAMPLES[data], **length, **given)
    elif args.recipe == "augreg":
        recipe = AugReg.of("none", data, **length, **given)
    else:
        try:
            recipe = ViTPreTraining.for_model(args.model, data, **length, **given)
        except ValueError as error:
            raise ValueError(
                f"{error}. Use --recipe augreg, which is for every model."
            ) from error
    changes = {
        "micro_batch_size": args.micro_batch_size,
        "steps": args.steps,
        "rematerialize": args.rematerialize,
        "image_size": size_of(args.image_size),
        **{name: value for name, value in settings.items() if name in MODEL_ARGUMENTS},
    }
    return recipe.replace(**{k: v for k, v in changes.items() if v is not None})


def _prepare_jax(devices):
    """Makes JAX start with CPU devices only, as many as `devices` names."""
    with contextlib.suppress(ImportError):  # `plan` raises it in words
        import jax

        jax.config.update("jax_platforms", "cpu")
        kind, _, number = devices.partition(":")
        if kind == CPU and number.isdigit():
            # Too late if another program has started JAX: then `plan` counts them.
            with contextlib.suppress(RuntimeError):
                jax.config.update("jax_num_cpu_devices", int(number))
