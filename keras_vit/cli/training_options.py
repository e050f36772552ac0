"""Options that the sub-commands have in common that train, and their process."""

import argparse
import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence

from keras_vit.cli.options import (
    Parser,
    add_data_options,
    add_dtype,
    add_numbers,
    add_rematerialize,
    add_seed,
)
from keras_vit.data.augment import CROPS, EVALUATION_CROPS
from keras_vit.distribution import initialize, is_first_process
from keras_vit.distribution.jax_processes import environment_has_processes
from keras_vit.distribution.strategies import STRATEGIES
from keras_vit.training.resume.signals import EXIT_CODES


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds `--output` and `--overwrite`."""
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="the run folder to write"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the training in that folder, also an unfinished one",
    )


def add_training_data(
    parser: argparse.ArgumentParser, validation_split: float = 0.2
) -> None:
    """Adds the options for images to train on.

    Args:
        parser: the parser of a sub-command.
        validation_split: share of the training images that is kept for validation.
    """
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
    for split, default in (("validation", validation_split), ("test", 0.0)):
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


def add_schedule(parser: Parser) -> None:
    """Adds the options of a recipe that every training has."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="updates of the weights")
    length.add_argument("--epochs", type=float, metavar="N", help="passes over the images")
    numbers = {
        "batch-size": (int, "images in each update"),
        "micro-batch-size": (int, "images in memory at a time; accumulates gradients"),
        "base-learning-rate": (float, "learning rate after the warm-up"),
        "warmup-steps": (int, "steps in which the learning rate rises"),
        "weight-decay": (float, "weight decay, multiplied by the learning rate"),
        "ema-momentum": (float, "momentum of a moving average of the weights, as 0.999"),
        "evaluations": (int, "evaluations on the validation images"),
    }
    add_numbers(parser, numbers)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Adds the options on devices, dtypes, seeds and saving."""
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


def splits_of(texts: Sequence[str]) -> dict[str, str | list[str]]:
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


@contextlib.contextmanager
def training_process(args: argparse.Namespace) -> Iterator[None]:
    """The process of a training: one of several if it is, of which the first prints."""
    if args.multi_process or environment_has_processes():
        initialize()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_exit_code_for_sigterm())
        if not is_first_process():
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        yield


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
