"""Scaled dot-product attention, whether the backend computes it or it is written out."""

import keras
import numpy as np
import pytest
from helpers import array
from keras import ops

from keras_vit.layers.kernels import attend

RNG = np.random.default_rng(0)


def operands(queries=5):
    shapes = (2, 3, queries, 4), (2, 3, 7, 4), (2, 3, 7, 4)
    return [RNG.normal(size=shape).astype("float32") for shape in shapes]


def by_hand(query, key, value, bias=0.0):
    query, key, value = map(np.float64, (query, key, value))
    scores = query @ key.swapaxes(2, 3) / 2 + bias
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ value).swapaxes(1, 2)


@pytest.mark.parametrize("dropout", [None, lambda weights: weights])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_attention_is_the_formula(dtype, bound, dropout):
    """Also with a single query."""
    for queries in (5, 1):
        inputs = [ops.cast(x, dtype) for x in operands(queries)]
        expected = by_hand(*(array(ops.cast(x, "float32")) for x in inputs))
        outputs = attend(*inputs, dropout=dropout)
        assert keras.backend.standardize_dtype(outputs.dtype) == dtype
        np.testing.assert_allclose(
            array(ops.cast(outputs, "float32")), expected, atol=bound
        )


def test_scores_may_be_so_large_that_their_exponential_is_infinite():
    query, key, value = operands()
    outputs = attend(*map(ops.convert_to_tensor, (1e3 * query, key, value)))
    np.testing.assert_allclose(array(outputs), by_hand(1e3 * query, key, value), atol=1e-3)


@pytest.mark.parametrize("flash_attention", [None, False])
@pytest.mark.parametrize("dropout", [None, lambda weights: weights])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("bfloat16", 4e-2)])
def test_a_bias_is_added_to_the_scores(dtype, bound, dropout, flash_attention, monkeypatch):
    monkeypatch.setattr(keras.config, "is_flash_attention_enabled", lambda: flash_attention)
    inputs, bias = operands(), RNG.normal(size=(2, 1, 1, 7)).astype("float32")
    tensors = [ops.cast(x, dtype) for x in inputs]
    outputs = attend(*tensors, bias=ops.convert_to_tensor(bias), dropout=dropout)
    expected = by_hand(*(array(ops.cast(x, "float32")) for x in tensors), bias)
    np.testing.assert_allclose(array(ops.cast(outputs, "float32")), expected, atol=bound)


def test_a_sum_over_many_keys_does_not_overflow_in_float16():
    """The values themselves are in range."""
    query, key, value = ops.ones((3, 1, 1, 5000, 4), "float16")
    outputs = attend(query, key, 60 * value, dropout=lambda weights: weights)
    np.testing.assert_allclose(array(outputs), 60, rtol=1e-2)


def test_gradients_are_those_of_the_formula():
    """By differences of the formula in float64."""
    inputs, upstream = operands(), RNG.normal(size=(2, 5, 3, 4))

    class Attention(keras.layers.Layer):
        def build(self):
            self.operands = [
                self.add_weight(shape=x.shape, initializer="zeros") for x in inputs
            ]

        def call(self, batch):
            return attend(*self.operands)[None] * batch[:, None, None, None, None]

    layer = Attention()
    layer.build()
    layer.set_weights(list(inputs))
    model = keras.Sequential([layer])
    model.compile(
        keras.optimizers.SGD(1.0),
        lambda y, outputs: ops.sum(y * outputs, axis=(1, 2, 3, 4)),
    )
    model.train_on_batch(np.ones(1, "float32"), upstream[None].astype("float32"))
    step = 1e-4
    for which, moved in enumerate(model.get_weights()):
        for place in [(0, 0, 0, 0), (1, 2, 3, 1)]:
            changed = [np.float64(x) for x in inputs]
            changed[which][place] += step
            after = (by_hand(*changed) * upstream).sum()
            changed[which][place] -= 2 * step
            slope = (after - (by_hand(*changed) * upstream).sum()) / (2 * step)
            np.testing.assert_allclose(
                inputs[which][place] - moved[place], slope, atol=1e-5
            )


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="parts are JAX' on a CPU")
def test_large_scores_are_computed_in_parts(monkeypatch):
    import jax

    from keras_vit.layers.kernels import jax as jax_kernels

    inputs = operands(queries=7)
    expected = array(attend(*inputs))

    def gradients():
        return jax.grad(lambda *x: (attend(*x) ** 2).sum(), (0, 1, 2))(*inputs)

    of_all = gradients()
    monkeypatch.setattr(jax_kernels, "LARGE", 49)
    monkeypatch.setattr(jax_kernels, "PART", 2 * 49)
    assert "scan" in str(jax.make_jaxpr(attend)(*inputs))
    np.testing.assert_allclose(array(attend(*inputs)), expected, atol=1e-6)
    for actual, whole in zip(gradients(), of_all, strict=True):
        np.testing.assert_allclose(array(actual), array(whole), atol=1e-5)
    monkeypatch.setattr(jax_kernels, "PART", 1)  # less than one head's
    np.testing.assert_allclose(array(attend(*inputs)), expected, atol=1e-6)
    training = jax.make_jaxpr(lambda *x: attend(*x, training=True))
    assert "scan" not in str(training(*inputs))
    mesh = keras.distribution.DeviceMesh((1,), ["batch"], ["cpu:0"])
    monkeypatch.setattr(
        keras.distribution, "distribution", lambda: keras.distribution.DataParallel(mesh)
    )
    assert "scan" not in str(jax.make_jaxpr(lambda *x: attend(*x))(*inputs))
