"""Strategies: one model on all devices of a machine, here virtual ones."""

import os
import subprocess
import sys

import keras
import pytest

import keras_vit

# Trains under a strategy, and once more without, on two devices of the CPU.
SCRIPT = """
import sys
import keras
import numpy as np

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    # Where GPUs are looked for there are these.
    tf.config.list_logical_devices = lambda kind, list_=tf.config.list_logical_devices: (
        list_("CPU")
    )

import keras_vit
from keras_vit.data import Augmentation
from keras_vit.training import ViTFineTuning

rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (16, 16, 16, 3)).astype("uint8")
data = keras_vit.data.load((images, np.arange(16) % 2), validation_split=0.25)
micro_batch_size = int(sys.argv[1])
recipe = ViTFineTuning(
    steps=4, micro_batch_size=micro_batch_size, batch_size=8, base_learning_rate=0.1, warmup_steps=1, resolution=16,
    augmentation=Augmentation(crop="resize", flip=False),
)
results = []
for name in ("none", "data_parallel"):
    keras.utils.set_random_seed(0)
    with keras_vit.distribution.strategy(name):
        model = keras_vit.VisionTransformer(
            16, 8, 16, 1, 2, 32, classes=2, classifier_activation=None
        )
        history = keras_vit.training.finetune(
            model, data, recipe, evaluations=1, verbose=0
        )
    results.append([keras.ops.convert_to_numpy(w) for w in model.weights])
    if name != "none":
        wrong = recipe.replace(batch_size=9, micro_batch_size=9)
        try:
            with keras_vit.distribution.strategy(name):
                keras_vit.training.finetune(model, data, wrong)
        except ValueError as error:
            print(error, file=sys.stderr)
    kernel = model.get_layer("head").kernel.value
    if keras.backend.backend() == "jax":
        print(len(kernel.sharding.device_set), "devices")
    else:
        print(len(getattr(kernel, "values", [kernel])), "devices")
worst = max(np.abs(a - b).max() for a, b in zip(*results, strict=True))
print("largest difference", worst)
assert worst < 1e-5
"""


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="on torch: test_torch_processes"
)
@pytest.mark.parametrize("micro_batch_size", [8, 4])
def test_data_parallel_gives_the_weights_of_one_device(micro_batch_size):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(micro_batch_size)],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    if keras.backend.backend() == "tensorflow" and micro_batch_size == 4:
        assert "Keras cannot accumulate gradients under a tf.distribute" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert "micro_batch_size) 9 for 2 devices" in done.stderr
    assert done.stdout.splitlines()[:2] == ["1 devices", "2 devices"]


def test_a_single_device_is_used_as_it_is():
    message = f"Received: [01] on the backend {keras.backend.backend()}"
    with pytest.raises(ValueError, match=message):
        keras_vit.distribution.strategy("data_parallel")
    with keras_vit.distribution.strategy("auto"), keras_vit.distribution.strategy("none"):
        pass
    with pytest.raises(ValueError, match="`name` must be one of 'auto', 'data_parallel'"):
        keras_vit.distribution.strategy("horovod")
