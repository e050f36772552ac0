"""Extraction of features beside `predict` on the same images, and from the cache.

    python -m benchmarks.features --model ViTS16 --images 256 --rounds 5
    python -m benchmarks.features --cached 10000

Photographs of random pixels are written as JPEG to a temporary folder. Without `--cached`,
`predict` and `extract_features`, the latter into a new cache each time, take turns on the
same stream of them, A B A B, after one of each; the median of the ratios of neighbours is
told. `--cached N` puts features of N images into a cache, by a model that computes next to
nothing, and times the second question: of images that are loaded, and of their folder.
The time of the key, most of which is the digest of the weights, is told apart for three
sizes. On a machine with other work, `--processor-time` counts the seconds of all processors
that the process itself used. Uses the backend of KERAS_BACKEND.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import keras_vit
from benchmarks.timing import seconds
from keras_vit.evaluation import extract_features
from keras_vit.evaluation.feature_key import feature_key
from keras_vit.evaluation.vector_model import vector_model

CLASSES = 10


def main():
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViTS16")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cached", type=int, metavar="N")
    parser.add_argument("--processor-time", action="store_true")
    args = parser.parse_args()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        (compare if args.cached is None else measure_cache)(args, Path(folder))


def clock_of(args):
    """The clock by which calls are timed."""
    return time.process_time if args.processor_time else time.perf_counter


def write_images(folder, number):
    """Writes JPEG files of 256 × 256 pixels, a folder for each class."""
    rng = np.random.default_rng(0)
    for i in range(number):
        path = folder / f"class {i % CLASSES}" / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (32, 32, 3)).astype("uint8")
        Image.fromarray(pixels).resize((256, 256)).save(path)


def compare(args, folder):
    """Times pairs of passes, by `predict` and by `extract_features`."""
    write_images(folder / "images", args.images)
    model = getattr(keras_vit, args.model)(weights=None)
    data = keras_vit.data.load(folder / "images", validation_split=0.0)
    data = data.prepared_for(model, batch_size=args.batch_size)
    extractor = vector_model(model, "pooled")
    numbers = iter(range(10**6))

    def predict():
        return extractor.predict(data.evaluation("train"), verbose=0)

    def extract():
        cache = folder / f"cache {next(numbers)}"
        return extract_features(model, data, cache_dir=cache, verbose=0).features

    np.testing.assert_array_equal(extract(), predict())
    clock = clock_of(args)
    pairs = [(seconds(predict, clock), seconds(extract, clock)) for _ in range(args.rounds)]
    ratios = [after / before for before, after in pairs]
    plain, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"{args.model} on {keras.backend.backend()}, {args.images} images:", end=" ")
    print(f"predict {plain:.2f} s, extract_features {ours:.2f} s; ratio {ratio}")


def measure_cache(args, folder):
    """Times the second question of a cache."""
    write_images(folder / "images", args.cached)
    model = keras_vit.VisionTransformer(224, 224, 768, 1, 1, 1, classes=0)
    data = keras_vit.data.load(folder / "images", validation_split=0.0)
    cases = {"images that are loaded": data, "the path of a folder": folder / "images"}
    for name, given in cases.items():
        cache = folder / f"cache of {name}"
        ask = partial(extract_features, model, given, cache_dir=cache, verbose=0)
        first, *others = (seconds(ask, clock_of(args)) for _ in range(1 + args.rounds))
        print(
            f"{args.cached} features of width 768, {name}: first {first:.1f} s, then "
            f"{statistics.median(others):.3f} s ({min(others):.3f} to {max(others):.3f})"
        )
    ours = data.prepared_for(model)
    for name in ("ViTS16", "ViTB16", "ViTL16"):
        model = getattr(keras_vit, name)(weights=None)
        times = [
            seconds(partial(feature_key, model, "pooled", ours, "train"), clock_of(args))
            for _ in range(args.rounds)
        ]
        print(f"the key alone of {name} and these images: {statistics.median(times):.3f} s")


if __name__ == "__main__":
    main()
