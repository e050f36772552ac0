"""`keras-vit pretrain`: the options of `keras_vit.runs.pretrain`, and its result."""

import argparse
import os
import shlex
import sys

from keras_vit.cli.options import (
    OK,
    add_command,
    add_image_size,
    add_settings,
    data_options,
    given,
    settings_of,
    size_of,
)
from keras_vit.cli.training_options import (
    add_machine,
    add_output,
    add_schedule,
    add_training_data,
    splits_of,
    training_process,
)
from keras_vit.runs import pretrain
from keras_vit.runs.objectives import OBJECTIVES
from keras_vit.runs.pretraining import VALIDATION_SPLIT
from keras_vit.runs.pretraining_choices import RECIPES
from keras_vit.tables import percent, table

# Options with the name of an argument of `pretrain`, beside those for the data.
_ARGUMENTS = ("objective", "model", "weights", "recipe", "labels", "epochs", "evaluations")
_ARGUMENTS += ("dtype", "strategy", "seed", "save_freq", "overwrite", "flip", "crop")
_ARGUMENTS += ("evaluation_crop", "steps", "batch_size", "micro_batch_size")
_ARGUMENTS += ("base_learning_rate", "warmup_steps", "weight_decay", "ema_momentum")
_ARGUMENTS += ("rematerialize", "mask_ratio", "target")
_DATA = (
    "a folder with images in it or in any of its folders (also below train, validation and "
    "test), a .csv or .tsv file of paths, or the name of a data set of TensorFlow Datasets"
)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands, "pretrain", _pretrain, "train an encoder on images without labels"
    )
    parser.add_argument("data", metavar="DATA", help=_DATA)
    add_output(parser)
    _add_objective(parser)
    add_training_data(parser, VALIDATION_SPLIT)
    _add_model(parser)
    group = parser.add_argument_group("the recipe")
    group.add_argument(
        "--recipe",
        choices=RECIPES,
        default="auto",
        help="auto (default): for one machine, hyperparameters chosen by the size of the "
        "data set; paper: that of the objective's paper, for a cluster",
    )
    add_schedule(group)
    add_machine(parser)


def _add_objective(parser):
    group = parser.add_argument_group("the objective")
    group.add_argument(
        "--objective",
        choices=OBJECTIVES,
        default="masked_autoencoder",
        help="what is learned: "
        + "; ".join(f"{name}, {one.paper}" for name, one in OBJECTIVES.items())
        + " (default: %(default)s)",
    )
    group.add_argument(
        "--mask-ratio",
        type=float,
        metavar="SHARE",
        help="share of the patches that is hidden (default: the paper's)",
    )
    group.add_argument(
        "--target",
        metavar="NAME",
        help="of masked_patch_prediction: mean_color (default), downsized or pixels",
    )
    group.add_argument(
        "--labels",
        choices=("optional", "none"),
        help="optional (default): if images lie in folders of classes, or a CSV file has "
        "the column, report how many nearest neighbours are of the same class; none: read "
        "no labels",
    )


def _add_model(parser):
    group = parser.add_argument_group("the encoder")
    group.add_argument(
        "--model", metavar="NAME", help="architecture, such as ViTS16; see the README"
    )
    group.add_argument(
        "--weights",
        metavar="WEIGHTS",
        help="where to begin: none (default); with --model a tag, such as "
        "augreg_imagenet21k; without --model a checkpoint's file or address, the name of a "
        "preset or the folder of a run",
    )
    add_image_size(group, "size of the images in pixels (default: the recipe's)")
    add_settings(group, "drop_path_rate=0.1 or decoder_num_layers=4")


def _pretrain(args):
    objective = OBJECTIVES[args.objective]
    with training_process(args):
        trained = pretrain(
            args.data,
            args.output,
            verbose=1 if sys.stdout.isatty() else 2,
            say=lambda line: print(line, flush=True),
            **{
                **given(args, _ARGUMENTS),
                **data_options(args),
                "splits": splits_of(args.splits) or None,
                "image_size": size_of(args.image_size),
                **settings_of(args.set, objective.options),
            },
        )
        if trained.summary is not None:
            _print(trained)
        return OK


def _print(trained):
    summary, folder = trained.summary, shlex.quote(os.fspath(trained.run.path))
    print()
    print(f"validation loss {summary['loss']:.4f} at step {summary['step']:,}")
    if "knn_accuracy" in summary:
        before = summary["knn_accuracy_before"]
        print(
            f"nearest-neighbour accuracy {percent(summary['knn_accuracy'])}, before the "
            f"first step {percent(before)}"
        )
    facts = [
        ("report", os.fspath(trained.report)),
        ("encoder", os.fspath(trained.encoder)),
        ("finetune", f"keras-vit finetune DATA --weights {folder} --output FOLDER"),
    ]
    print(table(facts, left=(0, 1)))
