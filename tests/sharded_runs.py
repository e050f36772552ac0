"""Whole trainings on 8 virtual devices, of which some are killed; a part of sharded.py."""

import contextlib
import io
import logging
import os
import shutil
import signal
import time
from pathlib import Path

import keras
import numpy as np
from resumed import outcome

import keras_vit
from keras_vit.cli import finetune, main
from keras_vit.data import Augmentation
from keras_vit.distribution import strategy
from keras_vit.training import SmallData

TRAININGS = ("data_parallel", "fully_sharded:2", "tensor_parallel:2")
COMMANDS = ("none", "data_parallel", "tensor_parallel:4", "fully_sharded")
SAVE_FREQ, LAST = 3, 10  # batches; each update takes two of them, each epoch six
RECIPE = SmallData.for_examples(
    21,
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


class Kept(keras.callbacks.Callback):
    """Keeps what a kill in an epoch would leave, within an update and between two saves."""

    def __init__(self, folder, copy, last=LAST):
        super().__init__()
        self.folder, self.copy = folder, copy
        self.last = self.left = last

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            path = Path(self.folder, f"step-{self.last - self.last % SAVE_FREQ:08d}.safetensors")
            while not path.exists():
                time.sleep(0.01)  # it is written beside the training
            shutil.copytree(self.folder, self.copy)


def killed(folder):
    """What is different of a training that was killed, under each strategy."""
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
    """Of the numbers that differ the most; also whether there are as many."""
    assert outcomes.keys() == expected.keys()
    return max(
        float(np.abs(array - expected[key]).max())
        for key, array in outcomes.items()
        if array.dtype.kind == "f"
    )


def commands(folder):
    """`keras-vit finetune` under each strategy: its exit status and what it printed.

    Its files stay in the folder, by the name of the strategy. One is told to end, and is
    given again.
    """
    photos, weights = Path(folder, "photos"), Path(folder, "small.keras")
    for split, (pixels, labels) in images().items():
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = photos / split / f"class {label}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            keras.utils.save_img(path, image, scale=False)
    vit().save(weights)
    given = ["finetune", photos, "--weights", weights, "--recipe", "vit", "--steps", 4]
    given += ["--batch-size", 16, "--micro-batch-size", 8, "--resolution", 16]
    given += ["--warmup-steps", 1, "--learning-rate", 0.1, "--ema", 0.5]
    given += ["--evaluations", 2]

    def run(name):
        output = Path(folder, "runs", name)
        line = [*given, "--output", output, "--strategy", name]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                status = main([str(word) for word in line])
            except SystemExit as end:
                status = end.code
        return status, printed.getvalue()

    seen = {}
    for name in COMMANDS:
        if name == "fully_sharded":
            with ended_in(6):
                seen["ended"] = run(name)
        seen[name] = run(name)
    return seen


@contextlib.contextmanager
def ended_in(batches):
    """SIGTERM comes after so many; the next one is the last."""
    method, left = finetune.Progress.on_train_batch_end, [batches]

    def preempted(self, batch, logs=None):
        method(self, batch, logs)
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGTERM)

    finetune.Progress.on_train_batch_end = preempted
    try:
        yield
    finally:
        finetune.Progress.on_train_batch_end = method
