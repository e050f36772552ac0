"""`keras-vit finetune`: the options of `keras_vit.runs.fine_tune`, and its result."""

import argparse
import os
import shlex
import sys

from keras_vit.cli.options import (
    DATA,
    OK,
    add_command,
    add_image_size,
    add_numbers,
    add_settings,
    data_options,
    given,
    settings_of,
    size_of,
)
from keras_vit.cli.output import print_result
from keras_vit.cli.training_options import (
    add_machine,
    add_output,
    add_schedule,
    add_training_data,
    splits_of,
    training_process,
)
from keras_vit.runs import fine_tune
from keras_vit.runs.choices import RECIPES
from keras_vit.runs.teachers import DISTILLATIONS
from keras_vit.tables import table

# Options with the name of an argument of `fine_tune`, beside those for the data.
_ARGUMENTS = ("model", "weights", "recipe", "epochs", "evaluations", "dtype", "strategy")
_ARGUMENTS += ("seed", "save_freq", "overwrite", "flip", "crop", "evaluation_crop")
_ARGUMENTS += ("steps", "batch_size", "micro_batch_size", "base_learning_rate", "freeze")
_ARGUMENTS += ("warmup_steps", "weight_decay", "label_smoothing", "layerwise_decay")
_ARGUMENTS += ("lora_rank", "ema_momentum", "rematerialize", "teacher", "distillation")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands, "finetune", _finetune, "train a model on images of your own"
    )
    parser.add_argument("data", metavar="DATA", help=DATA)
    add_output(parser)
    add_training_data(parser)
    _add_model(parser)
    _add_recipe(parser)
    add_machine(parser)


def _add_model(parser):
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--model", metavar="NAME", help="architecture, such as ViTB16; see the README"
    )
    group.add_argument(
        "--weights",
        metavar="WEIGHTS",
        help="with --model a tag, such as augreg_imagenet21k (default: the first that "
        "`keras-vit list` shows), or none to train from scratch; without --model a "
        "checkpoint's file or address, the name of a preset or the folder of a run",
    )
    add_image_size(group, "size of the images in pixels (default: the recipe's)")
    add_settings(group, "drop_path_rate=0.1")
    group.add_argument(
        "--teacher",
        metavar="WEIGHTS",
        help="a classifier of the same classes, from whose answers the model learns beside "
        "the labels: a checkpoint, the name of a preset or the folder of a run; with --set "
        "distilled=true through a distillation token, as DeiT",
    )
    group.add_argument(
        "--distillation",
        choices=DISTILLATIONS,
        help="hard (default with --teacher): its answer counts as a label; soft: its "
        "probabilities do",
    )


def _add_recipe(parser):
    group = parser.add_argument_group("the recipe")
    group.add_argument(
        "--recipe",
        choices=RECIPES,
        default="auto",
        help="auto (default): bit for the ResNets, else small; small: Adam, "
        "hyperparameters chosen by the size of the data set; vit, vtab, bit, bigvision, "
        "deit: those of the papers",
    )
    add_schedule(group)
    numbers = {
        "label-smoothing": (float, "label smoothing"),
        "layerwise-decay": (float, "decay of the learning rate, by layer from the head"),
        "lora-rank": (int, "rank of LoRA's updates; trains them and the head only"),
    }
    add_numbers(group, numbers)
    group.add_argument(
        "--freeze",
        metavar="WHAT",
        type=lambda text: int(text) if text.isdigit() else text,
        help="weights to train: linear (the head), norms, or a number of last blocks",
    )


def _finetune(args):
    with training_process(args):
        trained = fine_tune(
            args.data,
            args.output,
            verbose=1 if sys.stdout.isatty() else 2,
            say=lambda line: print(line, flush=True),
            **_arguments(args),
        )
        if trained.result is not None:
            _print(trained)
        return OK


def _arguments(args):
    """The arguments of `fine_tune`; those of `--set` come last."""
    arguments = {
        **given(args, _ARGUMENTS),
        **data_options(args),
        "splits": splits_of(args.splits) or None,
        "image_size": size_of(args.image_size),
        **settings_of(args.set),
    }
    return arguments


def _print(trained):
    print()
    print_result(trained.result)
    folder = shlex.quote(os.fspath(trained.run.path))
    facts = [
        ("report", os.fspath(trained.report)),
        ("model", os.fspath(trained.best_checkpoint)),
        ("predict", f"keras-vit predict {folder} IMAGE …"),
    ]
    print(table(facts, left=(0, 1)))
