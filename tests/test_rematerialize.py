"""Blocks that are computed once more in the backward pass: the same, in less memory."""

import keras
import numpy as np
import pytest
from helpers import array, assert_same_weights, images, tiny, weights

import keras_vit

SMALL = {"hidden_dim": 8, "num_heads": 2, "mlp_dim": 16, "classes": 3}
RATES = {"attention_dropout_rate": 0.2, "drop_path_rate": 0.5}


def trained(**overrides):
    """A model after two steps of `fit`."""
    keras.utils.set_random_seed(0)
    model = tiny(**SMALL, **RATES, **overrides)
    keras.utils.set_random_seed(1)
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    data = {"x": images(batch=8), "y": np.arange(8) % 3, "batch_size": 4}
    model.fit(**data, shuffle=False, verbose=0)
    return model


def test_trains_as_without_with_the_same_dropout():
    """Dropout of attention weights and of paths; the last block has a context."""
    expected, actual = trained(), trained(rematerialize=True)
    for path, value in weights(expected).items():
        np.testing.assert_allclose(weights(actual)[path], value, atol=1e-6, err_msg=path)
    # Every seed generator has taken the same steps.
    seeds = [
        [array(v) for v in model.variables if v.name == "seed_generator_state"]
        for model in (expected, actual)
    ]
    assert max(state[1] for state in seeds[0]) == 4
    np.testing.assert_array_equal([s[1] for s in seeds[0]], [s[1] for s in seeds[1]])


@pytest.mark.one_backend
def test_a_model_is_saved_with_it(tmp_path):
    model = tiny(**SMALL, rematerialize=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_config()["rematerialize"]
    assert again.get_layer("block_1").rematerialize
    assert_same_weights(weights(again), weights(model))
    plain = keras_vit.VisionTransformer(**{**model.get_config(), "rematerialize": False})
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(array(plain(images())), array(model(images())))
    np.testing.assert_array_equal(
        array(plain(images(), training=True)), array(model(images(), training=True))
    )


@pytest.mark.one_backend
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's hooks")
def test_the_forward_pass_keeps_less():
    import torch

    def bytes_kept(rematerialize):
        model = tiny(**SMALL, num_layers=6, rematerialize=rematerialize)
        weights = {weight.value.data_ptr() for weight in model.weights}
        kept = {}

        def pack(tensor):
            if tensor.data_ptr() not in weights:
                kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = model(images(batch=8), training=True)
        del outputs
        return sum(kept.values())

    assert bytes_kept(True) < bytes_kept(False) / 2
