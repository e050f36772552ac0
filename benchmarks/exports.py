"""Exported models in their own runtimes: how fast, and what int8 costs in accuracy.

    python -m benchmarks.exports speed --rounds 7        # B/16, batch 8
    python -m benchmarks.exports accuracy

`speed` writes a model of random weights in every format that can be written here, float32
and, where there is one, int8, and times all of them in turn, with as many threads as there
are cores; the model itself on torch, compiled by nothing, is one of them. A time is the
median of the rounds, × as fast the median of the rounds' ratios to float32 in the same
format. `accuracy` trains two small ViTs on torch, on scikit-learn's handwritten digits and
on drawn shapes, and evaluates each before and after it is quantized.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

import keras_vit
from benchmarks import merging
from benchmarks.timing import seconds
from benchmarks.transfer import SHAPES, shapes
from keras_vit.exporting import FORMATS, export, load_exported

PAUSE = 0.3  # seconds, in which the threads of the one before fall asleep
CALIBRATION = 128  # images
INT8 = ("onnx", "openvino")


def main():
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "accuracy"))
    parser.add_argument("--model", default="ViTB16")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        (measure_speed if args.what == "speed" else measure_accuracy)(args, Path(folder))


def measure_speed(args, folder):
    """Writes all files, and times them in turn."""
    model = getattr(keras_vit, args.model)(weights=None, classifier_activation=None)
    head = model.get_layer("head").kernel  # zeros, whose outputs no file could get wrong
    rng = np.random.default_rng(0)
    head.assign(rng.normal(scale=0.02, size=head.shape))
    images = rng.uniform(-1, 1, (args.batch_size, *model.input_shape[1:]))
    images = images.astype("float32")
    runs = {"keras, torch": lambda: model.predict_on_batch(images)}
    for name, path in written(model, args.format, folder, images).items():
        run = load_exported(path, format=name.partition(" ")[0], threads=os.cpu_count())
        runs[name] = lambda run=run: run(images)
    times = {name: [] for name in runs}
    for turn in range(args.rounds + 1):
        for name, run in runs.items():
            time.sleep(PAUSE)
            taken = seconds(run)
            if turn:  # the first call prepares
                times[name].append(taken)
    print(f"\n{args.model}, batches of {args.batch_size}, {args.rounds} rounds")
    print(f"{'':20}  seconds  × as fast as float32")
    for name, taken in times.items():
        ratio = ""
        if name.endswith(" int8"):
            pairs = zip(times[name.removesuffix(" int8")], taken, strict=True)
            ratio = f"{statistics.median(a / b for a, b in pairs):.2f}"
        print(f"{name:20}  {statistics.median(taken):7.3f}  {ratio}")


def written(model, formats, folder, images):
    """Path of the file by format, `… int8` of the quantized ones."""
    paths = {}
    model.save(folder / "model.keras")
    for name in formats:
        paths[name] = folder / f"float32{FORMATS[name].ending}"
        if keras.backend.backend() in FORMATS[name].backends:
            print(name, export(model, paths[name], images=images), sep="\n", flush=True)
        else:
            command = ["export", folder / "model.keras", paths[name], "--format", name]
            subprocess.run([sys.executable, "-m", "keras_vit", *command], check=True)
        if name in INT8:
            quantized = folder / f"int8{FORMATS[name].ending}"
            paths[f"{name} int8"] = quantized
            report = export(model, quantized, images=images, calibration=images)
            print(f"{name} int8", report, sep="\n", flush=True)
    return paths


def measure_accuracy(args, folder):
    """Trains a model on each set, and quantizes it."""
    print("set      format    float32  int8    points lost  the same answer")
    for name, fields, train, test in (digits(), drawn()):
        model = trained(fields, *train, args.epochs)
        float32 = answers(lambda x, model=model: model.predict(x, verbose=0), test[0])
        accuracy = (float32 == test[1]).mean()
        for kind in INT8:
            path = folder / f"{name}{FORMATS[kind].ending}"
            export(model, path, images=test[0][:64], calibration=train[0][:CALIBRATION])
            given = answers(load_exported(path), test[0])
            after, same = (given == test[1]).mean(), (given == float32).mean()
            print(
                f"{name:7}  {kind:8}  {accuracy:6.2%}  {after:6.2%}  "
                f"{100 * (accuracy - after):11.2f}  {same:15.2%}",
                flush=True,
            )


def trained(fields, images, labels, epochs):
    """A model that has learned them, AdamW with a cosine."""
    model = keras_vit.VisionTransformer(**fields)
    steps = epochs * -(-len(images) // 32)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=2e-3, warmup_steps=steps // 10
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.05), loss)
    model.fit(images, labels, epochs=epochs, batch_size=32, verbose=0)
    return model


def answers(run, images):
    """The classes, of batches of 64."""
    batches = [images[i : i + 64] for i in range(0, len(images), 64)]
    return np.concatenate([run(batch).argmax(axis=1) for batch in batches])


def digits():
    """Name, model, and images with labels to train on and to test."""
    return "digits", merging.SMALL, *merging.digits()


def drawn():
    """The same of eight shapes in random colours, 32 x 32 pixels in 64 patches."""
    fields = {**merging.SMALL, "image_size": 32, "patch_size": 4, "classes": len(SHAPES)}
    fields["input_shape"] = (32, 32, 3)
    sets = (shapes(SHAPES, number, seed) for number, seed in ((2400, 1), (1200, 2)))
    return "shapes", fields, *((keras_vit.preprocess_input(x), y) for x, y in sets)


if __name__ == "__main__":
    main()
