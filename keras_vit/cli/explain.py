"""`keras-vit explain`: predictions of images with maps of what the model reads of them."""

import argparse
import sys

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
from keras_vit.cli.output import warn
from keras_vit.cli.predict import print_json, print_table
from keras_vit.cli.wording import in_options
from keras_vit.runs.explanation import check_page, load_explainer

_ARGUMENTS = ("top", "batch_size", "class_index", "value_range", "alpha", "merged_tokens")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands, "explain", _explain, "show what a model predicts of images, and reads"
    )
    parser.add_argument("source", metavar="RUN", help=RUN)
    add_images(parser)
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="folder for the page, index.html",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the page in a folder that is not empty",
    )
    add_top(parser, "classes to show for each image")
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON for each image"
    )
    add_batch_size(parser, 8)
    add_class_index(parser)
    add_merging(parser)
    add_reading(parser)


def _explain(args):
    if not args.output:
        raise ValueError("The page needs a folder. Give `--output` FOLDER.")
    check_page(args.output, args.overwrite)

    def say(text):
        warn(in_options(text, args.command))

    explainer = load_explainer(args.source, **given(args, _ARGUMENTS))
    found = explainer.explain(args.images, say=say)
    printed = print_json if args.json else print_table
    failed = printed([one.prediction for one in found.images], args.command)
    page = found.write_page(args.output, args.overwrite)
    print(f"page  {page}", file=sys.stderr if args.json else sys.stdout)
    return ERROR if failed else OK
