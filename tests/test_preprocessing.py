"""Preprocessing and names of predictions."""

import json

import keras
import numpy as np
import pytest
from helpers import array, tiny

import keras_vit


@pytest.fixture
def class_index(tmp_path):
    """A file like Keras' own, of a thousand names."""
    names = {str(i): [f"n{i:08d}", f"class_{i}"] for i in range(1000)}
    path = tmp_path / "imagenet_class_index.json"
    path.write_text(json.dumps(names))
    return path


def test_preprocess_input_brings_pixels_to_minus_one_and_one():
    pixels = np.array([0, 127.5, 255], "float32").reshape(1, 3, 1, 1) * np.ones(
        (1, 1, 2, 3)
    )
    expected = np.array([-1, 0, 1]).reshape(1, 3, 1, 1) * np.ones((1, 1, 2, 3))
    for images in (pixels, pixels.astype("float32"), keras.ops.convert_to_tensor(pixels)):
        output = keras_vit.preprocess_input(images)
        np.testing.assert_allclose(array(output), expected, atol=1e-6)
    integers = keras_vit.preprocess_input(np.full((2, 4, 4, 3), 255, "uint8"))
    np.testing.assert_array_equal(array(integers), 1)
    assert pixels.max() == 255  # the images themselves are left as they are
    with_preset = keras_vit.preprocess_input(pixels, "ViTB16.imagenet21k")
    np.testing.assert_allclose(array(with_preset), expected, atol=1e-6)


def test_a_model_that_preprocesses_takes_pixels_as_they_are():
    pixels = np.full((1, 32, 32, 3), 255, "uint8")
    assert keras_vit.preprocess_input(pixels, tiny(include_preprocessing=True)) is pixels
    assert array(keras_vit.preprocess_input(pixels, tiny())).max() == 1


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="Unknown preset 'B16'. Expected .*list_presets"):
        keras_vit.preprocess_input(np.zeros((1, 8, 8, 3)), "B16")


def test_decode_predictions_from_a_local_file(class_index):
    preds = np.zeros((2, 1000), "float32")
    preds[0, [3, 7, 5]] = 0.5, 0.3, 0.2
    preds[1, 999] = 1
    decoded = keras_vit.decode_predictions(preds, top=3, class_index=class_index)
    assert decoded[0] == [
        ("n00000003", "class_3", np.float32(0.5)),
        ("n00000007", "class_7", np.float32(0.3)),
        ("n00000005", "class_5", np.float32(0.2)),
    ]
    assert decoded[1][0][:2] == ("n00000999", "class_999")
    tensors = keras.ops.convert_to_tensor(preds)
    assert keras_vit.decode_predictions(tensors, top=3, class_index=class_index) == decoded


def test_decode_predictions_refuses(class_index, tmp_path):
    with pytest.raises(FileNotFoundError):
        keras_vit.decode_predictions(
            np.zeros((1, 1000)), class_index=tmp_path / "none.json"
        )
    class_index.write_text("[]")
    with pytest.raises(ValueError, match="is not Keras' imagenet_class_index.json"):
        keras_vit.decode_predictions(np.zeros((1, 1000)), class_index=class_index)


def test_decode_predictions_without_network_says_what_to_do(monkeypatch):
    def fail(*arguments, **keywords):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications.imagenet_utils, "decode_predictions", fail)
    with pytest.raises(ConnectionError, match=r"~/.keras/models/.*`class_index`"):
        keras_vit.decode_predictions(np.zeros((1, 1000)))


@pytest.mark.one_backend
def test_names_offline(class_index, tmp_path, monkeypatch):
    """Names that Keras has downloaded before are read without a request."""

    def no_network(*arguments, **options):
        pytest.fail("the network is asked")

    monkeypatch.setattr(keras.utils, "get_file", no_network)
    monkeypatch.setattr(keras.applications.imagenet_utils, "decode_predictions", no_network)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_VIT_OFFLINE", "1")
    preds = np.arange(1000.0)[None]
    with pytest.raises(ConnectionError, match=r"KERAS_VIT_OFFLINE forbids.*`class_index`"):
        keras_vit.decode_predictions(preds, top=1)
    (tmp_path / "models").mkdir()
    class_index.rename(tmp_path / "models" / class_index.name)
    assert keras_vit.decode_predictions(preds, top=1)[0][0][1] == "class_999"
