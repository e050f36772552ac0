"""Strategies: one model on all devices of a machine, here two virtual ones of TensorFlow."""

import json
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from helpers import PROGRAMS, tiny
from trainings import PRETRAINED
from uneven import HAS_TORCH

import keras_vit

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="on jax: test_sharding, on torch: test_torch_processes",
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Results of programs/mirrored.py on two devices of the CPU."""
    folder = tmp_path_factory.mktemp("mirrored")
    done = subprocess.run(
        [sys.executable, PROGRAMS / "mirrored.py", folder],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "seen.json").read_text())


@on_tensorflow
@pytest.mark.parametrize(("policy", "bound"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
def test_two_devices_give_the_weights_of_one(seen, policy, bound):
    """With clipping and averages, to the losses and the slots of the optimizer; of 5
    images that are evaluated, which two devices do not divide.
    """
    assert seen[policy]["learned"] > 0.1
    assert seen[policy]["distance"] <= bound


@on_tensorflow
@pytest.mark.parametrize("kind", PRETRAINED)
def test_models_without_labels_learn_as_on_one_device(seen, kind):
    assert seen["pretrained"][kind]["learned"] > 0.1
    assert seen["pretrained"][kind]["distance"] <= 1e-5


@on_tensorflow
def test_a_student_learns_from_its_teacher_as_on_one_device(seen):
    assert seen["distilled"]["learned"] > 0.1
    assert seen["distilled"]["distance"] <= 1e-5


@on_tensorflow
def test_a_killed_training_goes_on_bit_for_bit(seen):
    """With dropout, clipping, averages; from within an epoch."""
    assert seen["killed"] == []


@on_tensorflow
def test_dropout_differs_by_device_and_step(seen):
    for steps in (seen["masks"][:2], seen["masks"][2:]):
        rows = np.concatenate(steps)
        assert rows.shape == (16, 64)
        assert len(np.unique(rows, axis=0)) == 16
        assert abs(rows.mean() - 0.5) < 0.1


OPTIONS = (
    *("steps_per_execution=2", "jit_compile=True"),
    *("gradient_accumulation_steps=2", "ema_overwrite_frequency=3"),
)


@on_tensorflow
def test_what_cannot_be_trained_is_refused(seen):
    refusals = seen["refusals"]
    assert "micro_batch_size) 9 for 2 devices" in refusals["divide"]
    assert "Keras cannot accumulate gradients under a tf" in refusals["accumulation"]
    assert all(f"Received: {option}" in refusals[option] for option in OPTIONS)


@on_tensorflow
def test_rows_that_do_not_divide_are_trained_on_and_scored_as_on_one_device(seen):
    """With each number of rows left, kind of data, reduction, and batch by batch."""
    assert len(seen["uneven"]) == 22 + HAS_TORCH
    assert max(seen["uneven"].values()) <= 1e-5, seen["uneven"]


@on_tensorflow
def test_rows_that_do_not_divide_are_refused_where_keras_takes_the_step(seen):
    says = {
        "own": "as Own has a train_step of its own",
        "norm": "as BatchNormalization (norm) has statistics of the rows of each",
        "penalty": "as layers add losses of their own rows",
    }
    assert seen["left to Keras"].keys() == says.keys()
    for name, reason in says.items():
        said = seen["left to Keras"][name]
        start = "The rows of a batch must be divisible by the number of devices, "
        assert said.startswith(f"{start}{reason}. Received: a batch of 11 for 2 devices.")
        assert said.endswith("or use one device.")


@on_tensorflow
def test_the_same_devices_have_one_strategy(seen):
    assert seen["one for all"]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="a warning of Keras on JAX")
def test_a_distribution_of_keras_over_one_device_warns_of_nothing():
    """Keras does where a model has weights of two kinds of placement."""
    devices = keras.distribution.list_devices()[:1]
    with keras.distribution.DataParallel(devices=devices).scope():
        model = tiny(dropout_rate=0.1)
        model.compile("sgd", "mse")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Detected a mix")
            batch = [np.zeros((2, *s[1:])) for s in shapes_of(model)]
            model.train_on_batch(*batch, np.ones(2))  # without weights Keras 3.14 fails
    assert len({type(v.value.sharding) for v in model.variables}) == 1


def shapes_of(model):
    return model.input_shape, model.output_shape


def test_a_single_device_is_used_as_it_is():
    message = f"Received: [01] on the backend {keras.backend.backend()}"
    with pytest.raises(ValueError, match=message):
        keras_vit.distribution.strategy("data_parallel")
    with keras_vit.distribution.strategy("auto"), keras_vit.distribution.strategy("none"):
        pass
    with pytest.raises(ValueError, match="`name` must be one of 'auto', 'data_parallel'"):
        keras_vit.distribution.strategy("horovod")
