"""`keras-vit export`: writes a model for another runtime."""

import argparse
import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np

from keras_vit.cli.options import (
    OK,
    RUN,
    add_command,
    add_merging,
    add_overrides,
    overrides_of,
)
from keras_vit.data import load_images
from keras_vit.exporting import FORMATS, export
from keras_vit.exporting.export import check_targets
from keras_vit.exporting.formats import find_format
from keras_vit.runs import load_model
from keras_vit.runs.images import images_in

# Taken from a folder; more change the ranges of activations little.
MOST_IMAGES = 256


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands,
        "export",
        _export,
        "write a model for another runtime (ONNX, OpenVINO, LiteRT, torch, TensorFlow), "
        "and compare it there with the model",
    )
    parser.add_argument("source", metavar="RUN", help=RUN)
    parser.add_argument("target", help="path of the file, or of a SavedModel's folder")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="format (default: by the ending of the target: "
        + ", ".join(f"{row.ending or 'none'} {row.name}" for row in FORMATS.values())
        + ")",
    )
    parser.add_argument(
        "--images",
        metavar="IMAGE",
        nargs="+",
        help="files or folders of images on which to compare the outputs (default: a few "
        "random images)",
    )
    parser.add_argument(
        "--calibration",
        metavar="IMAGE",
        nargs="+",
        help="files or folders of about 100 images of the model's task: weights and "
        "activations become int8, calibrated on them (onnx, openvino)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="largest difference, as a fraction of the largest output (default: 1e-4; "
        "any for int8)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what is at the target"
    )
    add_overrides(parser)
    add_merging(parser)


def _export(args):
    row = find_format(args.target, args.format)
    # First, as loading the model and the images can take minutes.
    check_targets(row, os.path.normpath(args.target), args.overwrite)
    if keras.backend.backend() not in row.backends:
        return _on_another_backend(row, args.argv)
    model, pipeline, _ = load_model(args.source, **overrides_of(args))
    print(
        export(
            model,
            args.target,
            format=args.format,
            images=_read(args.images, pipeline),
            calibration=_read(args.calibration, pipeline),
            tolerance=args.tolerance,
            overwrite=args.overwrite,
        )
    )
    return OK


def _on_another_backend(row, argv) -> int:
    """Runs the same command in a new process, as Keras cannot change its backend."""
    packages = [name for name in row.backends if importlib.util.find_spec(name)]
    if not packages:
        raise ImportError(
            f"Keras writes the format {row.name!r} on {' or '.join(row.backends)}, "
            "which is not installed. Run: "
            f"pip install 'keras-vit[{row.backends[0]},export]'"
        )
    print(f"… {row.name} is written with KERAS_BACKEND={packages[0]}", file=sys.stderr)
    environment = {**os.environ, "KERAS_BACKEND": packages[0]}
    command = [sys.executable, "-m", "keras_vit", *argv]
    return subprocess.run(command, env=environment).returncode


def _read(sources, pipeline) -> np.ndarray | None:
    if sources is None:
        return None
    paths = []
    for source in sources:
        inside = images_in(source)[0] if os.path.isdir(source) else [source]
        if not inside:
            raise ValueError(f"There is no image in the folder {source!r}.")
        every = -(-len(inside) // MOST_IMAGES)  # evenly, as folders are sorted by class
        paths += inside[::every]
    return load_images(paths, pipeline)
