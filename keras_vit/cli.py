"""`keras-vit convert | verify | inspect | list | describe`: arguments in, text out."""

import argparse
import ast
import difflib
import os
import sys
import traceback
from inspect import signature

import keras_vit
from keras_vit.convert import LAYOUTS, convert
from keras_vit.weights.inspect import inspect
from keras_vit.weights.verify import (
    COMPARABLE,
    TOLERANCE,
    compare_models,
    compare_stages,
    compare_weights,
    read_arrays,
)
from keras_vit.zoo import known_of, locate

OK, DIFFERENT, ERROR, PIPE_CLOSED = 0, 1, 2, 141
# What a wrong argument, file or network raises, and a `--set` of the wrong type;
# anything else is an error of ours.
ERRORS = (ValueError, TypeError, OSError, ImportError)

CHECKPOINT = (
    "a preset (see `keras-vit list`), the name of a file of AugReg or BiT, an address "
    "(https://…, gs://…, hf://owner/name), a file or a folder"
)
EPILOG = """\
Where a message asks for an argument such as `num_heads=…`, give it as
--set num_heads=5. The backend is that of KERAS_BACKEND, as everywhere in Keras.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs a sub-command and gives the exit status.

    0: done, or nothing differs; 1: `verify` found a difference; 2: an error, in one line
    on the standard error stream.

    Args:
        argv: arguments, without the program's name; `None` for those of the process.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # As when `| head` has enough; Python would complain once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except ERRORS as error:
        if args.traceback:
            traceback.print_exc()
        message = " ".join(str(error).split())
        if isinstance(error, TypeError):
            message = f"an argument has the wrong type (--traceback tells more): {message}"
        print(f"keras-vit: error: {message}", file=sys.stderr)
        return ERROR


# The sub-commands.


def _convert(args):
    conversion = convert(
        args.source,
        args.target,
        layout=args.layout,
        overwrite=args.overwrite,
        check=args.check,
        **_overrides(args),
    )
    print(conversion)
    return OK


def _verify(args):
    overrides = {**COMPARABLE, **_overrides(args)}
    arrays = None if args.expected is None else read_arrays(args.expected)
    model = keras_vit.from_pretrained(args.checkpoint, **overrides)
    if arrays is not None:
        weights = None
        stages = compare_stages(model, arrays, args.tolerance)
    else:
        other = keras_vit.from_pretrained(args.other, **overrides)
        weights = compare_weights(model, other, args.tolerance)
        _print_weights(weights)
        stages = compare_models(model, other, args.tolerance, args.seed)
    print(f"{stages}\n")
    same = stages.ok and (weights is None or weights.ok)
    print(_verdict(stages, weights, args.tolerance))
    return OK if same else DIFFERENT


def _verdict(stages, weights, tolerance):
    within = f"within {tolerance:g} of the largest value"
    if not stages.ok:
        return f"Different: not {within}, from the stage {stages.different[0]} on."
    if weights and not weights.ok:
        return f"Different weights ({len(weights.different)}), the same results {within}."
    return f"The same {within}."


def _print_weights(weights):
    """The weights that are not equal, as there can be hundreds."""
    print(f"{len(weights.equal)} of {len(weights.rows)} weights are equal to the last bit.")
    if rows := [row for row in weights.rows if row.verdict != "equal"]:
        print(weights.text(rows))
    print()


def _inspect(args):
    overrides = _overrides(args)
    told = ("num_heads", "num_prefix_positions", "mlp")
    path, preset = locate(args.checkpoint)
    inspection = inspect(
        path,
        known=known_of(preset) | {key: overrides[key] for key in told if key in overrides},
        model={"image_size": overrides.get("image_size")},
        position_grid=overrides.get("position_grid"),
    )
    print(inspection)
    if args.names or inspection.layout is None:
        print(f"\n{inspection.names()}")
    return OK


def _list(args):
    print(keras_vit.list_presets(args.family))
    return OK


def _describe(args):
    description = keras_vit.describe(
        args.name,
        image_size=_size(args.image_size),
        batch_size=args.batch_size,
        dtype=args.dtype,
        flash_attention=args.flash_attention,
    )
    print(description)
    return OK


# Their arguments.


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-vit",
        description="Vision Transformers for Keras: checkpoints in, out and side by side.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"keras-vit {keras_vit.__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_convert(commands)
    _add_verify(commands)
    _add_inspect(commands)
    listing = _command(commands, "list", _list, "list the presets")
    listing.add_argument("--family", help="one family alone, such as AugReg or DINOv2")
    _add_describe(commands)
    return parser


def _command(commands, name, run, text):
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
    parser.set_defaults(run=run)
    return parser


def _add_convert(commands):
    parser = _command(commands, "convert", _convert, "write a checkpoint in another layout")
    parser.add_argument("source", help=CHECKPOINT)
    parser.add_argument("target", help="path of the file, or of Hugging Face's folder")
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="by default what the ending says: .npz google, .safetensors timm, .keras, "
        ".weights.h5, none huggingface",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what is at the target"
    )
    parser.add_argument(
        "--no-check",
        dest="check",
        action="store_false",
        help="do not read the target again to compare it",
    )
    _add_overrides(parser)
    parser.add_argument(
        "--classes", type=int, metavar="N", help="outputs of the head; a new one is zeros"
    )
    parser.add_argument(
        "--resize-patches",
        action="store_true",
        default=None,
        help="resize the patch embedding to --set patch_size=…, as in FlexiViT",
    )


def _add_verify(commands):
    parser = _command(
        commands,
        "verify",
        _verify,
        "compare a checkpoint with expected arrays or with another, stage by stage",
    )
    parser.add_argument("checkpoint", help=CHECKPOINT)
    against = parser.add_mutually_exclusive_group(required=True)
    against.add_argument("other", nargs="?", help="the checkpoint that is expected")
    against.add_argument(
        "--expected",
        metavar="ARRAYS.npz",
        help="file of arrays: `input`, images with channels last as the network takes "
        "them, and stages: patch_embedding (stem), position_embedding, block_0 "
        "(encoderblock_0) …, encoder_norm (encoded, features), pooled, pre_logits, "
        "logits (before the activation)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="largest difference, as a fraction of the largest value (%(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the random images for two checkpoints (%(default)s)",
    )
    _add_overrides(parser)


def _add_inspect(commands):
    parser = _command(
        commands, "inspect", _inspect, "tell what a checkpoint holds, without reading it"
    )
    parser.add_argument("checkpoint", help=CHECKPOINT)
    parser.add_argument(
        "--names", action="store_true", help="list the tensors and what becomes of each"
    )
    _add_overrides(parser)


def _add_describe(commands):
    parser = _command(
        commands, "describe", _describe, "tell all about a preset, and what a model costs"
    )
    parser.add_argument(
        "name",
        help="of a preset, a file of AugReg or BiT, or an architecture, such as ViTB16",
    )
    parser.add_argument(
        "--image-size",
        "--image_size",
        type=int,
        nargs="+",
        metavar=("H", "W"),
        help="in pixels, by default what the name stands for",
    )
    parser.add_argument(
        "--batch-size", "--batch_size", type=int, default=1, metavar="N", help="images"
    )
    parser.add_argument(
        "--dtype", default="float32", help="float32 (the default), float16 or bfloat16"
    )
    parser.add_argument(
        "--flash-attention",
        action="store_true",
        help="attention never has all of its scores in memory",
    )


def _add_overrides(parser):
    parser.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar=("H", "W"),
        help="in pixels; the position embedding is resized",
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
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of VisionTransformer, such as image_size=384,384 or "
        "pooling=gap; may be repeated",
    )


def _overrides(args) -> dict:
    """What `from_pretrained` is given beside the source."""
    names = ("num_heads", "position_grid", "classes", "resize_patches")
    overrides = {name: getattr(args, name, None) for name in names}
    overrides["image_size"] = _size(args.image_size)
    overrides = {name: _tuple(v) for name, v in overrides.items() if v is not None}
    return overrides | dict(_setting(text) for text in args.set)


def _size(numbers):
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
