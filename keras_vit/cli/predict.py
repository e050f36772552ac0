"""`keras-vit predict`: what is on images, as a table or JSON."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import keras_vit
from keras_vit.cli.options import (
    CHECKPOINT,
    ERROR,
    OK,
    add_command,
    add_merging,
    add_reading,
    images_in,
    merging_of,
    reading_of,
)
from keras_vit.cli.wording import in_options
from keras_vit.data import load_images
from keras_vit.data.pixel_checks import check_values
from keras_vit.data.sources import ImageFiles
from keras_vit.download.web import fetch_bytes
from keras_vit.runs import Classifier, load_classifier
from keras_vit.tables import table

MOST_BYTES = 64 * 2**20  # of an image from the web
NO_NAMES = "none"


def add_to(commands) -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(commands, "predict", _predict, "tell what is on images")
    parser.add_argument(
        "source", metavar="RUN", help=f"the folder of a training, or {CHECKPOINT}"
    )
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="a file, a folder (with all in it) or an address (https://…)",
    )
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="classes to tell (%(default)s)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON for each image"
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images (%(default)s)"
    )
    parser.add_argument(
        "--class-index",
        metavar="FILE",
        help="names of ImageNet's 1000 classes, where no training tells any: a copy of "
        "Keras' imagenet_class_index.json, which is downloaded otherwise; none for numbers",
    )
    add_merging(parser)
    add_reading(parser)


def _predict(args):
    """Each image for itself: one that fails is told, and the others go on."""
    for name in ("top", "batch_size"):
        if getattr(args, name) < 1:
            raise ValueError(
                f"`--{name.replace('_', '-')}` must be positive. Received: "
                f"{getattr(args, name)}"
            )
    sources = list(_sources(args.images))
    classifier = load_classifier(args.source, args.batch_size, **merging_of(args))
    pipeline = replace(classifier.pipeline, **reading_of(args, classifier.pipeline))
    classifier = replace(classifier, pipeline=pipeline)
    if strange := _strange_values(sources, pipeline):
        print(f"keras-vit: {in_options(strange, args.command)}", file=sys.stderr)
    names = _class_names(classifier, args.class_index)
    results = (
        (source, in_options(found, args.command) if isinstance(found, str) else found)
        for source, found in _results(classifier, sources, names, args.top)
    )
    failed = _print_json(results) if args.json else _print_table(results)
    return ERROR if failed else OK


def _sources(given) -> Iterator[tuple[str, str | None]]:
    """Files and addresses, with what is wrong with one where that is known already."""
    for source in given:
        if not os.path.isdir(source):
            yield source, None
            continue
        inside, others = images_in(source)
        yield from ((path, None) for path in inside)
        if not inside:
            left_out = f"; left out: {others}" if others else ""
            yield source, f"there is no image that can be read in this folder{left_out}"
        elif others:
            print(f"keras-vit: {_shown(source)}: left out: {others}", file=sys.stderr)


def _strange_values(sources, pipeline) -> str:
    """The reason for which `load` would refuse the images: all but black, over white."""
    found = (s for s, error in sources if error is None and os.path.isfile(s))
    paths = tuple(map(Path, found))
    files = ImageFiles(paths, np.zeros(len(paths), "int32"), Path())
    try:
        check_values({"IMAGE": files}, pipeline.reading, {"IMAGE": [None] * len(paths)})
    except ValueError as error:
        return str(error)
    return ""


def _class_names(classifier: Classifier, class_index):
    """Names of the classes; numbers where nobody knows any."""
    if classifier.class_names is not None:
        return classifier.class_names
    count = classifier.num_classes
    if count != 1000 or class_index == NO_NAMES:
        return tuple(map(str, range(count)))
    order = np.arange(count, 0, -1)[None]  # the first class first
    decoded = keras_vit.decode_predictions(order, top=count, class_index=class_index)
    return tuple(name for _, name, _ in decoded[0])


def _results(classifier, sources, names, top):
    """(source, [(class, name, probability), …] or what is wrong) of each, in order."""
    size = classifier.pipeline.batch_size
    for start in range(0, len(sources), size):
        batch = sources[start : start + size]
        read = [error or _read(source, classifier.pipeline) for source, error in batch]
        images = [image for image in read if not isinstance(image, str)]
        rows = iter(_most_probable(classifier, images, names, top))
        for (source, _), image in zip(batch, read, strict=True):
            yield source, (image if isinstance(image, str) else next(rows))


def _read(source, pipeline) -> np.ndarray | str:
    """The prepared image, or what is wrong with it."""
    try:
        is_address = source.startswith(("https://", "http://"))
        image = fetch_bytes(source, MOST_BYTES) if is_address else source
        return load_images([image], pipeline)[0]
    except FileNotFoundError:
        return "there is no such file"
    except (ValueError, OSError) as error:  # a ConnectionError is one
        return " ".join(str(error).split())


def _most_probable(classifier, images, names, top):
    if not images:
        return []
    batch = np.stack(images)
    probabilities = classifier.probabilities(batch, batch_size=len(batch), verbose=0)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        [(int(i), names[i], float(row[i])) for i in best]
        for row, best in zip(probabilities, order, strict=True)
    ]


# What is printed.


def _print_json(results) -> bool:
    failed = False
    for source, result in results:
        line = {"image": source}
        if isinstance(result, str):
            failed, line["error"] = True, result
        else:
            keys = ("index", "class", "probability")
            line["predictions"] = [dict(zip(keys, row, strict=True)) for row in result]
        print(json.dumps(line), flush=True)
    return failed


def _print_table(results) -> bool:
    rows, failed = [], False
    for source, result in results:
        if isinstance(result, str):
            failed = True
            print(f"keras-vit: error: {_shown(source)}: {result}", file=sys.stderr)
        else:
            columns = [(_shown(name), f"{100 * share:.1f} %") for _, name, share in result]
            rows.append((_shown(source), *(cell for pair in columns for cell in pair)))
    if rows:
        # Names begin at the left of their column, numbers end at the right of theirs.
        print(table(rows, left=(0, *range(1, len(rows[0]), 2))))
    return failed


def _shown(text):
    """A name on one line of any terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
