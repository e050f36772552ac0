"""`keras-vit finetune`: the options of `keras_vit.runs.fine_tune`, and its result."""

import argparse
import contextlib
import os
import shlex
import signal
import sys
import threading

from keras_vit.cli.options import (
    DATA,
    OK,
    add_command,
    add_data_options,
    add_dtype,
    add_image_size,
    add_numbers,
    add_rematerialize,
    add_seed,
    add_settings,
    data_options,
    given,
    settings_of,
    size_of,
)
from keras_vit.cli.output import print_result
from keras_vit.data.augment import CROPS, EVALUATION_CROPS
from keras_vit.distribution import initialize, is_first_process
from keras_vit.distribution.jax_processes import environment_has_processes
from keras_vit.distribution.strategies import STRATEGIES
from keras_vit.runs import fine_tune
from keras_vit.runs.choices import RECIPES
from keras_vit.tables import table
from keras_vit.training.resume.signals import EXIT_CODES

# Options with the name of an argument of `fine_tune`, beside those for the data.
_ARGUMENTS = ("model", "weights", "recipe", "epochs", "evaluations", "dtype", "strategy")
_ARGUMENTS += ("seed", "save_freq", "overwrite", "flip", "crop", "evaluation_crop")
_ARGUMENTS += ("steps", "batch_size", "micro_batch_size", "base_learning_rate", "freeze")
_ARGUMENTS += ("warmup_steps", "weight_decay", "label_smoothing", "layerwise_decay")
_ARGUMENTS += ("lora_rank", "ema_momentum", "rematerialize")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands, "finetune", _finetune, "train a model on images of your own"
    )
    parser.add_argument("data", metavar="DATA", help=DATA)
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="the run folder to write"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the training in that folder, also an unfinished one",
    )
    _add_data(parser)
    _add_model(parser)
    _add_recipe(parser)
    _add_machine(parser)


def _add_data(parser):
    group = parser.add_argument_group("the images")
    add_data_options(group)
    group.add_argument(
        "--split",
        dest="splits",
        action="append",
        default=[],
        metavar="NAME=PART",
        help="part of the data for train, validation or test: train=train[:90%%] of "
        "TensorFlow Datasets, the name of a sub-folder, a value in the CSV file; may be "
        "repeated, also for several parts of one split",
    )
    for split, default in (("validation", 0.2), ("test", 0.0)):
        group.add_argument(
            f"--{split}-split",
            type=float,
            metavar="SHARE",
            help=f"share of the training images to keep for {split} if there are no "
            f"{split} images (default: {default})",
        )
    group.add_argument(
        "--no-flip",
        dest="flip",
        action="store_false",
        default=None,
        help="never mirror an image: for text, and classes that differ in left and right",
    )
    group.add_argument(
        "--crop",
        choices=CROPS,
        help="part of a training image: inception, a random part of any shape; random, a "
        "random square; square, a random part of the whole image made square; resize, the "
        "whole image (default: the recipe's)",
    )
    group.add_argument(
        "--evaluation-crop",
        choices=EVALUATION_CROPS,
        help="part of all other images: center, or resize for the whole image (default: "
        "the recipe's)",
    )


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


def _add_recipe(parser):
    group = parser.add_argument_group("the recipe")
    group.add_argument(
        "--recipe",
        choices=RECIPES,
        default="auto",
        help="auto (default): bit for the ResNets, else small; small: Adam, "
        "hyperparameters chosen by the size of the data set; vit, vtab, bit, bigvision: "
        "those of the papers",
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="updates of the weights")
    length.add_argument("--epochs", type=float, metavar="N", help="passes over the images")
    numbers = {
        "batch-size": (int, "images in each update"),
        "micro-batch-size": (int, "images in memory at a time; accumulates gradients"),
        "base-learning-rate": (float, "learning rate after the warm-up"),
        "warmup-steps": (int, "steps in which the learning rate rises"),
        "weight-decay": (float, "weight decay, multiplied by the learning rate"),
        "label-smoothing": (float, "label smoothing"),
        "layerwise-decay": (float, "decay of the learning rate, by layer from the head"),
        "lora-rank": (int, "rank of LoRA's updates; trains them and the head only"),
        "ema-momentum": (float, "momentum of a moving average of the weights, as 0.999"),
    }
    add_numbers(group, numbers)
    group.add_argument(
        "--freeze",
        metavar="WHAT",
        type=lambda text: int(text) if text.isdigit() else text,
        help="weights to train: linear (the head), norms, or a number of last blocks",
    )
    group.add_argument(
        "--evaluations", type=int, metavar="N", help="evaluations on the validation images"
    )


def _add_machine(parser):
    group = parser.add_argument_group("the machine")
    add_dtype(group)
    add_rematerialize(group)
    group.add_argument(
        "--strategy",
        default="auto",
        metavar="NAME",
        help="auto (default): all accelerators, on torch the processes of torchrun; "
        f"{', '.join(STRATEGIES[1:])}; with the number of devices that share a layer "
        "tensor_parallel:4, fully_sharded:4; fsdp is fully_sharded",
    )
    group.add_argument(
        "--multi-process",
        action="store_true",
        help="this is one of several processes of JAX, started by Cloud TPU, SLURM (srun), "
        "Open MPI or Kubernetes, or described by KERAS_DISTRIBUTION_JOB_ADDRESSES, "
        "_NUM_PROCESSES and _PROCESS_ID",
    )
    add_seed(group)
    group.add_argument(
        "--save-freq",
        type=int,
        metavar="N",
        help="batches between the checkpoints from which the same command resumes if it is "
        "killed (default: one at each evaluation)",
    )


def _finetune(args):
    if args.multi_process or environment_has_processes():
        initialize()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_exit_code_for_sigterm())
        if not is_first_process():
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(silence))
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


@contextlib.contextmanager
def _exit_code_for_sigterm():
    """Ends the process with 75 ("run it again") on SIGTERM, also before and after `fit`."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number, frame):
    raise SystemExit(EXIT_CODES[number])


def _arguments(args):
    """The arguments of `fine_tune`; those of `--set` come last."""
    arguments = {
        **given(args, _ARGUMENTS),
        **data_options(args),
        "splits": _splits(args.splits) or None,
        "image_size": size_of(args.image_size),
        **settings_of(args.set),
    }
    return arguments


def _splits(texts):
    """The parts of each split: one, or a list if it is named several times."""
    splits = {}
    for name, part in map(_split, texts):
        splits.setdefault(name, []).append(part)
    return {name: p[0] if len(p) == 1 else p for name, p in splits.items()}


def _split(text):
    name, equals, part = text.partition("=")
    if not equals or name not in ("train", "validation", "test") or not part:
        raise ValueError(
            "`--split` takes NAME=PART, where NAME is train, validation or test. "
            f"Received: {text!r}"
        )
    return name, part


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
