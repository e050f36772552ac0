"""`keras-vit explain`: what a model predicts of images, and reads, as a page or served."""

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
from keras_vit.explorer import explore
from keras_vit.runs.explanation import check_page, load_explainer

_ARGUMENTS = ("top", "batch_size", "class_index", "value_range", "alpha", "merged_tokens")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands, "explain", _explain, "show what a model predicts of images, and reads"
    )
    parser.add_argument("source", metavar="RUN", help=RUN)
    images = add_images(parser, "; with --serve none, or another RUN to compare with")
    parser.add_argument(
        "--serve",
        action=_WithoutImages,
        nargs=0,
        default=False,
        images=images,
        help="serve a page on this machine instead, in which an image is dropped and its "
        "patches are clicked, until Ctrl-C",
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help="port for --serve (default: the first free one from 7860)",
    )
    parser.add_argument(
        "--open", action="store_true", help="open the page of --serve in the browser"
    )
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


class _WithoutImages(argparse.Action):
    """A flag with which images may be left out.

    With `nargs="*"` images would have to follow RUN, before any option.
    """

    def __init__(self, *args, images, **options):
        super().__init__(*args, **options)
        self._images = images

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, True)
        self._images.required = False


def _explain(args):
    return _serve(args) if args.serve else _write(args)


def _serve(args):
    for option in ("output", "overwrite", "json"):
        if getattr(args, option):
            raise ValueError(
                f"`--serve` writes nothing. Received: `--{option}` with it. Leave one out."
            )
    explore(
        [args.source, *(args.images or ())],
        port=args.port,
        open_browser=args.open,
        on_start=lambda address: print(f"page  {address}  (Ctrl-C ends it)", flush=True),
        **given(args, _ARGUMENTS),
    )
    return OK


def _write(args):
    for option in ("port", "open"):
        if getattr(args, option):
            raise ValueError(
                f"`--{option}` is for `--serve`. Received: `--{option}` without it."
            )
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
