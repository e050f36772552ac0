"""What the sub-commands have in common."""

import argparse
import ast
import difflib
import os
from inspect import signature
from pathlib import Path

import keras_vit
from keras_vit.data.duplicates import DUPLICATES
from keras_vit.data.images import ALPHA
from keras_vit.data.listing import Listing

OK, DIFFERENT, ERROR, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

CHECKPOINT = (
    "a preset (see `keras-vit list`), the name of a file of AugReg or BiT, an address "
    "(https://…, gs://…, hf://owner/name), a file or a folder"
)
DATA = (
    "a folder with a folder of images for each class (also below train, validation and "
    "test), a .csv or .tsv file of paths and labels, or the name of a data set of "
    "TensorFlow Datasets"
)
EPILOG = """\
Where a message asks for an argument such as `num_heads=…`, give it as
--set num_heads=5. The backend is that of KERAS_BACKEND, as everywhere in Keras.
"""


def add_command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    """A sub-command without arguments, which `run` carries out."""
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show where an error comes from"
    )
    parser.set_defaults(run=run, command=parser)
    return parser


def add_data_options(parser) -> None:
    """What `keras_vit.data.load` is told of `DATA`."""
    parser.add_argument("--data-dir", metavar="FOLDER", help="of TensorFlow Datasets")
    for column, default in (("image", "path"), ("label", "label"), ("split", "split")):
        parser.add_argument(
            f"--{column}-column", metavar="NAME", help=f"of the CSV file ({default})"
        )
    parser.add_argument(
        "--bad-images",
        choices=("raise", "skip"),
        help="what to do where an image cannot be read (raise)",
    )
    parser.add_argument(
        "--duplicates",
        choices=DUPLICATES,
        help="what to do where an image is in two splits: raise (the default) is an error, "
        "drop leaves it out of the training images, keep looks for none",
    )
    add_reading(parser)


def add_reading(parser) -> None:
    """Adds the options that say how the values in images are meant."""
    parser.add_argument(
        "--value-range",
        type=float,
        nargs=2,
        metavar=("BLACK", "WHITE"),
        help="values in the files that are black and white, such as 0 4095 for 12 bits in "
        "files of 16, or 0 1 for masks (0 and the largest of 8 or 16 bits)",
    )
    parser.add_argument(
        "--alpha",
        choices=ALPHA,
        help="the fourth channel of an image: white lays the image over white by it, drop "
        "leaves it out, as where it is near infrared",
    )


def reading_of(args, pipeline) -> dict:
    """Fields of a pipeline that say how values are meant; options come before its own."""
    names = ("value_range", "alpha")
    return {name: getattr(args, name) or getattr(pipeline, name) for name in names}


def add_merging(parser) -> None:
    """Fewer tokens, where a model is only asked."""
    parser.add_argument(
        "--merged-tokens",
        metavar="N",
        help="tokens that each block of a Vision Transformer merges into others, such as "
        "8, or a number for each block: faster, for some accuracy",
    )


def merging_of(args) -> dict:
    """What `from_pretrained` is given of it."""
    if args.merged_tokens is None:
        return {}
    return {"merged_tokens": _value(args.merged_tokens)}


def images_in(folder: str) -> tuple[list[str], str]:
    """Paths of the images in a folder and below, in order, and what else lies there."""
    listing = Listing()
    paths = [os.fspath(path) for path in listing.images_below(Path(folder))]
    return paths, listing.left_out()


def data_arguments(args, source: str, **others) -> dict:
    """What `keras_vit.data.load` is given, source and all, as JSON can hold it."""
    names = ("data_dir", "bad_images", "image_column", "label_column", "split_column")
    names += ("duplicates", "value_range", "alpha")
    given = {**{name: getattr(args, name) for name in names}, **others}
    given = {name: value for name, value in given.items() if value is not None}
    return {"source": source, **given}


def found_again(source: str) -> str:
    """A path as it is from any other folder, too; names of data sets as they are."""
    return os.path.abspath(source) if os.path.exists(source) else source


def load_data(given: dict):
    """The `keras_vit.data.ImageData` of `data_arguments`."""
    given = dict(given)
    try:
        return keras_vit.data.load(given.pop("source"), **given)
    except RuntimeError as error:  # TensorFlow Datasets cannot prepare them
        raise ValueError(str(error)) from error


def add_overrides(parser) -> None:
    """What `from_pretrained` is told beside the source."""
    parser.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar=("H", "W"),
        help="in pixels; the position embedding is resized",
    )
    parser.add_argument(
        "--key",
        metavar="NAME",
        help="which state dict or model of a file with several, such as state_dict_ema",
    )
    parser.add_argument("--num-heads", type=int, metavar="N", help="attention heads")
    parser.add_argument(
        "--position-grid",
        type=int,
        nargs=2,
        metavar=("R", "C"),
        help="rows and columns of the position embedding in the file",
    )
    parser.add_argument(
        "--plain-vit",
        action="store_true",
        default=None,
        help="the file is a plain ViT, whatever its config.json or its name says",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of VisionTransformer, such as image_size=384,384 or "
        "pooling=gap; may be repeated",
    )


def overrides_of(args) -> dict:
    """What `from_pretrained` is given beside the source."""
    names = ("key", "num_heads", "position_grid", "classes")
    names += ("resize_patches", "plain_vit")
    overrides = {name: getattr(args, name, None) for name in names}
    overrides["image_size"] = size_of(args.image_size)
    overrides = {name: _tuple(v) for name, v in overrides.items() if v is not None}
    return overrides | settings_of(args.set)


def settings_of(texts) -> dict:
    """What `--set` gives, by name."""
    return dict(_setting(text) for text in texts)


def size_of(numbers):
    """One or two numbers of the command line as `image_size`."""
    return numbers[0] if numbers and len(numbers) == 1 else _tuple(numbers)


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def _setting(text):
    name, equals, value = text.partition("=")
    known = {*signature(keras_vit.VisionTransformer).parameters}
    known |= {*signature(keras_vit.from_pretrained).parameters}
    known -= {"source", "overrides", "input_tensor"}
    if not equals or name not in known:
        near = difflib.get_close_matches(name, known) or sorted(known)
        raise ValueError(
            "`--set` takes NAME=VALUE, where NAME is an argument of VisionTransformer or "
            f"from_pretrained. Received: {text!r}. Near it: {', '.join(near)}."
        )
    return name, _value(value)


def _value(text):
    """A Python literal, or else the text itself."""
    if text in ("true", "false"):  # as text both would count as true
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
