"""`freeze` and `enable_lora`: trained and frozen weights."""

import keras
import numpy as np
import pytest
from helpers import (
    array,
    assert_close,
    images,
    path_of,
    randomize,
    tiny,
    weights,
)

import keras_vit
from keras_vit.training import enable_lora, freeze

STEM = {"num_units": (1,), "width_factor": 0.5}


def small(**overrides):
    return tiny(
        **{"hidden_dim": 8, "num_heads": 2, "mlp_dim": 16, "classes": 3} | overrides
    )


def hybrid():
    return small(stem=STEM, patch_size=2, pooling="map", class_token=True)


def resnet():
    return randomize(keras_vit.BiTResNet(32, (1, 2), 0.5, classes=3))


def layers_trained(model):
    return {path_of(weight).split("/")[0] for weight in model.trainable_weights}


@pytest.mark.parametrize("make", [small, hybrid, resnet])
@pytest.mark.parametrize("nested", [False, True])
def test_what_is_trained(make, nested):
    model = make()
    whole = keras.Sequential([keras.Input((32, 32, 3)), model]) if nested else model
    everything = {path_of(weight) for weight in model.weights}
    after = {"encoder_norm", "norm", "pooling", "head"} & layers_trained(model)
    block = "stage_1_unit_1" if make is resnet else "block_1"
    last = {"stage_1_unit_0" if make is resnet else "block_0", block}
    assert freeze(whole, "linear") is whole
    assert layers_trained(whole) == {"head"}
    freeze(whole, 1)
    assert layers_trained(whole) == {block, *after}
    freeze(whole, 2)
    assert layers_trained(whole) == {*last, *after}
    freeze(whole, 0)
    assert layers_trained(whole) == after
    freeze(whole, "norms")
    trained = {path_of(weight) for weight in whole.trainable_weights}
    norms = {path for path in everything if path.split("/")[-1] in ("gamma", "beta")}
    assert trained == {*norms, "head/kernel", "head/bias"}
    freeze(whole, None)
    assert {path_of(weight) for weight in whole.trainable_weights} == everything


@pytest.mark.one_backend
def test_an_own_head_is_trained():
    model = keras.Sequential(
        [keras.Input((32, 32, 3)), small(classes=0), keras.layers.Dense(4, name="own")]
    )
    freeze(model, "linear")
    assert [weight.name for weight in model.trainable_weights] == ["kernel", "bias"]
    assert not model.layers[0].get_layer("block_0").trainable


@pytest.mark.parametrize(("make", "what"), [(small, 1), (resnet, "norms")])
def test_frozen_weights_stay_bit_for_bit(make, what):
    model = freeze(make(), what)
    before = weights(model)
    trained = {path_of(weight) for weight in model.trainable_weights}
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(images(), np.array([0, 1]), verbose=0)
    changed = {
        path for path, value in weights(model).items() if (value != before[path]).any()
    }
    assert changed == trained


def test_freeze_refuses():
    model = small()
    for what in ("head", -1, True, 1.5):
        with pytest.raises(
            ValueError, match="`what` must be 'linear', 'norms', the number"
        ):
            freeze(model, what)
    with pytest.raises(
        ValueError, match="at most the number of blocks, 2. Received: what=3"
    ):
        freeze(model, 3)
    with pytest.raises(ValueError, match="neither a head nor such weights"):
        freeze(small(classes=0), "linear")


def test_lora_trains_little_and_saves_merged(tmp_path):
    model = small(pooling="token")  # the last block cuts the kernel of its queries
    before, expected = weights(model), array(model(images()))
    freeze(model, "linear")  # which must not stay
    assert enable_lora(model, 2, alpha=4) is model
    assert_close(model(images()), expected, 1e-6)
    trained = {path_of(weight) for weight in model.trainable_weights}
    assert trained == {"head/kernel", "head/bias"} | {
        f"block_{i}/{layer}/lora_kernel_{name}"
        for i in (0, 1)
        for layer in ("attention/qkv", "attention/projection", "mlp/dense_1", "mlp/dense_2")
        for name in "ab"
    }
    start = weights(model)
    model.compile(
        keras.optimizers.SGD(0.5, momentum=0.9), "sparse_categorical_crossentropy"
    )
    model.fit(images(), np.array([0, 1]), epochs=3, verbose=0)
    for path, value in weights(model).items():
        assert (value != start[path]).any() == (path in trained), path
    outputs = array(model(images()))
    assert np.abs(outputs - expected).max() > 1e-3
    assert len(model.optimizer.variables) == 2 + len(trained)

    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    keras_vit.save_weights(model, tmp_path / "timm.safetensors", layout="timm")
    assert_close(keras.models.load_model(tmp_path / "model.keras")(images()), outputs)
    for name in ("model.weights.h5", "timm.safetensors"):
        plain = small(pooling="token")
        assert weights(plain).keys() == before.keys()
        keras_vit.load_weights(plain, tmp_path / name)
        assert_close(plain(images()), outputs)


@pytest.mark.one_backend
def test_lora_by_layer():
    model = enable_lora(small(), 3, layers=("qkv", "dense_2"))
    shapes = {
        path_of(w): w.shape for w in model.trainable_weights if "block_1" in path_of(w)
    }
    assert shapes == {
        "block_1/attention/qkv/lora_kernel_a": (8, 3, 2, 3),
        "block_1/attention/qkv/lora_kernel_b": (3, 4),
        "block_1/mlp/dense_2/lora_kernel_a": (16, 3),
        "block_1/mlp/dense_2/lora_kernel_b": (3, 8),
    }


@pytest.mark.one_backend
def test_lora_refuses():
    with pytest.raises(ValueError, match="`rank` must be a positive integer"):
        enable_lora(small(), 0)
    with pytest.raises(ValueError, match="`layers` must be one of 'qkv', 'projection'"):
        enable_lora(small(), 2, layers=("query",))
    with pytest.raises(ValueError, match="for the encoder blocks of a `VisionTransformer`"):
        enable_lora(resnet(), 2)
    with pytest.raises(ValueError, match="at least one of their layers"):
        enable_lora(small(), 2, layers=())
    model = enable_lora(small(), 2)
    for again in (lambda: enable_lora(model, 2), lambda: freeze(model, "linear")):
        with pytest.raises(ValueError, match="LoRA weights in .*/block_0/"):
            again()
    model = small()
    model.get_layer("block_1").attention.qkv.quantize("int8")
    with pytest.raises(ValueError, match="Quantized kernels cannot be trained"):
        enable_lora(model, 2)
