"""Positions of appendix D.4 of the ViT paper: by axes, fixed in raster order."""

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
from scipy.ndimage import zoom

import keras_vit
from keras_vit import layers
from keras_vit.conversion.inspect import inspect
from keras_vit.resize import resize_grid
from keras_vit.weight_paths import named_weights

SIZE = {"image_size": (16, 24), "num_registers": 1}  # 2 × 3 patches


def by_coordinates(columns, rows):
    """(rows, columns, hidden_dim): X of the column, then Y of the row, patch by patch."""
    grid = np.zeros((len(rows), len(columns), 2 * rows.shape[1]), "float32")
    for r, c in np.ndindex(*grid.shape[:2]):
        grid[r, c] = np.concatenate([columns[c], rows[r]])
    return grid


def raster_sines(rows, columns, width):
    """Vaswani et al., section 3.5, number by number."""
    grid = np.zeros((rows * columns, width), "float32")
    for place, channel in np.ndindex(*grid.shape):
        angle = place / 10_000 ** (2 * (channel // 2) / width)
        grid[place, channel] = np.cos(angle) if channel % 2 else np.sin(angle)
    return grid.reshape(rows, columns, width)


def expected_positions(layer, rows, columns, width):
    if layer.position == "sincos":
        return raster_sines(rows, columns, width)
    parts = zip((array(layer.columns), array(layer.rows)), (columns, rows), strict=True)
    return by_coordinates(*(zoom(a, (n / len(a), 1), order=1) for a, n in parts))


@pytest.mark.parametrize("position", ["learned2d", "sincos"])
@pytest.mark.parametrize("grid", [(2, 3), (5, 4)])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_positions_are_their_formula(position, grid, dtype):
    own = 1 if position == "learned2d" else 0
    options = {"grid_size": (2, 3), "num_prefix": own, "dtype": dtype}
    layer = layers.PositionEmbedding(position, **options)
    layer.build((None, *grid, 8), (None, 2, 8))
    randomize(layer)
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(2, *grid, 8)).astype("float32")
    prefix = rng.normal(size=(2, 2, 8)).astype("float32")
    found = keras.ops.cast(layer(patches, prefix), "float32")
    expected = patches + expected_positions(layer, *grid, 8)
    if own:
        prefix[:, 0] += array(layer.prefix)
    expected = np.concatenate([prefix, expected.reshape(2, -1, 8)], axis=1)
    assert_close(found, expected, 1e-5 if dtype == "float32" else 1e-2)


def test_a_model_with_a_table_of_all_patches_computes_the_same():
    """2-D positions are 1-D ones whose table is by columns and rows."""
    model = tiny(position="learned2d", **SIZE)
    other = tiny(**SIZE)
    values = weights(model)
    rows, columns = (values.pop(f"position_embedding/{n}") for n in ("rows", "columns"))
    values["position_embedding/grid"] = by_coordinates(columns, rows)
    for path, weight in named_weights(other):
        weight.assign(values[path])
    assert_close(model(images(16, 24)), other(images(16, 24)))


@pytest.mark.parametrize("way", ["from_pretrained", "load_weights", "keras", "keras_vit"])
@pytest.mark.parametrize("interpolation", ["linear", "bicubic"])
def test_another_image_size_resizes_the_axes(way, interpolation, tmp_path):
    options = {"position": "learned2d", "position_interpolation": interpolation}
    model = tiny(**SIZE, **options)
    file = tmp_path / ("model.keras" if way != "keras" else "model.weights.h5")
    model.save_weights(file) if way == "keras" else model.save(file)
    if way == "from_pretrained":
        other = keras_vit.from_pretrained(model, image_size=(40, 16))
    else:
        other = tiny(**{**SIZE, **options, "image_size": (40, 16)})
        if way == "keras":
            other.load_weights(file)
        elif way == "load_weights":
            report = keras_vit.load_weights(other, file)
            assert report.resized == {
                "position_embedding/rows": ((2, 24), (5, 24)),
                "position_embedding/columns": ((3, 24), (2, 24)),
            }
        else:
            model.save_weights(tmp_path / "model.weights.h5")
            report = keras_vit.load_weights(other, tmp_path / "model.weights.h5")
            assert len(report.resized) == 2
    before, after = weights(model), weights(other)
    for name, number in (("rows", 5), ("columns", 2)):
        path = f"position_embedding/{name}"
        old, found = before.pop(path), after.pop(path)
        if interpolation == "linear":
            expected = zoom(old, (number / len(old), 1), order=1)
        else:  # as a row of a grid, which the parity tests compare with timm's
            grid = resize_grid(old[None], (1, number), "bicubic")
            expected = grid[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert_same_weights(after, before)
    assert other(images(40, 16)).shape == (2, 10)


@pytest.mark.parametrize("position", ["learned2d", "sincos"])
def test_saved_models_and_clones_are_the_same(position, tmp_path):
    model = tiny(position=position, **SIZE)
    outputs = array(model(images(16, 24)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(weights(loaded), weights(model))
    assert_close(loaded(images(16, 24)), outputs, 1e-7)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_close(clone(images(16, 24)), outputs, 1e-7)
    inspection = inspect(tmp_path / "model.keras")
    assert inspection.architecture["position"] == position
    assert inspection.grid == ((2, 3) if position == "learned2d" else None)


def trained(model):
    """Paths of the weights that a step of training changes, and its optimizer."""
    before = weights(model)
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    keras_vit.training.exclude_from_weight_decay(optimizer, model)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    height, width = model.input_shape[1:3]
    model.train_on_batch(images(height, width, batch=4), np.array([0, 1, 2, 0]))
    return {p for p, v in weights(model).items() if (v != before[p]).any()}, optimizer


def test_positions_of_axes_are_trained_and_not_decayed():
    model = tiny(position="learned2d", **SIZE)
    changed, optimizer = trained(model)
    assert changed == set(weights(model))
    layer = model.get_layer("position_embedding")
    assert len(layer.weights) == 3
    assert not any(optimizer._use_weight_decay(weight) for weight in layer.weights)


@pytest.mark.parametrize("position", ["learned2d", "sincos"])
@pytest.mark.parametrize("layout", ["google", "timm", "huggingface"])
def test_other_layouts_store_the_vectors_of_all_patches(position, layout, tmp_path):
    model = tiny(position=position, image_size=16)
    path = {"google": "a.npz", "timm": "a.safetensors", "huggingface": "a"}[layout]
    keras_vit.save_weights(model, tmp_path / path, layout=layout)
    told = {"num_heads": 4, "image_size": 16}
    again = keras_vit.from_pretrained(tmp_path / path, **told)
    assert again.arguments["position"] == "learned"
    assert_close(again(images(16, 16)), model(images(16, 16)))
