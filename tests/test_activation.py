"""GELU: Keras' values and gradients, and one operation with its product on TensorFlow."""

import platform

import keras
import numpy as np
import pytest
from helpers import array, images, tiny
from keras import ops

from keras_vit.layers.kernels import gelu

# Where float32 squares and exponentials reach their ends, too.
VALUES = np.concatenate([np.linspace(-9, 9, 181), [-1e4, 1e4]]).astype("float32")
each_form = pytest.mark.parametrize("approximate", [False, True])


class Scaled(keras.layers.Layer):
    """A function of the inputs times a weight for each."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[1:], initializer="ones")

    def call(self, inputs, training=None):
        return self.function(inputs * self.scale, training)


@each_form
@pytest.mark.parametrize("training", [False, True])
def test_values_are_those_of_keras(approximate, training):
    inputs = ops.convert_to_tensor(VALUES)
    actual = gelu(inputs, approximate=approximate, training=training)
    expected = ops.gelu(inputs, approximate=approximate)
    np.testing.assert_allclose(array(actual), array(expected), rtol=1e-6, atol=1e-6)


@each_form
def test_gradients_are_those_of_keras(approximate):
    def ours(x, training):
        return gelu(x, approximate=approximate, training=training)

    def theirs(x, training):
        return ops.gelu(x, approximate=approximate)

    scales = []
    for function in (ours, theirs):
        model = keras.Sequential([Scaled(function)])
        model.compile(keras.optimizers.SGD(1.0), keras.losses.MeanAbsoluteError("sum"))
        model.train_on_batch(VALUES[None], np.full((1, len(VALUES)), 1e6, "float32"))
        scales.append(model.get_weights()[0])
    assert np.isfinite(scales[0]).all()
    assert np.ptp(scales[0]) > 1
    np.testing.assert_allclose(*scales, rtol=1e-6, atol=1e-6)


@each_form
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_stay_halves(approximate, dtype):
    inputs = ops.cast(VALUES, dtype)
    outputs = gelu(inputs, approximate=approximate, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    assert np.isfinite(array(ops.cast(outputs, "float32"))).all()


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or platform.machine() != "x86_64",
    reason="TensorFlow's optimizer, with oneDNN",
)
@pytest.mark.parametrize(
    ("approximate", "joined"), [(True, b"GeluApproximate"), (False, b"GeluExact")]
)
def test_tensorflow_makes_it_a_part_of_the_product(approximate, joined):
    import tensorflow as tf
    from tensorflow.python.eager import context

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("on GPUs, where Keras takes XLA, TensorFlow joins another form")
    model = tiny(num_layers=3, gelu_approximate=approximate)
    model.compile(jit_compile=False)
    with context.collect_graphs(optimized=True) as graphs:
        model.predict_on_batch(images())
    fused = [list(n.attr["fused_ops"].list.s) for graph in graphs for n in graph.node]
    assert fused.count([b"BiasAdd", joined]) == 3
