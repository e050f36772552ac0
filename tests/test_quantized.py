"""`model.quantize`: saved, loaded, read by `from_pretrained`, and refused elsewhere."""

import json
import zipfile

import keras
import numpy as np
import pytest
from helpers import array, assert_same_weights, images, path_of, tiny, weights

import keras_vit
from keras_vit.conversion.inspect import inspect

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
MODERN = {"pooling": "map", "mlp": "swiglu", "qk_norm": True, "representation_size": 8}


def quantized(mode="int8", filters=None, **fields):
    model = tiny(**fields)
    model.quantize(mode, filters=filters)
    return model


def assert_same(actual, expected):
    """The same weights, dtypes and outputs, to the last bit."""
    assert_same_weights(weights(actual), weights(expected))
    dtypes = [{path_of(w): w.dtype for w in model.weights} for model in (actual, expected)]
    assert dtypes[0] == dtypes[1]
    np.testing.assert_array_equal(array(actual(images())), array(expected(images())))


@pytest.mark.parametrize(
    ("mode", "fields"),
    [("int8", {}), ("int8", MODERN), ("int4", {}), ("float8", {})],
    ids=["int8", "int8 modern", "int4", "float8"],
)
def test_saved_and_loaded_it_is_the_same(mode, fields, tmp_path):
    model = quantized(mode, **fields)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("block_0").attention.qkv.quantization_mode == mode
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = json.loads(archive.read("config.json"))["config"]
    assert len(config["quantization"]) == 1
    assert_same(again, model)
    assert_same(keras_vit.from_pretrained(tmp_path / "model.keras"), model)


def test_a_bit_is_quantized_where_keras_can(tmp_path):
    model = keras_vit.BiTResNet(32, num_units=(1, 1), width_factor=0.5, classes=10)
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    assert_same(keras.models.load_model(tmp_path / "model.keras"), model)


@pytest.mark.one_backend
def test_layers_that_are_left_out_stay_so(tmp_path):
    model = quantized(filters=lambda layer: "mlp" in (layer.path or ""))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    block = again.get_layer("block_1")
    assert block.mlp.dense_1.quantization_mode == "int8"
    assert block.attention.qkv.quantization_mode is None
    assert_same(again, model)


@pytest.mark.one_backend
def test_layers_are_quantized_as_they_were(tmp_path):
    """int4 with blocks of another size than Keras' default."""
    model = tiny()
    config = keras.quantizers.Int4QuantizationConfig(block_size=16)
    model.quantize(config=config)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("head").quantization_config.block_size == 16
    assert_same(again, model)


def test_weights_go_into_a_model_that_is_quantized_alike(tmp_path):
    model = quantized()
    model.save_weights(tmp_path / "model.weights.h5")
    again = quantized(classifier_activation="softmax")
    again.get_layer("head").bias.assign(np.ones(10))
    keras_vit.load_weights(again, tmp_path / "model.weights.h5")
    assert_same(again, model)
    with pytest.raises(ValueError, match="go into one that is quantized alike"):
        keras_vit.load_weights(tiny(), tmp_path / "model.weights.h5")


@pytest.mark.one_backend
def test_from_pretrained_resizes(tmp_path):
    model = quantized()
    model.save(tmp_path / "model.keras")
    larger = keras_vit.from_pretrained(tmp_path / "model.keras", image_size=(48, 40))
    assert larger.get_layer("position_embedding").grid.shape == (6, 5, 48)
    kernel = "block_1/mlp/dense_2/kernel"
    np.testing.assert_array_equal(weights(larger)[kernel], weights(model)[kernel])


def test_a_model_that_is_not_quantized_says_nothing_of_it():
    assert "quantization" not in tiny().get_config()


@pytest.mark.one_backend
def test_a_new_head_is_refused(tmp_path):
    quantized().save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="is quantized, and a new head must be trained"):
        keras_vit.from_pretrained(tmp_path / "model.keras", classes=3)


@pytest.mark.one_backend
def test_other_layouts_are_refused(tmp_path):
    model = quantized()
    for layout, name in [("timm", "a.safetensors"), ("google", "a.npz")]:
        with pytest.raises(ValueError, match="quantized"):
            keras_vit.save_weights(model, tmp_path / name, layout=layout)
    with pytest.raises(ValueError, match="quantized"):
        keras_vit.save_weights(model, tmp_path / "folder", layout="huggingface")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
def test_a_config_of_layers_that_are_not_there_is_refused():
    config = quantized().get_config()
    config["quantization"][0]["layers"].append("block_7/mlp/dense_1")
    with pytest.raises(ValueError, match="block_7/mlp/dense_1 are quantized"):
        keras_vit.VisionTransformer.from_config(config)


@pytest.mark.one_backend
def test_inspect_tells_of_it(tmp_path):
    quantized().save(tmp_path / "model.keras")
    text = str(inspect(tmp_path / "model.keras"))
    assert "float32, int8" in text or "int8, float32" in text
    assert "QuantizationConfig" not in text
