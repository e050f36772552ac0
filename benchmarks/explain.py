"""`runs.explain` of an image beside `runs.predict` of it, after the model is loaded.

    python -m benchmarks.explain --model ViTB16 --rounds 9
    python -m benchmarks.explain --model ViTB16 --commands 3

A photograph of random pixels and a model with random weights are written to a temporary
folder. Both calls read and prepare the file; `explain` also gives the class map, rollout,
the pictures of the model, and writes the page. They take turns, A B A B, after one of each;
the median of the ratios of neighbours is told. `--commands N` times N whole commands of
each, in turns, from the start of Python to its end. On a machine with other work,
`--processor-time` counts the seconds of all processors that the process itself used. Uses
the backend of KERAS_BACKEND.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import keras_vit
from benchmarks.timing import seconds
from keras_vit import runs
from keras_vit.runs.given_images import expand
from keras_vit.runs.prediction import class_names_of, predict_images

SIDE = 512  # of the photograph


def main():
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViTB16")
    parser.add_argument("--pooling")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--commands", type=int, metavar="N")
    parser.add_argument("--processor-time", action="store_true")
    args = parser.parse_args()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        pairs = (in_process if args.commands is None else as_commands)(args, folder)
    plain, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = [after / before for before, after in pairs]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{args.model} on {keras.backend.backend()}, {args.images} images:", end=" ")
    print(f"predict {plain:.3f} s, explain {ours:.3f} s; ratio {ratio}")


def files_of(args, folder):
    """Writes photographs and a model; returns the model's path and the photographs'."""
    rng, paths = np.random.default_rng(0), []
    for i in range(args.images):
        pixels = rng.integers(0, 256, (64, 64, 3)).astype("uint8")
        paths.append(folder / f"{i}.jpg")
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(paths[-1])
    fields = {"pooling": args.pooling} if args.pooling else {}
    model = getattr(keras_vit, args.model)(weights=None, **fields)
    model.save(folder / "model.keras")
    return folder / "model.keras", paths


def in_process(args, folder):
    """(predict, explain) seconds of calls that take turns."""
    source, paths = files_of(args, folder)
    explainer = runs.load_explainer(source, class_index="none")
    names = class_names_of(explainer.classifier, "none")
    numbers = iter(range(10**6))

    def predict():
        sources = expand(paths, print)
        return [p.classes for p in predict_images(explainer.classifier, sources, names, 5)]

    def explain():
        found = explainer.explain(paths)
        found.write_page(folder / f"page {next(numbers)}")
        return [image.prediction.classes for image in found.images]

    expected, found = predict(), explain()
    assert [c.index for c in found[0]] == [c.index for c in expected[0]]
    clock = time.process_time if args.processor_time else time.perf_counter
    return [(seconds(predict, clock), seconds(explain, clock)) for _ in range(args.rounds)]


def as_commands(args, folder):
    """(predict, explain) seconds of whole commands that take turns."""
    source, paths = files_of(args, folder)
    common = (sys.executable, "-m", "keras_vit")

    def run(name, *options):
        command = [*common, name, source, *paths, "--class-index", "none", *options]
        subprocess.run(command, check=True, capture_output=True)

    def both(i):
        page = ("--output", folder / f"page {i}")
        return seconds(lambda: run("predict")), seconds(lambda: run("explain", *page))

    return [both(i) for i in range(args.commands)]


if __name__ == "__main__":
    main()
