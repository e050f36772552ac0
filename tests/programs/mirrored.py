"""Tiny trainings on two virtual devices of TensorFlow, for tests of `mirrored`.

As a program it does them all and writes what it saw to a JSON file.
"""

import json
import os
import shutil
import sys

import keras
import numpy as np
import tensorflow as tf
from resumed import outcome
from trainings import (
    PRETRAINED,
    SAVE_FREQ,
    Kept,
    distance,
    distilled,
    images,
    pretraining,
    vit,
)
from uneven import BATCH, ONE_HOT, PIXELS, ROWS, on_several_devices

import keras_vit
from keras_vit.data import Augmentation
from keras_vit.distribution import strategy
from keras_vit.training import ViTFineTuning

NAMES = ("none", "data_parallel")
RECIPE = ViTFineTuning(
    steps=12,
    batch_size=8,
    base_learning_rate=0.3,
    warmup_steps=1,
    image_size=16,
    ema_momentum=0.7,
    global_clipnorm=0.1,
    layerwise_decay=0.8,
    augmentation=Augmentation(crop="resize", flip=True, mixup_alpha=0.2),
)


def train(name, recipe=RECIPE, policy="float32", **options):
    """Every number of a training, and whether all devices have the same."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    data = keras_vit.data.load(images())
    with strategy(name):
        model = vit(**recipe.model_arguments())
        options = {"evaluations": 2, "verbose": 0, **options}
        history = keras_vit.training.finetune(model, data, recipe, **options)
    keras.config.set_dtype_policy("float32")
    copies = [getattr(v.value, "values", [v.value]) for v in model.variables]
    assert {len(values) for values in copies} == {1 if name == "none" else 2}
    assert all(np.array_equal(values[0], values[-1]) for values in copies)
    return outcome(model, history)


def compared(policy):
    one, two = (train(name, policy=policy) for name in NAMES)
    learned = float(np.ptp(one["history/loss"]))
    return {"distance": distance(two, one), "learned": learned}


def pretrained(make, batch_size=8, *labels):
    """The distance of a pre-training from that on one device.

    Args:
        make: makes the model and its data.
        batch_size: rows of a batch.
        *labels: a label for each row, if it is trained on them.
    """
    found = []
    for name in NAMES:
        keras.utils.set_random_seed(0)
        with strategy(name):
            model, rows = make()
        options = {"batch_size": batch_size, "shuffle": False, "verbose": 0}
        history = model.fit(rows, *labels, epochs=3, **options)
        found.append(outcome(model, history))
        copies = [getattr(v.value, "values", [v.value]) for v in model.weights]
        assert all(np.array_equal(values[0], values[-1]) for values in copies)
    one, two = found
    return {"distance": distance(two, one), "learned": float(np.ptp(one["history/loss"]))}


def student():
    """A student of a teacher, and its images."""
    return distilled(), images()["train"][0] / np.float32(255)


def killed(folder):
    """With dropout, from within an epoch; each device has its own."""
    recipe = RECIPE.replace(dropout_rate=0.2, drop_path_rate=0.2)
    whole, copy = os.path.join(folder, "whole"), os.path.join(folder, "torn")
    # Early in an epoch: what metrics have added up by then is rounded often after it.
    options = {"save_freq": SAVE_FREQ, "evaluations": 1}
    kept = [Kept(whole, copy, last=4)]
    expected = train("data_parallel", recipe, resume=whole, callbacks=kept, **options)
    shutil.rmtree(whole)
    actual = train("data_parallel", recipe, resume=copy, **options)
    return [key for key in expected if not np.array_equal(expected[key], actual[key])]


def masks():
    """Ones after dropout, by step."""
    seen = []

    def note(outputs):
        seen.append((outputs.numpy() > 0).tolist())

    def loss(y, y_pred):
        tf.py_function(note, [y_pred], [])
        return keras.ops.mean(y_pred, axis=-1)

    for seed in (None, 1):
        with strategy("data_parallel"):
            inputs = keras.Input((64,))
            ones = keras.layers.Dense(64, kernel_initializer="identity")(inputs)
            model = keras.Model(inputs, keras.layers.Dropout(0.5, seed=seed)(ones))
            model.compile(keras.optimizers.SGD(0.0), loss, jit_compile=False)
        model.fit(np.ones((8, 64)), np.ones((8, 64)), epochs=2, verbose=0)
    return seen[::2]  # each device has the loss of all rows


def refusals():
    def answer(**changes):
        try:
            train("data_parallel", RECIPE.replace(**changes))
        except ValueError as error:
            return str(error)
        return None

    def compiled(accumulation=None, overwriting=None, **options):
        with strategy("mirrored"):
            model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
            optimizer = keras.optimizers.SGD(
                use_ema=True,
                ema_overwrite_frequency=overwriting,
                gradient_accumulation_steps=accumulation,
            )
            model.compile(optimizer, "mse", **options)
        rows = np.ones((8, 64))
        if not options:  # which is of training alone
            model.evaluate(rows, rows, verbose=0)
        try:
            model.fit(rows, rows, verbose=0)
        except ValueError as error:
            return str(error)
        return None

    return {
        "divide": answer(batch_size=9),
        "accumulation": answer(micro_batch_size=4),
        "steps_per_execution=2": compiled(steps_per_execution=2),
        "jit_compile=True": compiled(jit_compile=True),
        "gradient_accumulation_steps=2": compiled(accumulation=2),
        "ema_overwrite_frequency=3": compiled(overwriting=3),
    }


def left_to_keras():
    """The messages to models whose steps are not ours on rows that do not divide, and
    whether they have changed; even rows they are given.
    """

    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    seen = {}
    layers = {
        "own": [],
        "norm": [keras.layers.BatchNormalization(name="norm")],
        "penalty": [keras.layers.ActivityRegularization(0.1)],
    }
    for name, others in layers.items():
        with strategy("mirrored"):
            kind = Own if name == "own" else keras.Sequential
            ends = (keras.layers.Flatten(), keras.layers.Dense(3))
            model = kind([keras.Input((8, 8, 3)), *others, *ends])
            model.compile("sgd", "mse")
        model.fit(PIXELS[:BATCH], ONE_HOT[:BATCH], batch_size=BATCH, verbose=0)
        before = model.get_weights()
        try:
            model.fit(PIXELS[:ROWS], ONE_HOT[:ROWS], batch_size=ROWS, verbose=0)
        except ValueError as error:
            after = model.get_weights()
            same = all(map(np.array_equal, before, after))
            seen[name] = str(error) if same else "changed"
    return seen


def one_for_all():
    """True if the ways to name devices give one strategy, as two of them would clash."""
    mirrored = keras_vit.distribution.mirrored
    full = [device.name for device in tf.config.list_logical_devices("CPU")]
    ways = [None, full, ["CPU:0", "CPU:1"], ["/cpu:0", "/device:CPU:1"]]
    found = {id(mirrored(way)) for way in ways}
    return len(found | {id(keras_vit.distribution.data_parallel())}) == 1


def main(folder):
    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    # Where GPUs are looked for there are these.
    devices = tf.config.list_logical_devices
    tf.config.list_logical_devices = lambda kind: devices("CPU")
    seen = {
        "float32": compared("float32"),
        "mixed_bfloat16": compared("mixed_bfloat16"),
        "pretrained": {k: pretrained(lambda k=k: pretraining(k)) for k in PRETRAINED},
        "distilled": pretrained(student, 7, images()["train"][1]),  # of 16: 7, 7, 2
        "killed": killed(folder),
        "masks": masks(),
        "refusals": refusals(),
        "uneven": on_several_devices("mirrored"),
        "left to Keras": left_to_keras(),
        "one for all": one_for_all(),
    }
    with open(os.path.join(folder, "seen.json"), "w") as file:
        json.dump(seen, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
