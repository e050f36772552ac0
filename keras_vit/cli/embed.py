"""`keras-vit embed`: vectors of images to a file, and the images that are most alike."""

import argparse
import json
import os
import sys

from keras_vit.cli.options import (
    ERROR,
    OK,
    RUN,
    add_batch_size,
    add_command,
    add_images,
    add_merging,
    add_reading,
    add_top,
    given,
)
from keras_vit.cli.output import one_line, verbosity, warn
from keras_vit.cli.wording import in_options
from keras_vit.output_paths import check_file
from keras_vit.runs import load_embedder
from keras_vit.runs.embedding import check_output
from keras_vit.tables import table

_ARGUMENTS = ("layer", "normalize", "batch_size", "value_range", "alpha", "merged_tokens")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands, "embed", _embed, "compute a vector for each image, and compare images"
    )
    parser.add_argument("source", metavar="RUN", help=RUN)
    add_images(parser)
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="file for names and vectors: .parquet, .npz or .csv",
    )
    parser.add_argument(
        "--nearest",
        metavar="IMAGE",
        help="print the images that are most like this one, by the cosine of the vectors",
    )
    add_top(parser, "images that --nearest prints", 10)
    parser.add_argument(
        "--page",
        metavar="FILE",
        help="HTML page with the pictures of what --nearest prints",
    )
    parser.add_argument(
        "--layer",
        default="pooled",
        metavar="NAME",
        help="layer whose output is the vector, such as pre_logits or head (default: "
        "pooled, what the head reads)",
    )
    parser.add_argument(
        "--normalize", action="store_true", help="scale vectors to the length 1"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON for each image"
    )
    add_batch_size(parser)
    add_merging(parser)
    add_reading(parser)


def _embed(args):
    _check(args)
    embedder = load_embedder(args.source, **given(args, _ARGUMENTS))

    def say(text):
        warn(in_options(text, args.command))

    query = None
    if args.nearest:  # first: if it fails, nothing else need be read
        query = embedder.embed(args.nearest, say=say)
        if query.failed or len(query) != 1:
            raise ValueError(_why_no_query(query, args.nearest))
    found = embedder.embed(args.images, verbose=verbosity(args), say=say)
    for name, reason in found.failed:
        reason = in_options(reason, args.command)
        print(f"keras-vit: error: {one_line(name)}: {reason}", file=sys.stderr)
    if args.output and len(found):
        found.save(args.output, args.overwrite)
        if not args.json:
            print(_written(found, args.output))
    if query is not None:
        neighbors = found.nearest(query.vectors[0], args.top)
        _print(neighbors, args.json)
        if args.page:
            embedder.write_page(args.page, query.images[0], neighbors, args.overwrite)
            if not args.json:
                print(f"page  {args.page}")
    return ERROR if found.failed else OK


def _check(args):
    """Checks what can be checked before a model is loaded."""
    if not args.output and not args.nearest:
        raise ValueError(
            "There must be something to do with the vectors. Give `--output` FILE to keep "
            "them, or `--nearest` IMAGE to find images that are alike."
        )
    if args.page and not args.nearest:
        raise ValueError(
            "`--page` shows the images that are most like another. Give `--nearest` IMAGE."
        )
    if args.top < 1:
        raise ValueError(f"`top` must be a positive integer. Received: top={args.top}")
    if args.output:
        check_output(args.output, args.overwrite)
    if args.page:
        check_file(args.page, args.overwrite)
    if args.page and args.output and _is_same(args.page, args.output):
        raise ValueError(
            f"`--page` and `--output` must be two files. Received: both are {args.output!r}"
        )


def _is_same(path, other):
    return os.path.realpath(path) == os.path.realpath(other)


def _why_no_query(query, name):
    if query.failed:
        return f"{query.failed[0][0]}: {query.failed[0][1]}"
    return f"`--nearest` takes one image. Received: {name!r}, with {len(query)} images"


def _written(found, path):
    number, dim = found.vectors.shape
    images = "image" if number == 1 else "images"
    return f"{number:,} {images}, a vector of {dim:,} numbers each: {path}"


def _print(neighbors, as_json):
    if as_json:
        for one in neighbors:
            print(json.dumps({"image": one.image, "similarity": one.similarity}))
    elif neighbors:
        rows = [(one_line(one.image), f"{one.similarity:.4f}") for one in neighbors]
        print(table(rows, left=(0,)))
