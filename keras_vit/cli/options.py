"""Options that several sub-commands have, and the values that they stand for."""

import argparse
import ast
import difflib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from keras_vit.data.duplicates import DUPLICATES
from keras_vit.data.images import ALPHA
from keras_vit.runs.options import DATA as DATA_OPTIONS
from keras_vit.runs.options import READING, model_options

Parser = argparse.ArgumentParser | argparse._ArgumentGroup

OK, DIFFERENT, ERROR, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

# Old spellings of options, which keep working for one release.
DEPRECATED = {
    "--resolution": "--image-size",
    "--learning-rate": "--base-learning-rate",
    "--ema": "--ema-momentum",
    "--precision": "--dtype",
    "--image_size": "--image-size",
    "--batch_size": "--batch-size",
}

CHECKPOINT = (
    "a preset (see `keras-vit list`), the name of a file of AugReg or BiT, an address "
    "(https://…, gs://…, hf://owner/name), a file or a folder"
)
RUN = f"the folder of a run, or {CHECKPOINT}"
DATA = (
    "a folder with a folder of images for each class (also below train, validation and "
    "test), a .csv or .tsv file of paths and labels, or the name of a data set of "
    "TensorFlow Datasets"
)
EPILOG = """\
If a message asks for an argument such as `num_heads=…`, give it as --set num_heads=5.
The environment variable KERAS_BACKEND chooses the backend, as everywhere in Keras.
"""


def current_spelling(argv: Sequence[str]) -> list[str]:
    """Replaces old spellings of options, with a warning on stderr for each."""
    words = []
    for word in argv:
        old, equals, value = word.partition("=")
        if new := DEPRECATED.get(old):
            print(
                f"keras-vit: warning: {old} is now {new}. The old spelling will be removed "
                "in the next release.",
                file=sys.stderr,
            )
            word = new + equals + value
        words.append(word)
    return words


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    """Adds a sub-command and returns its parser, to which arguments are added.

    Args:
        commands: the sub-parsers of the command line's parser.
        name: name of the sub-command.
        run: called with the parsed arguments; returns the exit status.
        text: one line of help.
    """
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show the traceback of an error"
    )
    parser.set_defaults(run=run, command=parser)
    return parser


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options of these names that the command line gives."""
    values = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return {name: _tuple(v) for name, v in values.items() if v is not None}


def add_data_options(parser: Parser) -> None:
    """Adds the options for `keras_vit.data.load`."""
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="where TensorFlow Datasets keeps its data"
    )
    for column, default in (("image", "path"), ("label", "label"), ("split", "split")):
        parser.add_argument(
            f"--{column}-column",
            metavar="NAME",
            help=f"column of the CSV file (default: {default})",
        )
    parser.add_argument(
        "--bad-images",
        choices=("raise", "skip"),
        help="if an image cannot be read, raise an error (default) or skip it",
    )
    parser.add_argument(
        "--duplicates",
        choices=DUPLICATES,
        help="if an image is in two splits, raise an error (default), drop it from the "
        "training images, or keep both without looking",
    )
    add_reading(parser)


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `keras_vit.data.load` that the command line gives."""
    return given(args, (*DATA_OPTIONS, *READING))


def add_reading(parser: Parser) -> None:
    """Adds the options that say how the values in image files are meant."""
    parser.add_argument(
        "--value-range",
        type=float,
        nargs=2,
        metavar=("BLACK", "WHITE"),
        help="values of black and white in the files, such as 0 4095 for 12 bits in files "
        "of 16, or 0 1 for masks (default: 0 and the largest of 8 or 16 bits)",
    )
    parser.add_argument(
        "--alpha",
        choices=ALPHA,
        help="fourth channel of an image: white blends the image with white by it, drop "
        "ignores it, such as near infrared",
    )


def add_merging(parser: Parser) -> None:
    """Adds the option for token merging, of commands that only predict."""
    parser.add_argument(
        "--merged-tokens",
        metavar="N",
        type=_literal,
        help="tokens to merge in each block of a Vision Transformer, such as 8, or a "
        "number for each block: faster, for some accuracy",
    )


def add_image_size(parser: Parser, text: str) -> None:
    """Adds `--image-size` with a help text."""
    parser.add_argument("--image-size", type=int, nargs="+", metavar=("H", "W"), help=text)


def add_settings(parser: Parser, example: str) -> None:
    """Adds `--set` for arguments of the model."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"argument of VisionTransformer, such as {example}; may be repeated",
    )


def add_images(parser: Parser, more: str = "") -> argparse.Action:
    """Adds the images of commands that take any.

    Args:
        parser: the parser.
        more: text after the help on images.
    """
    return parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help=f"a file, a folder (with all images in it) or an address (https://…){more}",
    )


def add_top(parser: Parser, text: str, default: int = 5) -> None:
    """Adds `--top` with a help text."""
    parser.add_argument(
        "--top",
        type=int,
        default=default,
        metavar="N",
        help=f"{text} (default: %(default)s)",
    )


def add_class_index(parser: Parser) -> None:
    """Adds `--class-index`."""
    parser.add_argument(
        "--class-index",
        metavar="FILE",
        help="names of the classes for a model that does not name them: a copy of Keras' "
        "imagenet_class_index.json, or a text file with a line for each class (default: "
        "download those of ImageNet-1k or -21k), or none for numbers",
    )


def add_numbers(parser: Parser, numbers: Mapping[str, tuple[type, str]]) -> None:
    """Adds options of one number each: its type and its help, by the option's name."""
    for name, (kind, text) in numbers.items():
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=text)


def add_rematerialize(parser: Parser) -> None:
    """Adds `--rematerialize`."""
    parser.add_argument(
        "--rematerialize",
        action="store_true",
        default=None,
        help="compute activations again for the gradients: slower, less memory",
    )


def add_dtype(parser: Parser, default: str = "float32") -> None:
    """Adds `--dtype`."""
    other = "float32" if default != "float32" else "mixed_bfloat16"
    parser.add_argument(
        "--dtype",
        default=default,
        metavar="POLICY",
        help=f"dtype policy, such as {other} (default: %(default)s)",
    )


def add_seed(parser: Parser) -> None:
    """Adds `--seed`."""
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed (default: 0)"
    )


def add_batch_size(parser: Parser, default: int = 32) -> None:
    """Adds `--batch-size`."""
    parser.add_argument(
        "--batch-size",
        type=int,
        default=default,
        metavar="N",
        help="images in a batch (default: %(default)s)",
    )


def add_overrides(parser: Parser) -> None:
    """Adds the options for `from_pretrained`."""
    add_image_size(parser, "size of the images; the position embedding is resized")
    parser.add_argument(
        "--key",
        metavar="NAME",
        help="state dict or model of a file with several, such as state_dict_ema",
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
    add_settings(parser, "image_size=384,384 or pooling=gap")


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `from_pretrained` that the command line gives."""
    names = ("key", "num_heads", "position_grid", "classes", "resize_patches")
    overrides = given(args, (*names, "plain_vit", "merged_tokens"))
    if args.image_size is not None:
        overrides["image_size"] = size_of(args.image_size)
    return overrides | settings_of(args.set)


def settings_of(texts: Sequence[str], more: Collection[str] = ()) -> dict[str, Any]:
    """The arguments that `--set` gives, by name.

    Args:
        texts: `NAME=VALUE` each.
        more: names that may be set beside those of the model.
    """
    return dict(_setting(text, more) for text in texts)


def size_of(numbers: Sequence[int] | None) -> int | tuple[int, ...] | None:
    """One or two numbers of the command line as `image_size`."""
    return numbers[0] if numbers and len(numbers) == 1 else _tuple(numbers)


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def _setting(text, more):
    name, equals, value = text.partition("=")
    known = model_options() | {*more}
    if not equals or name not in known:
        near = difflib.get_close_matches(name, known) or sorted(known)
        raise ValueError(
            "`--set` takes NAME=VALUE, where NAME is an argument of VisionTransformer or "
            f"from_pretrained. Received: {text!r}. Near it: {', '.join(near)}."
        )
    return name, _literal(value)


def _literal(text):
    """A Python literal, or else the text itself."""
    if text in ("true", "false"):  # as texts both would count as true
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
