"""Keras' legacy HDF5 files: written where they can be read, read and resized."""

import os

import keras
import numpy as np
import pytest
from helpers import (
    array,
    assert_close,
    assert_same_weights,
    images,
    randomize,
    tiny,
    weights,
)

import keras_vit
from keras_vit.resize import resize_grid


def small(**overrides):
    fields = {"hidden_dim": 8, "num_heads": 2, "mlp_dim": 16, "classes": 3}
    return tiny(**fields | overrides)


def resnet():
    return randomize(keras_vit.BiTResNet(32, (1,), 0.5, classes=3))


def written(model, path):
    """As before `model.save` refused it, and as `keras.saving.save_model` still does."""
    keras.saving.save_model(model, path)
    return path


@pytest.mark.parametrize("make", [small, resnet])
def test_a_model_that_keras_would_not_find_again_is_not_written(make, tmp_path):
    path = tmp_path / "v.h5"
    path.write_bytes(b"mine")
    for name in ("v.h5", "v.hdf5", "v.weights.h5"):
        with pytest.raises(ValueError, match=r"Save the model as \.keras, or its weights"):
            make().save(tmp_path / name)
    assert os.listdir(tmp_path) == ["v.h5"]
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("make", [small, resnet])
def test_models_around_ours_come_back(make, tmp_path):
    inner = make()
    inner.get_layer("head").trainable = False
    inputs = keras.Input((32, 32, 3))
    own = keras.layers.Dense(2, name="own")
    for model in (
        keras.Sequential([keras.Input((32, 32, 3)), inner, own]),
        keras.Model(inputs, own(keras.layers.Average()([inner(inputs), make()(inputs)]))),
    ):
        model.save(tmp_path / "model.h5")
        again = keras.models.load_model(tmp_path / "model.h5")
        assert_close(again(images()), array(model(images())), 1e-6)
        assert len(again.trainable_weights) == len(model.trainable_weights)


@pytest.mark.parametrize("make", [small, resnet])
def test_files_are_read(make, tmp_path):
    model = make()
    model.compile("adam", "mse")
    path = written(model, str(tmp_path / "v.h5"))
    assert_same_weights(weights(keras_vit.from_pretrained(path)), weights(model))
    again = make()
    again.set_weights([0 * value for value in again.get_weights()])
    report = keras_vit.load_weights(again, path)
    assert len(report.loaded) == len(model.weights)
    assert_same_weights(weights(again), weights(model))


def test_files_are_resized(tmp_path):
    model = small()
    path = written(model, str(tmp_path / "v.h5"))
    grid = array(model.get_layer("position_embedding").grid)
    expected = resize_grid(grid, (6, 6), "linear")
    large = small(image_size=48, classes=5)
    report = keras_vit.load_weights(large, path)
    assert report.resized == {"position_embedding/grid": ((4, 4, 8), (6, 6, 8))}
    assert set(report.fresh) == {"head/bias", "head/kernel"}
    assert_close(large.get_layer("position_embedding").grid, expected)
    other = keras_vit.from_pretrained(path, input_shape=(48, 48, 3))
    assert_close(other.get_layer("position_embedding").grid, expected)


def test_keras_own_way_refuses_another_grid_and_changes_nothing(tmp_path):
    model = small()
    path = written(model, str(tmp_path / "v.h5"))
    again = small()
    again.set_weights([0 * value for value in again.get_weights()])
    again.load_weights(path)
    assert_same_weights(weights(again), weights(model))
    large = small(image_size=48)
    before = weights(large)
    with pytest.raises(ValueError, match=r"is unchanged: .*keras_vit\.load_weights\(model"):
        large.load_weights(path)
    assert_same_weights(weights(large), before)


@pytest.mark.one_backend
def test_damaged_files_are_errors(tmp_path):
    import h5py

    model = small()
    path = written(model, str(tmp_path / "v.h5"))
    content = (tmp_path / "v.h5").read_bytes()
    with h5py.File(path, "a") as file:
        group = file["model_weights/head/"]
        names = []
        group.visititems(lambda name, item: names.append(name))
        kernel = next(group[name] for name in names if name.endswith("kernel"))
        kernel[0, 0] = np.nan
    before = weights(again := small())
    with pytest.raises(ValueError, match="holds NaN"):
        keras_vit.load_weights(again, path)
    with h5py.File(path, "a") as file:
        del file.attrs["model_config"]
        file.attrs["layer_names"] = ["head"]
    with pytest.raises(ValueError, match="`model.load_weights` reads them"):
        keras_vit.from_pretrained(path)
    (tmp_path / "v.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="v.h5"):
        keras_vit.load_weights(again, path)
    assert_same_weights(weights(again), before)
