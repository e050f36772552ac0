"""Layer norm and group norm."""

import functools
import re

import keras
import numpy as np
import pytest
from helpers import array, assert_close, images, tiny

from keras_vit.layers import GroupNormalization, LayerNormalization

LAYERS = [
    (LayerNormalization, keras.layers.LayerNormalization),
    (
        functools.partial(GroupNormalization, 4),
        functools.partial(keras.layers.GroupNormalization, 4),
    ),
]
of_each = pytest.mark.parametrize(("ours", "theirs"), LAYERS, ids=("layer", "group"))


def trained(layer, dtype, below=True):
    """Weights of a small model with the layer in its middle, after three steps.

    `below` says whether the layer below is trained, too.
    """
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Dense(12, dtype=dtype, trainable=below),
            layer(epsilon=1e-3, gamma_initializer="random_uniform", dtype=dtype),
            keras.layers.Dense(3, dtype=dtype),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "mse")
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(2, 3, (4, 5, 6, 7)), rng.normal(size=(4, 5, 6, 3))
    for _ in range(3):
        model.train_on_batch(inputs.astype("float32"), targets.astype("float32"))
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


@of_each
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
def test_values_and_gradients_are_those_of_keras(ours, theirs, dtype, bound):
    np.testing.assert_allclose(trained(ours, dtype), trained(theirs, dtype), atol=bound)


def derivatives(layer):
    """Derivatives of a layer's weighted sum of squares: along a direction, and second ones."""
    inputs = images(3, 2, 8, batch=1)
    weights = np.random.default_rng(3).normal(size=inputs.shape).astype("float32")
    along = np.random.default_rng(4).normal(size=inputs.shape).astype("float32")
    layer.build(inputs.shape)

    def loss(x):
        return keras.ops.sum(weights * layer(x) ** 2)

    if keras.backend.backend() == "jax":
        import jax

        gradient = jax.grad(loss)
        pushed = jax.jvp(gradient, (inputs,), (along,))
        rows = jax.vmap(layer)(inputs[None])[0]
        return (
            *jax.jvp(layer, (inputs,), (along,)),
            *pushed,
            jax.hessian(loss)(inputs),
            jax.jacfwd(layer)(inputs),
            jax.vmap(jax.grad(lambda x: loss(x[None])))(inputs),
            rows,
        )
    if keras.backend.backend() == "torch":
        import torch

        inputs, along = torch.tensor(inputs), torch.tensor(along)
        weights = torch.tensor(weights)
        both = torch.func.jvp(torch.func.grad(loss), (inputs,), (along,))
        return (*torch.func.jvp(layer, (inputs,), (along,)), *both)
    import tensorflow as tf

    inputs = tf.constant(inputs)
    with tf.autodiff.ForwardAccumulator(inputs, tf.constant(along)) as forward:
        outputs = layer(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(inputs)
    # Of second order Keras' own is 8 % off here, by finite differences in float64.
    return outputs, forward.jvp(outputs), tape.gradient(value, inputs)


@of_each
def test_derivatives_forward_and_of_second_order(ours, theirs):
    options = {"epsilon": 1e-3, "gamma_initializer": keras.initializers.Constant(1.5)}
    actual, expected = derivatives(ours(**options)), derivatives(theirs(**options))
    for ours_, theirs_ in zip(actual, expected, strict=True):
        assert_close(ours_, theirs_, tolerance=1e-4)


@of_each
def test_gradients_above_frozen_layers(ours, theirs):
    actual, expected = (trained(layer, "float32", below=False) for layer in (ours, theirs))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"center": False}, {"scale": False}, {}])
@pytest.mark.parametrize(
    ("kind", "axis"), list(enumerate([(-2, -1), -2])), ids=("layer", "group")
)
def test_other_forms_are_keras_own(kind, axis, options):
    (ours, theirs), inputs = LAYERS[kind], images(3, 4, 8)
    options = options or {"axis": axis}
    values = (array(layer(epsilon=1e-6, **options)(inputs)) for layer in (ours, theirs))
    np.testing.assert_array_equal(*values)


def test_group_norm_of_sequences_is_keras_own():
    inputs = images(3, 4, 8)[:, 0]
    layers = (
        GroupNormalization(4, epsilon=1e-6),
        keras.layers.GroupNormalization(4, epsilon=1e-6),
    )
    np.testing.assert_array_equal(*(array(layer(inputs)) for layer in layers))


def test_group_norm_keeps_digits_of_values_far_from_zero():
    inputs = images(6, 5, 8) + np.float32(1000)
    groups = inputs.astype("float64").reshape(2, 30, 4, 2)
    centred = groups - groups.mean((1, 3), keepdims=True)
    expected = centred / np.sqrt((centred**2).mean((1, 3), keepdims=True) + 1e-6)
    actual = array(GroupNormalization(4, epsilon=1e-6)(inputs))
    assert_close(actual, expected.reshape(inputs.shape), tolerance=1e-3)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA's compiler, by JAX")
def test_a_block_s_gradient_is_not_computed_again_for_those_below():
    # What one fused loop reads grew by 14 arrays with each block.
    read = [most_operands(num_layers) for num_layers in (2, 5)]
    assert read[0] == read[1] < 20


def most_operands(num_layers):
    """Most operands of a fused loop in the compiled gradient of an encoder."""
    import jax

    model = tiny(num_layers=num_layers, full_last_block=True)
    weights = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]

    def loss(weights, inputs):
        outputs, _ = model.stateless_call(weights, others, inputs, training=True)
        return (outputs**2).sum()

    compiled = jax.jit(jax.grad(loss)).lower(weights, images()).compile().as_text()
    loops = re.findall(r"(?m)^%fused_computation\S* \((.*)\) -> ", compiled)
    assert len(loops) > 50
    return max(len(re.findall(r": [a-z]\w*\[", loop)) for loop in loops)
