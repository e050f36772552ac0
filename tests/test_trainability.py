"""Frozen stays frozen: what is trained survives every way of copying a model."""

import copy
import pickle

import keras
import numpy as np
import pytest
from helpers import array, images, path_of, randomize, tiny, weights

import keras_vit
from keras_vit.training import enable_lora, freeze


def small(**overrides):
    fields = {"hidden_dim": 8, "num_heads": 2, "mlp_dim": 16, "classes": 3}
    return tiny(**fields | overrides)


def resnet():
    return randomize(keras_vit.BiTResNet(32, (1, 1), 0.5, classes=3))


def alone(model):
    return model


def in_sequential(model):
    return keras.Sequential(
        [keras.Input((32, 32, 3)), model, keras.layers.Dense(3, name="own")]
    )


def in_functional(model):
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, keras.layers.Dense(3, name="own")(model(inputs)))


def extractor(model):
    """A plain functional model of our layers."""
    return keras.Model(model.input, model.layers[-2].output)


def loaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def pickled(model, tmp_path):
    return pickle.loads(pickle.dumps(model))


def deep_copied(model, tmp_path):
    return copy.deepcopy(model)


def cloned(model, tmp_path):
    return keras.models.clone_model(model)


def flags(model):
    """The flags of every layer and weight inside a model, in the order of both.

    Not the names of weights: those of Keras' own layers are numbered in a process.
    """
    layers = [
        (layer.name, layer.trainable, len(layer.trainable_weights))
        for layer in model._flatten_layers(include_self=False)
        if layer.weights
    ]
    return layers, [weight.trainable for weight in model.weights]


def freeze_all(model):
    model.trainable = False


def freeze_first(model):
    next(layer for layer in model.layers if layer.weights).trainable = False


def freeze_nested(model):
    """A layer within a layer, and but for one layer a whole one."""
    *_, first, last = (
        layer for layer in model.layers if layer.name.startswith(("block_", "stage_"))
    )
    inside = [layer for layer in first._layers if layer.weights]
    inside[0].trainable = False
    last.trainable = False
    [layer for layer in last._layers if layer.weights][1].trainable = True


def freeze_by(what):
    return lambda model: freeze(model, what)


FREEZES = {
    "all": freeze_all,
    "first": freeze_first,
    "nested": freeze_nested,
    "linear": freeze_by("linear"),
    "norms": freeze_by("norms"),
    "blocks": freeze_by(1),
}


@pytest.mark.parametrize("how", FREEZES)
@pytest.mark.parametrize("make", [small, resnet])
def test_what_is_frozen_survives_every_copy(make, how, tmp_path):
    inner = make()
    FREEZES[how](inner)
    expected = flags(inner)
    assert not all(expected[1])
    for around in (alone, in_sequential, in_functional):
        model = around(inner)
        trained = len(model.trainable_weights)
        for copied in (loaded, pickled, deep_copied, cloned):
            again = copied(model, tmp_path)
            if around is alone and copied is cloned:
                # Keras makes a plain functional model of its layers.
                assert flags(again)[0] == expected[0]
                continue
            assert len(again.trainable_weights) == trained, (around, copied)
            assert flags(again) == flags(model), (around, copied)
    for source in (inner, tmp_path / "inner.keras"):
        inner.save(tmp_path / "inner.keras")
        again = keras_vit.from_pretrained(source)
        assert (flags(again), again.trainable) == (expected, inner.trainable)
        assert again.get_config()["trainable"] == inner.get_config()["trainable"]


@pytest.mark.parametrize("make", [small, resnet])
def test_the_next_fit_moves_what_is_trained_alone(make, tmp_path):
    inner = make()
    freeze_nested(inner)
    model = loaded(in_sequential(inner), tmp_path)
    before, again = weights(model), loaded(model, tmp_path)
    again.compile(
        keras.optimizers.SGD(0.5, weight_decay=0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    again.fit(images(), np.array([0, 1]), verbose=0)
    changed = [
        bool((array(weight) != before[path_of(weight)]).any()) for weight in again.weights
    ]
    trained = {id(weight) for weight in again.trainable_weights}
    assert changed == [id(weight) in trained for weight in again.weights]
    assert any(changed)
    assert not all(changed)


def test_a_model_of_our_layers_is_as_it_was(tmp_path):
    """Also where no `VisionTransformer` is left to say it."""
    for make in (small, resnet, lambda: small(pooling="map")):
        model = extractor(make())
        freeze_nested(model)
        model.layers[-1].trainable = False
        for copied in (loaded, cloned):
            assert flags(copied(model, tmp_path)) == flags(model), make


@pytest.mark.one_backend
def test_the_oracle_agrees(tmp_path):
    """Keras' own layers inside a functional model, of which each is a layer of it."""
    inputs = keras.Input((4,))
    frozen = keras.layers.Dense(4, name="first", trainable=False)
    plain = keras.Model(inputs, keras.layers.Dense(2, name="last")(frozen(inputs)))
    model = small()
    model.get_layer("patch_embedding").trainable = False
    for one in (plain, model):
        again = loaded(one, tmp_path)
        assert flags(again) == flags(one)
        assert len(again.trainable_weights) == len(again.weights) - 2


@pytest.mark.one_backend
def test_a_part_that_is_frozen_before_it_has_weights():
    block = keras_vit.layers.EncoderBlock(2, 16)
    block.mlp.trainable = False
    for _ in range(2):
        block = type(block).from_config(block.get_config())
    block.build((None, 3, 8))
    assert (len(block.trainable_weights), len(block.mlp.weights)) == (8, 4)
    assert not block.mlp.trainable_weights


@pytest.mark.one_backend
def test_nothing_is_added_to_the_config_of_a_model_that_is_trained():
    for make in (small, resnet):
        model = make()
        assert "trainable_parts" not in model.get_config()
        layers = model._flatten_layers(include_self=False)
        assert not any("trainable_parts" in layer.get_config() for layer in layers)
        model.trainable = False
        assert model.get_config()["trainable"] is False
        assert "trainable_parts" not in model.get_config()
        freeze(model, "linear")
        parts = model.get_config()["trainable_parts"]
        assert set(parts.values()) == {False}
        assert "head" not in parts
        assert all("/" not in part for part in parts)


@pytest.mark.one_backend
def test_a_copy_with_other_arguments(tmp_path):
    model = freeze(small(representation_size=6), "linear")
    model.get_layer("head").trainable = False
    other = keras_vit.from_pretrained(model, classes=5, input_shape=(48, 48, 3))
    trained = [path_of(weight).split("/")[-2] for weight in other.trainable_weights]
    assert trained == ["head", "head"]  # which is new
    same = keras_vit.from_pretrained(model)
    assert not same.trainable_weights
    assert len(keras_vit.from_pretrained(model, trainable=True).trainable_weights) == len(
        model.weights
    )
    frozen = keras_vit.from_pretrained(small(), trainable=False)
    assert not in_sequential(frozen).layers[0].trainable_weights
    assert len(in_sequential(frozen).trainable_weights) == 2


def test_frozen_and_quantized(tmp_path):
    model = freeze(small(), "norms")
    model.quantize("int8", filters=lambda layer: "mlp" in (layer.path or ""))
    again = loaded(model, tmp_path)
    assert flags(again) == flags(model)
    assert flags(keras_vit.from_pretrained(model)) == flags(model)


@pytest.mark.one_backend
def test_what_lora_froze_stays_frozen(tmp_path):
    model = enable_lora(small(), 2)
    again = loaded(model, tmp_path)
    assert [path_of(weight).split("/")[-2] for weight in again.trainable_weights] == [
        *("head", "head")
    ]
    copy = keras.models.clone_model(model)
    assert list(map(path_of, copy.trainable_weights)) == ["head/kernel", "head/bias"]
    enable_lora(again, 2)
    assert len(again.trainable_weights) == len(model.trainable_weights)


@pytest.mark.one_backend
def test_parts_that_are_none():
    config = {**small().get_config(), "trainable_parts": {"block_7": False}}
    with pytest.raises(ValueError, match="layers and weights inside .*: block_7"):
        keras_vit.VisionTransformer.from_config(config)
