"""`keras-vit evaluate --protocol`: a representation judged by simple classifiers."""

import argparse
import json
from pathlib import Path

from keras_vit.cli.options import OK, data_options, given
from keras_vit.cli.output import verbosity, warn
from keras_vit.evaluation.few_shot_regression import FEWER
from keras_vit.output_paths import check_file, partial_path
from keras_vit.runs import evaluate_representation
from keras_vit.runs.representation import PROTOCOLS, TEST_SPLIT, check_settings

# Options that are settings of a protocol, and those that name an argument.
_SETTINGS = ("shots", "fewer", "seeds", "l2", "k", "temperature")
_ARGUMENTS = ("layer", "cache_dir")
_SHARED = ("split", "batch_size", "merged_tokens")
_OTHERS = ("by_order", "report")  # of an evaluation without a protocol


def add_protocols(parser: argparse.ArgumentParser) -> None:
    """Adds the options of protocols to the parser of `evaluate`."""
    group = parser.add_argument_group(
        "protocols",
        "Judge the features instead of the head: classify the test images by the features "
        "of the training images, without training the model.",
    )
    group.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        help="few-shot: linear regression on a few images of each class; knn: vote of the "
        "nearest neighbours; linear: logistic regression on all training images",
    )
    group.add_argument(
        "--layer",
        metavar="NAME",
        help="layer that gives the features, such as pre_logits (default: pooled, the "
        "class token or mean after the last norm)",
    )
    group.add_argument(
        "--shots",
        type=int,
        nargs="+",
        metavar="N",
        help="training images of each class (few-shot; default: 1 5 10 25)",
    )
    group.add_argument(
        "--fewer",
        choices=FEWER,
        help="for a class with fewer images than that, use all that it has (default) or "
        "raise an error (few-shot)",
    )
    group.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="N",
        help="seeds of the choice of these images (few-shot; default: 0)",
    )
    group.add_argument(
        "--l2",
        type=float,
        nargs="+",
        metavar="X",
        help="regularisations: each in turn (few-shot; default: 1024), or to choose from "
        "on validation images (linear; default: 0.01 1 100 10000)",
    )
    group.add_argument(
        "--k",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of neighbours (knn; default: 10 20)",
    )
    group.add_argument(
        "--temperature",
        type=_temperature,
        metavar="X",
        help="temperature of the votes, or none for votes that count the same (knn; "
        "default: 0.07)",
    )
    group.add_argument(
        "--test-split",
        type=float,
        metavar="X",
        help="share of the images to test, if DATA has no split but train (default: "
        f"{TEST_SPLIT})",
    )
    group.add_argument(
        "--cache-dir", metavar="FOLDER", help="folder that keeps the features"
    )
    group.add_argument("--output", metavar="FILE", help="write the JSON there, too")
    group.add_argument(
        "--overwrite", action="store_true", help="replace the file of --output"
    )


def evaluate_protocol(args: argparse.Namespace) -> int:
    """Runs `evaluate` with a protocol, and returns the exit status."""
    if others := [name for name in _OTHERS if getattr(args, name)]:
        raise ValueError(f"`{others[0]}` is for an evaluation without `protocol`.")
    settings = given(args, _SETTINGS)
    if settings.get("temperature") == "none":
        settings["temperature"] = None
    check_settings(args.protocol, settings)  # first, as loading the model takes time
    if args.output:
        check_file(args.output, args.overwrite)
    found = evaluate_representation(
        args.source,
        args.data,
        protocol=args.protocol,
        settings=settings,
        verbose=verbosity(args),
        say=warn,
        **given(args, (*_ARGUMENTS, *_SHARED)),
        **data_options(args),
    )
    text = json.dumps(found.summary())
    print(text if args.json else found)
    if args.output:
        with partial_path(args.output) as path:
            Path(path).write_text(f"{text}\n", "utf-8")
    return OK


def check_no_protocol(args: argparse.Namespace) -> None:
    """Raises a ValueError if an option of a protocol is given without one."""
    if given(args, names := (*_SETTINGS, *_ARGUMENTS, "test_split", "output")):
        first = next(name for name in names if getattr(args, name) is not None)
        raise ValueError(
            f"`{first}` is for a protocol. Give `protocol` as well: {', '.join(PROTOCOLS)}."
        )


def _temperature(text):
    return text if text == "none" else float(text)
