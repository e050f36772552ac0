"""Dense layers: Keras' own, but for how torch computes them."""

import keras
import numpy as np
import pytest
from helpers import array, assert_close, randomize
from keras import ops

from keras_vit.layers.dense import Dense, EinsumDense

TOKENS = np.random.default_rng(0).normal(size=(2, 5, 12)).astype("float32")
KINDS = {
    "dense": (Dense, (16,), {}, TOKENS),
    "qkv": (
        EinsumDense,
        ("btd,dshk->btshk", (None, 3, 2, 6)),
        {"bias_axes": "shk"},
        TOKENS,
    ),
    "projection": (
        EinsumDense,
        ("bthk,hkd->btd", (None, 16)),
        {"bias_axes": "d"},
        TOKENS.reshape(2, 5, 3, 4),
    ),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def pair(kind, **options):
    """Our layer and Keras' with the same weights, and inputs."""
    ours, args, fields, inputs = KINDS[kind]
    layers = [one(*args, **fields, **options) for one in (ours, ours.__bases__[-1])]
    for layer in layers:
        layer.build(inputs.shape)
    randomize(layers[0])
    layers[1].set_weights(layers[0].get_weights())
    return *layers, inputs


@each_kind
@pytest.mark.parametrize("options", [{}, {"dtype": "mixed_bfloat16"}])
def test_outputs_are_those_of_keras(kind, options):
    ours, theirs, inputs = pair(kind, **options)
    actual, expected = (ops.cast(layer(inputs), "float32") for layer in (ours, theirs))
    assert ours(inputs).shape == theirs(inputs).shape
    assert ours(inputs).dtype == theirs(inputs).dtype
    assert_close(actual, expected, tolerance=2e-2 if options else 1e-6)


@each_kind
def test_training_is_that_of_keras(kind):
    *layers, inputs = pair(kind)
    weights = []
    for layer in layers:
        model = keras.Sequential([layer])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        for _ in range(2):
            model.train_on_batch(inputs, np.ones(layer(inputs).shape, "float32"))
        weights.append(model.get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        Dense(16, activation="relu"),
        EinsumDense("btd,dk->btk", (None, 16), bias_axes="k", activation="relu"),
        EinsumDense("btd,kd->btk", (None, 12), bias_axes="k"),
        EinsumDense("btd,dhk->bhtk", (3, None, 4), bias_axes="hk"),
        EinsumDense("btd,dhk->bthk", (None, 3, 4), bias_axes="k"),
    ],
)
def test_what_is_no_product_with_a_bias_alone(layer):
    theirs = type(layer).__bases__[-1].from_config(layer.get_config())
    for one in (layer, theirs):
        one.build(TOKENS.shape)
    randomize(layer)
    theirs.set_weights(layer.get_weights())
    assert_close(layer(TOKENS), theirs(TOKENS), tolerance=1e-6)


def test_without_a_bias():
    layer = Dense(16, use_bias=False)
    assert_close(layer(TOKENS), TOKENS @ array(layer.kernel))


@each_kind
def test_low_rank_updates_count(kind):
    ours, theirs, inputs = pair(kind)
    for layer in (ours, theirs):
        layer.enable_lora(2)
    randomize(ours)
    theirs.set_weights(ours.get_weights())
    assert_close(ours(inputs), theirs(inputs), tolerance=1e-6)


@each_kind
def test_quantized_it_is_keras_own(kind):
    ours, theirs, inputs = pair(kind)
    before = array(ours(inputs))
    for layer in (ours, theirs):
        layer.quantize("int8")
    np.testing.assert_array_equal(array(ours(inputs)), array(theirs(inputs)))
    assert 0 < np.abs(array(ours(inputs)) - before).max() < 0.1 * np.abs(before).max()


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_gelu_where_it_is_asked_for(approximate, use_bias):
    layer, _, inputs = pair("dense", use_bias=use_bias)
    expected = ops.gelu(layer(inputs), approximate=approximate)
    assert_close(layer(inputs, gelu_approximate=approximate), expected, tolerance=1e-6)
