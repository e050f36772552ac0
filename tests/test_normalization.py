"""Layer norm."""

import re

import keras
import numpy as np
import pytest
from helpers import images, tiny

from keras_vit.layers import LayerNormalization


def trained(layer, dtype):
    """Weights of a small model with the layer in its middle, after three steps."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Dense(12, dtype=dtype),
            layer(epsilon=1e-3, gamma_initializer="random_uniform", dtype=dtype),
            keras.layers.Dense(3, dtype=dtype),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "mse")
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(2, 3, (4, 5, 7)), rng.normal(size=(4, 5, 3))
    for _ in range(3):
        model.train_on_batch(inputs.astype("float32"), targets.astype("float32"))
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
def test_values_and_gradients_are_those_of_keras(dtype, bound):
    ours = trained(LayerNormalization, dtype)
    theirs = trained(keras.layers.LayerNormalization, dtype)
    np.testing.assert_allclose(ours, theirs, atol=bound)


@pytest.mark.parametrize(
    "options", [{"center": False}, {"scale": False}, {"axis": (-2, -1)}]
)
def test_other_forms_are_keras_own(options):
    inputs = images(3, 4, 5)
    ours, theirs = (
        keras.ops.convert_to_numpy(layer(epsilon=1e-6, **options)(inputs))
        for layer in (LayerNormalization, keras.layers.LayerNormalization)
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA's compiler, by JAX")
def test_a_block_s_gradient_is_not_computed_again_for_those_below():
    # What one fused loop reads grew by 14 arrays with each block.
    read = [most_operands(num_layers) for num_layers in (2, 5)]
    assert read[0] == read[1] < 20


def most_operands(num_layers):
    """Of any fused loop in the compiled gradient of an encoder."""
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
