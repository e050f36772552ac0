"""`keras-vit predict`: the most probable classes of images, as a table or JSON."""

import argparse
import json
import sys
from collections.abc import Iterable

from keras_vit.cli.options import (
    ERROR,
    OK,
    RUN,
    add_batch_size,
    add_class_index,
    add_command,
    add_images,
    add_merging,
    add_reading,
    add_top,
    given,
)
from keras_vit.cli.output import one_line, warn
from keras_vit.cli.wording import in_options
from keras_vit.runs import Prediction, predict
from keras_vit.tables import table

_ARGUMENTS = ("top", "batch_size", "class_index", "value_range", "alpha", "merged_tokens")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(commands, "predict", _predict, "classify images")
    parser.add_argument("source", metavar="RUN", help=RUN)
    add_images(parser)
    add_top(parser, "classes to print for each image")
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON for each image"
    )
    add_batch_size(parser)
    add_class_index(parser)
    add_merging(parser)
    add_reading(parser)


def _predict(args):
    predictions = predict(
        args.source,
        args.images,
        say=lambda text: warn(in_options(text, args.command)),
        **given(args, _ARGUMENTS),
    )
    printed = print_json if args.json else print_table
    return ERROR if printed(predictions, args.command) else OK


def print_json(predictions: Iterable[Prediction], command: argparse.ArgumentParser) -> bool:
    """Prints a line for each image at once; True if one of them failed."""
    failed = False
    for prediction in predictions:
        line = {"image": prediction.image}
        if prediction.error:
            failed, line["error"] = True, in_options(prediction.error, command)
        else:
            line["predictions"] = [
                {"index": row.index, "class": row.name, "probability": row.probability}
                for row in prediction.classes
            ]
        print(json.dumps(line), flush=True)
    return failed


def print_table(
    predictions: Iterable[Prediction], command: argparse.ArgumentParser
) -> bool:
    """Prints a table of all images; True if one of them failed."""
    rows, failed = [], False
    for prediction in predictions:
        image = one_line(prediction.image)
        if prediction.error:
            failed = True
            error = in_options(prediction.error, command)
            print(f"keras-vit: error: {image}: {error}", file=sys.stderr)
        else:
            columns = [
                (one_line(row.name), f"{100 * row.probability:.1f} %")
                for row in prediction.classes
            ]
            rows.append((image, *(cell for pair in columns for cell in pair)))
    if rows:
        # Names are aligned left, numbers right.
        print(table(rows, left=(0, *range(1, len(rows[0]), 2))))
    return failed
