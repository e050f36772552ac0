"""`keras-vit convert | verify | inspect | list | describe`."""

import argparse

import keras_vit
from keras_vit.cli.options import (
    CHECKPOINT,
    DIFFERENT,
    OK,
    add_batch_size,
    add_command,
    add_image_size,
    add_overrides,
    overrides_of,
    size_of,
)
from keras_vit.conversion.convert import LAYOUTS, convert
from keras_vit.conversion.inspect import inspect
from keras_vit.conversion.verify import (
    COMPARABLE,
    TOLERANCE,
    compare_models,
    compare_stages,
    compare_weights,
    read_arrays,
)
from keras_vit.zoo.pretrained import caller_arguments, locate, preset_arguments


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-commands to the parser."""
    _add_convert(commands)
    _add_verify(commands)
    _add_inspect(commands)
    listing = add_command(commands, "list", _list, "list the presets")
    listing.add_argument("--family", help="family of presets, such as AugReg or DINOv2")
    listing.add_argument(
        "--scores",
        action="store_true",
        help="list top-1 on ImageNet, ReaL, V2, A, R and Sketch, as published",
    )
    _add_describe(commands)


# The sub-commands.


def _convert(args):
    conversion = convert(
        args.source,
        args.target,
        layout=args.layout,
        overwrite=args.overwrite,
        check=args.check,
        **overrides_of(args),
    )
    print(conversion)
    return OK


def _verify(args):
    overrides = {**COMPARABLE, **overrides_of(args)}
    arrays = None if args.expected is None else read_arrays(args.expected)
    model = keras_vit.from_pretrained(args.checkpoint, **overrides)
    if arrays is not None:
        weights = None
        stages = compare_stages(model, arrays, args.tolerance)
    else:
        overrides.pop("key", None)  # it names a part of the first
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
    """Prints the weights that differ; there can be hundreds of equal ones."""
    print(f"{len(weights.equal)} of {len(weights.rows)} weights are equal to the last bit.")
    if rows := [row for row in weights.rows if row.verdict != "equal"]:
        print(weights.text(rows))
    print()


def _inspect(args):
    overrides = overrides_of(args)
    path, preset = locate(args.checkpoint)
    inspection = inspect(
        path,
        overrides=caller_arguments(overrides),
        preset=preset_arguments(preset),
        model={"image_size": overrides.get("image_size")},
        position_grid=overrides.get("position_grid"),
        key=overrides.get("key"),
        plain_vit=overrides.get("plain_vit", False),
    )
    print(inspection)
    if args.names or inspection.layout is None:
        print(f"\n{inspection.names()}")
    return OK


def _list(args):
    presets = keras_vit.list_presets(args.family)
    print(presets.scores() if args.scores else presets)
    return OK


def _describe(args):
    description = keras_vit.describe(
        args.name,
        image_size=size_of(args.image_size),
        batch_size=args.batch_size,
        dtype=args.dtype,
        flash_attention=args.flash_attention,
    )
    print(description)
    return OK


# Their arguments.


def _add_convert(commands):
    parser = add_command(
        commands, "convert", _convert, "write a checkpoint in another layout"
    )
    parser.add_argument("source", help=CHECKPOINT)
    parser.add_argument("target", help="path of the file, or of Hugging Face's folder")
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="layout (default: by the ending of the target: .npz google, .safetensors "
        "timm, .keras, .weights.h5, none huggingface)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the target if it exists"
    )
    parser.add_argument(
        "--no-check",
        dest="check",
        action="store_false",
        help="do not read the written file again to compare it",
    )
    add_overrides(parser)
    parser.add_argument(
        "--classes", type=int, metavar="N", help="classes of the head; a new head is zeros"
    )
    parser.add_argument(
        "--resize-patches",
        action="store_true",
        default=None,
        help="resize the patch embedding to --set patch_size=…, as in FlexiViT",
    )


def _add_verify(commands):
    parser = add_command(
        commands,
        "verify",
        _verify,
        "compare a checkpoint with expected arrays or with another, stage by stage",
    )
    parser.add_argument("checkpoint", help=CHECKPOINT)
    against = parser.add_mutually_exclusive_group(required=True)
    against.add_argument("other", nargs="?", help="the checkpoint to compare with")
    against.add_argument(
        "--expected",
        metavar="ARRAYS.npz",
        help="file of arrays: `input`, preprocessed images with channels last, and "
        "stages: patch_embedding (stem), position_embedding, block_0 "
        "(encoderblock_0) …, encoder_norm (encoded, features), pooled, pre_logits, "
        "logits (before the activation)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="largest difference, as a fraction of the largest value (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed of the images for two checkpoints (default: %(default)s)",
    )
    add_overrides(parser)


def _add_inspect(commands):
    parser = add_command(
        commands, "inspect", _inspect, "show what a checkpoint holds, without reading it"
    )
    parser.add_argument("checkpoint", help=CHECKPOINT)
    parser.add_argument(
        "--names", action="store_true", help="list each tensor with its variable"
    )
    add_overrides(parser)


def _add_describe(commands):
    parser = add_command(
        commands, "describe", _describe, "describe a preset, and what its model costs"
    )
    parser.add_argument(
        "name",
        help="name of a preset, a file of AugReg or BiT, or an architecture, as ViTB16",
    )
    add_image_size(parser, "size of the images in pixels (default: the preset's)")
    add_batch_size(parser, default=1)
    parser.add_argument(
        "--dtype", default="float32", help="float32 (default), float16 or bfloat16"
    )
    parser.add_argument(
        "--flash-attention",
        action="store_true",
        help="attention never holds all of its scores in memory",
    )
