"""Strategies: one model on all devices of a machine, here two virtual ones of TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vit

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="on jax: test_sharding, on torch: test_torch_processes",
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What tests/mirrored.py saw on two devices of the CPU."""
    folder, here = tmp_path_factory.mktemp("mirrored"), Path(__file__).parent
    done = subprocess.run(
        [sys.executable, here / "mirrored.py", folder],
        env={**os.environ, "PYTHONPATH": os.fspath(here.parent)},
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
def test_a_killed_training_goes_on_bit_for_bit(seen):
    """With dropout, clipping, averages; from within an epoch."""
    assert seen["killed"] == []


@on_tensorflow
def test_dropout_differs_by_device_and_step(seen):
    for steps in (seen["masks"][:4], seen["masks"][4:]):
        rows = np.concatenate(steps)
        assert rows.shape == (16, 64)
        assert len(np.unique(rows, axis=0)) == 16
        assert abs(rows.mean() - 0.5) < 0.1


@on_tensorflow
def test_what_cannot_be_trained_is_refused(seen):
    refusals = seen["refusals"]
    assert "micro_batch_size) 9 for 2 devices" in refusals["divide"]
    assert "Keras cannot accumulate gradients under a tf" in refusals["accumulation"]


def test_a_single_device_is_used_as_it_is():
    message = f"Received: [01] on the backend {keras.backend.backend()}"
    with pytest.raises(ValueError, match=message):
        keras_vit.distribution.strategy("data_parallel")
    with keras_vit.distribution.strategy("auto"), keras_vit.distribution.strategy("none"):
        pass
    with pytest.raises(ValueError, match="`name` must be one of 'auto', 'data_parallel'"):
        keras_vit.distribution.strategy("horovod")
