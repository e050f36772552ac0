"""Time that `fit` waits for images: JPEG files, decoded, cropped and flipped.

    KERAS_BACKEND=torch python -m benchmarks.waiting --model ViTS16 --steps 20

Draws a folder of JPEG files of 667 x 500 pixels, and trains on it with Inception crops.
Tells the share of the time between two steps that is spent waiting for the next batch,
which the pipeline prepares meanwhile, beside what a batch takes to prepare by itself. On a
CPU both share the cores, so a step takes longer than of images that are there already.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import keras_vit
from benchmarks.timing import seconds

IMAGES = 200


def main():
    """Measures the selected model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViTS16")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder))
        data = keras_vit.data.load(
            folder,
            batch_size=args.batch_size,
            augmentation=keras_vit.data.Augmentation(crop="inception", flip=True),
        )
        measure(args, data.train)


def draw(folder):
    """Draws two classes of smooth pictures with some noise, as photographs have."""
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        small = Image.fromarray(rng.integers(0, 256, (8, 10, 3)).astype("uint8"))
        pixels = np.asarray(small.resize((667, 500), Image.Resampling.BICUBIC), "float32")
        pixels = np.clip(pixels + rng.normal(0, 8, pixels.shape), 0, 255).astype("uint8")
        path = folder / "train" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)


def measure(args, stream):
    """Times batches alone, training on one batch, and training on the stream."""
    batches = iter(stream)
    first = next(batches)
    alone = [seconds(lambda: next(batches)) for _ in range(args.steps)]
    model = getattr(keras_vit, args.model)(
        weights=None, classes=2, classifier_activation=None
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, 0.9), loss)
    first = [keras.ops.convert_to_numpy(one) for one in first]
    model.train_on_batch(*first)
    steps = [seconds(lambda: model.train_on_batch(*first)) for _ in range(args.steps)]
    waits, ends = [], []

    def timed():
        batches = iter(stream)
        while True:
            start = time.perf_counter()
            batch = next(batches)
            waits.append(time.perf_counter() - start)
            ends.append(time.perf_counter())
            yield batch

    model.fit(timed(), steps_per_epoch=args.steps + 1, verbose=0)
    waits, between = waits[2:], np.diff(ends)[1:]  # the first batch is awaited
    rows = {
        "a batch, prepared by itself": alone,
        "a step on images that are there": steps,
        "a step of `fit`": between,
        "of which it waits": waits,
    }
    print(f"{args.model} on {keras.backend.backend()}, batches of {args.batch_size}")
    for name, taken in rows.items():
        print(f"{name:32}  {1000 * statistics.median(taken):8.1f} ms")
    print(f"waiting: {sum(waits) / sum(between):.2%} of the time")


if __name__ == "__main__":
    main()
