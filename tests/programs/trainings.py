"""Trainings of tiny models on several devices, some killed, some given as commands."""

import contextlib
import io
import json
import logging
import os
import shutil
import signal
import time
from pathlib import Path

import keras
import numpy as np
from helpers import array
from resumed import outcome

import keras_vit
from keras_vit.cli import main
from keras_vit.data import Augmentation
from keras_vit.distribution import num_processes, process_index, strategy
from keras_vit.runs import Progress, RunFolder
from keras_vit.training import SmallData

TRAININGS = ("data_parallel", "fully_sharded:2", "tensor_parallel:2")
SAVE_FREQ, LAST = 3, 10  # batches; each update takes two of them, each epoch six
RECIPE = SmallData.for_examples(
    21,
    image_size=16,
    steps=6,
    batch_size=16,
    micro_batch_size=8,
    warmup_steps=1,
    base_learning_rate=3e-3,
    ema_momentum=0.7,
    dropout_rate=0.2,
    augmentation=Augmentation(crop="resize", flip=True),
)


def images():
    """16 to train on, and 5 to evaluate, which no number of devices divides."""
    rng = np.random.default_rng(0)
    labels = np.arange(21) % 3
    pixels = rng.uniform(0, 80, (21, 16, 16, 3)) + labels[:, None, None, None] * 80
    pixels = pixels.astype("uint8")
    return {"train": (pixels[:16], labels[:16]), "validation": (pixels[16:], labels[16:])}


def vit(**fields):
    fields = {"num_heads": 4, "mlp_dim": 64, "classes": 3, **fields}
    fields |= {"hidden_dim": 32, "num_layers": 1, "classifier_activation": None}
    return keras_vit.VisionTransformer(16, 8, **fields)


class ByBrightness(keras_vit.pretraining.MaskedAutoencoder):
    """Keeps the darkest patches, whichever device computes them."""

    def encode(self, images, noise=None):
        pixels = keras.ops.reshape(images, (-1, 2, 8, 2, 8, 3))
        noise = keras.ops.reshape(keras.ops.mean(pixels, (2, 4, 5)), (-1, 4))
        return super().encode(images, noise)


class InTheSamePlaces(keras_vit.pretraining.MaskedPatchPrediction):
    """Corrupts the same patches of each image, in the same way."""

    def call(self, images):
        noise = np.random.default_rng(0).uniform(size=(1, 4, 3)).astype("float32")
        batch = keras.ops.shape(images)[0]
        return super().call(images, keras.ops.tile(noise, (batch, 1, 1)))


PRETRAINED = ("masked", "predicting", "distilling")


def pretraining(kind):
    """A model without labels whose training has nothing random, and its data."""
    rows = images()["train"][0] / np.float32(255)
    if kind == "masked":
        own = {"decoder_hidden_dim": 16, "decoder_num_layers": 1, "decoder_num_heads": 2}
        model = ByBrightness(vit(classes=0, position="sincos2d"), mask_ratio=0.5, **own)
    elif kind == "predicting":
        model = InTheSamePlaces(vit(classes=0))
    else:
        own = {"output_dim": 32, "projection_hidden_dim": 16, "bottleneck_dim": 8}
        own |= {"num_local_views": 3, "local_image_size": 8, "teacher_momentum": 0.9}
        model = keras_vit.pretraining.SelfDistillation(vit(classes=0), steps=10, **own)
        rows = views(rows)
    model.compile(keras.optimizers.Adam(3e-2, epsilon=1e-3, global_clipnorm=1.0))
    return model, rows


def views(rows):
    """Two views of each image, and three of its quarters."""
    quarters = [rows[:, :8, :8], rows[:, 8:, :8], rows[:, :8, 8:]]
    both = [rows, rows[:, :, ::-1]]
    return {"global": np.stack(both, axis=1), "local": np.stack(quarters, axis=1)}


def distilled():
    """A student and its teacher with a batch norm, whose training has nothing random."""
    teacher = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(4, 8, 8),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    model = keras_vit.pretraining.Distillation(vit(distilled=True), teacher, kind="soft")
    model.compile(keras.optimizers.Adam(3e-2, epsilon=1e-3, global_clipnorm=1.0))
    return model


class Kept(keras.callbacks.Callback):
    """Keeps what a kill in an epoch would leave, within an update and between two saves."""

    def __init__(self, folder, copy, last=LAST):
        super().__init__()
        self.folder, self.copy = folder, copy
        self.last = self.left = last

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            path = Path(
                self.folder, f"step-{self.last - self.last % SAVE_FREQ:08d}.safetensors"
            )
            while not path.exists():
                time.sleep(0.01)  # it is written beside the training
            while not self._is_copied():
                shutil.rmtree(self.copy)

    def _is_copied(self):
        try:
            shutil.copytree(self.folder, self.copy)
        except shutil.Error:  # the thread that writes has just removed an older save
            return False
        return True


def killed(folder):
    """Differences of a training that was killed, under each strategy."""
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("keras_vit").addHandler(handler)

    def train(name, resume=None, callbacks=()):
        keras.utils.set_random_seed(0)
        with strategy(name):
            model = vit(**RECIPE.model_arguments())
            history = keras_vit.training.finetune(
                model,
                keras_vit.data.load(images()),
                RECIPE,
                evaluations=2,
                resume=resume,
                save_freq=SAVE_FREQ,
                callbacks=callbacks,
                verbose=0,
            )
        return outcome(model, history)

    one, seen = train("none"), {}
    for name in TRAININGS:
        path, copy = (os.path.join(folder, f"{name} {what}") for what in ("whole", "torn"))
        whole = train(name, path, [Kept(path, copy)])
        if name == "fully_sharded:2":
            shutil.copytree(copy, os.path.join(folder, "crossed"))
        torn = train(name, copy)
        seen[name] = {
            "different": [
                key for key in whole if not np.array_equal(whole[key], torn[key])
            ],
            "from one device": distance(whole, one),
            "said": said.copy(),
        }
        said.clear()
    crossed = train("tensor_parallel:2", os.path.join(folder, "crossed"))
    logging.getLogger("keras_vit").removeHandler(handler)
    seen["crossed"] = {"from one device": distance(crossed, one), "said": said}
    return seen


def distance(outcomes, expected):
    """Largest difference of floats in outcomes that hold the same names."""
    assert outcomes.keys() == expected.keys()
    return max(
        float(np.abs(array - expected[key]).max())
        for key, array in outcomes.items()
        if array.dtype.kind == "f"
    )


def photos(folder):
    """The images as files, `photos/<split>/<class>/<image>`."""
    for split, (pixels, labels) in images().items():
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = Path(folder, "photos", split, f"class {label}", f"{i}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            keras.utils.save_img(path, image, scale=False)
    vit().save(Path(folder, "small.keras"))


def commands(folder, names, ended=None):
    """`keras-vit finetune` under each strategy: its exit status and what it printed.

    Its files stay in the folder, where the photos are, by the name of the strategy. One is
    told to end, in the last of several processes, and is given again, and once more.
    """
    given = ["finetune", Path(folder, "photos"), "--weights", Path(folder, "small.keras")]
    given += ["--recipe", "vit", "--steps", 4]
    given += ["--batch-size", 16, "--micro-batch-size", 8, "--image-size", 16]
    given += ["--warmup-steps", 1, "--base-learning-rate", 0.1, "--ema-momentum", 0.5]
    given += ["--evaluations", 2]

    def run(name):
        output = Path(folder, "runs", name)
        line = [*given, "--output", output, "--strategy", name]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                status = main([str(word) for word in line])
            except SystemExit as end:
                status = end.code
        while status == 0 and not (output / "results.json").exists():
            time.sleep(0.1)  # the first of several processes writes them
        return status, printed.getvalue()

    seen = {}
    for name in names:
        if name == ended:
            with ended_in(6):
                seen["ended"] = run(name)
        seen[name] = run(name)
    seen["again"] = run(names[-1])
    return seen


@contextlib.contextmanager
def ended_in(batches):
    """SIGTERM comes after so many; the next one is the last."""
    method, left = Progress.on_train_batch_end, [batches]

    def preempted(self, batch, logs=None):
        method(self, batch, logs)
        left[0] -= 1
        if not left[0] and process_index() == num_processes() - 1:
            signal.raise_signal(signal.SIGTERM)

    Progress.on_train_batch_end = preempted
    try:
        yield
    finally:
        Progress.on_train_batch_end = method


def check_runs(folder, folder_of_one, seen, names):
    """Checks that trainings under strategies equal the training on one device."""
    one = RunFolder(Path(folder_of_one, "runs", "none"))
    expected = keras_vit.from_pretrained(one.file("last.keras"))
    assert np.ptp(one.history()["loss"]) > 0.1
    for name in names:
        run = RunFolder(Path(folder, "runs", name))
        status, printed = seen[name]
        assert status == 0
        assert f"keras-vit predict {run.path}" in printed
        assert run.file("report/index.html").is_file()
        history = run.history()
        assert history.keys() == one.history().keys()
        for key, values in one.history().items():
            np.testing.assert_allclose(history[key], values, atol=1e-5)
        model = keras_vit.from_pretrained(run.file("last.keras"))
        for weight, other in zip(model.weights, expected.weights, strict=True):
            np.testing.assert_allclose(array(weight), array(other), atol=1e-5)
    # Of the last one on one device.
    photos = Path(folder, "photos", "validation")
    np.testing.assert_allclose(predicted(run, photos), predicted(one, photos), atol=1e-5)


def predicted(run, photos):
    """Probabilities that `keras-vit predict` prints, (images, classes)."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["predict", str(run.path), str(photos), "--json"]) == 0
    lines = [json.loads(line) for line in printed.getvalue().splitlines()]
    assert len(lines) == 5
    rows = [sorted(line["predictions"], key=lambda p: p["index"]) for line in lines]
    return [[p["probability"] for p in row] for row in rows]
