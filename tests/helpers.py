"""Tiny models, reference cases and comparisons."""

from pathlib import Path

import keras
import numpy as np

import keras_vit
from keras_vit.weight_paths import named_weights, public_path

REFERENCE = Path(__file__).parent / "reference"
PROGRAMS = Path(__file__).parent / "programs"  # scripts that tests start
TINY = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_dim": 48,
    "num_layers": 2,
    "num_heads": 4,
    "mlp_dim": 96,
}


def tiny(**overrides):
    """A tiny `VisionTransformer` whose every weight is random, also those that are zero
    or one at the start."""
    return randomize(keras_vit.VisionTransformer(**{**TINY, "classes": 10, **overrides}))


def randomize(model, seed=0):
    """Adds noise to every weight of a model or layer, and returns it."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        noise = rng.normal(scale=0.1, size=weight.shape).astype("float32")
        weight.assign(weight + noise)
    return model


def images(height=32, width=32, channels=3, batch=2):
    """Random images in [-1, 1], the same at every call."""
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (batch, height, width, channels)).astype("float32")


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def assert_close(actual, expected, tolerance=1e-5):
    """The largest difference is at most `tolerance` times the largest value."""
    actual, expected = array(actual), array(expected)
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"relative error {error:.2e}"


def gradient_of(function, x):
    """The gradient at an array of a function of a tensor with a scalar result."""
    if keras.backend.backend() == "torch":
        x = keras.ops.convert_to_tensor(x).requires_grad_(True)
        function(x).backward()
        return array(x.grad)
    if keras.backend.backend() == "jax":
        import jax

        return array(jax.grad(function)(x))
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return array(tape.gradient(value, x))


def weights(model):
    """Copies of a model's weights by path, without the name of a model of ours."""
    return {path: array(weight).copy() for path, weight in named_weights(model)}


def path_of(weight):
    """A weight's path, without the name of a model of ours."""
    return public_path(weight.path)


def assert_same_weights(actual, expected):
    assert actual.keys() == expected.keys()
    for path in expected:
        np.testing.assert_array_equal(actual[path], expected[path], err_msg=path)


def reference(case, name="expected"):
    """The arrays of a file of a reference case, by name."""
    with np.load(REFERENCE / case / f"{name}.npz") as file:
        return dict(file)
