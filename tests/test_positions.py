"""Positions of appendix D.4 of the ViT paper: by axes, in raster order, in each layer."""

import by_hand
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
from keras_vit import analysis, layers, pretraining, training
from keras_vit.conversion.inspect import inspect
from keras_vit.distribution.layouts import tensor_parallel_axes
from keras_vit.models import encoding
from keras_vit.resize import resize_grid
from keras_vit.weight_paths import named_weights, public_path

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


# At the beginning of each layer.

PLACES = ("each_layer", "each_layer_shared")
KINDS = ("learned", "learned2d", "sincos")


def positions_of_block(model, number):
    """(tokens, hidden_dim), token by token: one of the class token, none of the register."""
    shared = {layer.name: layer for layer in model.layers}.get("layer_positions")
    layer = shared or model.get_layer(f"block_{number}").layer_positions
    rows, columns = 2, 3
    is_table = layer.position == "learned"
    grid = array(layer.grid) if is_table else expected_positions(layer, rows, columns, 48)
    own = array(layer.prefix) if layer.num_prefix else np.zeros((1, 48))
    return np.concatenate([own, np.zeros((1, 48)), grid.reshape(-1, 48)])


@pytest.mark.parametrize("position", KINDS)
@pytest.mark.parametrize("position_at", PLACES)
def test_each_layer_adds_positions_to_its_inputs(position, position_at):
    model = tiny(
        position=position, position_at=position_at, pooling=None, classes=0, **SIZE
    )
    (tokens,) = by_hand.outputs_of(model, "position_embedding")(images(16, 24))
    (patches,) = by_hand.outputs_of(model, "patch_embedding")(images(16, 24))
    assert_close(tokens[:, 2:], patches.reshape(2, 6, 48))  # nothing is added at the stem
    found = model.features(images(16, 24), layers="all")
    for number in range(2):
        block = model.get_layer(f"block_{number}")
        tokens = by_hand.run_block(block, tokens + positions_of_block(model, number))
        assert_close(found[f"block_{number}"], tokens)
    through = encoding.encode(model, **encoding.embedding(model)(images(16, 24)))
    assert_close(through, model(images(16, 24)))


@pytest.mark.parametrize("position", KINDS)
@pytest.mark.parametrize("position_at", PLACES)
def test_the_last_block_of_the_class_token_alone_is_the_same(position, position_at):
    options = {**SIZE, "position": position, "position_at": position_at, "distilled": True}
    model, full = tiny(**options), tiny(**options, full_last_block=True)
    full.set_weights(model.get_weights())
    assert_close(model(images(16, 24)), full(images(16, 24)))


@pytest.mark.parametrize("position", ["learned", "learned2d"])
def test_layers_share_one_set_of_weights_or_have_their_own(position):
    shared = tiny(position=position, position_at="each_layer_shared", **SIZE)
    own = tiny(position=position, position_at="each_layer", **SIZE)
    names = [v.name for v in shared.get_layer("layer_positions").weights]
    values, others = weights(shared), weights(own)
    assert {p for p in values if "positions" in p} == {
        f"layer_positions/{n}" for n in names
    }
    assert {p for p in others if "positions" in p} == {
        f"block_{i}/layer_positions/{n}" for i in range(2) for n in names
    }
    for path, weight in named_weights(own):
        weight.assign(values[path.removeprefix(path.partition("/layer_positions")[0] + "/")
                             if "/layer_positions/" in path else path])  # fmt: skip
    assert_close(own(images(16, 24)), shared(images(16, 24)))
    # The gradient of what is shared is the sum of those of its uses.
    before, start = weights(own), weights(shared)
    for model in (own, shared):
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        model.train_on_batch(images(16, 24), np.array([0, 1]))
    after = weights(own)
    for name in names:
        paths = [f"block_{i}/layer_positions/{name}" for i in range(2)]
        steps = sum(after[path] - before[path] for path in paths)
        path = f"layer_positions/{name}"
        assert_close(weights(shared)[path] - start[path], steps, 1e-4)


@pytest.mark.parametrize("position", KINDS)
@pytest.mark.parametrize("position_at", PLACES)
@pytest.mark.parametrize("way", ["from_pretrained", "load_weights", "keras", "keras_vit"])
def test_another_image_size_resizes_the_positions_of_layers(
    position, position_at, way, tmp_path
):
    options = {**SIZE, "position": position, "position_at": position_at}
    model = tiny(**options)
    file = tmp_path / ("model.keras" if way != "keras" else "model.weights.h5")
    model.save_weights(file) if way == "keras" else model.save(file)
    other = tiny(**{**options, "image_size": (40, 16)})
    learned = [p for p in weights(model) if p.endswith(("/grid", "/rows", "/columns"))]
    if way == "from_pretrained":
        other = keras_vit.from_pretrained(model, image_size=(40, 16))
    elif way == "keras":
        other.load_weights(file)
    else:
        if way == "keras_vit":
            file = tmp_path / "model.weights.h5"
            model.save_weights(file)
        report = keras_vit.load_weights(other, file)
        assert sorted(report.resized) == sorted(learned)
    before, after = weights(model), weights(other)
    for path in learned:
        old, found = before.pop(path), after.pop(path)
        new = {"grid": (5, 2), "rows": (5,), "columns": (2,)}[path.rpartition("/")[2]]
        factors = [n / o for n, o in zip(new, old.shape, strict=False)]
        expected = zoom(old, (*factors, 1), order=1)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert_same_weights(after, before)
    assert other(images(40, 16)).shape == (2, 10)


@pytest.mark.parametrize("position", KINDS)
@pytest.mark.parametrize("position_at", PLACES)
def test_positions_of_layers_are_saved(position, position_at, tmp_path):
    model = tiny(position=position, position_at=position_at, **SIZE)
    outputs = array(model(images(16, 24)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(weights(loaded), weights(model))
    assert_close(loaded(images(16, 24)), outputs, 1e-7)
    inspection = inspect(tmp_path / "model.keras")
    assert inspection.architecture["position_at"] == position_at
    assert inspection.grid == (None if position == "sincos" else (2, 3))
    model.save_weights(tmp_path / "model.weights.h5")
    if position != "sincos":
        guess = inspect(tmp_path / "model.weights.h5").architecture
        assert (guess.get("position", "learned"), guess["position_at"]) == (
            position,
            position_at,
        )


@pytest.mark.parametrize("position_at", PLACES)
@pytest.mark.parametrize("rematerialize", [False, True])
def test_positions_of_layers_are_trained_and_not_decayed(position_at, rematerialize):
    options = {"position_at": position_at, "rematerialize": rematerialize, **SIZE}
    model = tiny(**options, dropout_rate=0.1)
    changed, optimizer = trained(model)
    assert changed == set(weights(model))
    found = [w for w in model.weights if "layer_positions" in w.path]
    assert len(found) == (4 if position_at == "each_layer" else 2)
    assert not any(optimizer._use_weight_decay(weight) for weight in found)


def test_rematerialized_gradients_of_shared_positions_are_the_same():
    plain = tiny(position_at="each_layer_shared", **SIZE)
    again = tiny(position_at="each_layer_shared", rematerialize=True, **SIZE)
    again.set_weights(plain.get_weights())
    start = weights(plain)
    for model in (plain, again):
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        model.train_on_batch(images(16, 24), np.array([0, 1]))
    for path in ("layer_positions/grid", "layer_positions/prefix"):
        steps = [weights(model)[path] - start[path] for model in (again, plain)]
        assert_close(*steps, 1e-4)


@pytest.mark.parametrize("position_at", PLACES)
def test_half_precision_is_near_float32(position_at):
    options = {"position_at": position_at, "position": "learned2d"}
    model, half = tiny(**options), tiny(**options, dtype="mixed_bfloat16")
    half.set_weights(model.get_weights())
    outputs, expected = array(half(images())), array(model(images()))
    assert np.abs(outputs - expected).max() < 0.05


@pytest.mark.parametrize("position_at", PLACES)
def test_pretraining_and_analysis_pass_positions_of_layers(position_at):
    fields = {"position_at": position_at, "position": "learned2d", **SIZE}
    model = tiny(**fields, pooling="token")
    maps = analysis.attention_maps(model, images(16, 24))
    tokens = model.features(images(16, 24), layers=0)["block_0"]
    tokens = np.float64(array(tokens)) + positions_of_block(model, 1)
    assert_close(maps[1], by_hand.attention_weights(model.get_layer("block_1"), tokens))
    patches = pretraining.MaskedPatchPrediction(tiny(**fields, classes=0))
    patches.compile(keras.optimizers.SGD(1.0))
    before = weights(patches.encoder)
    patches.fit(images(16, 24), verbose=0)
    after = weights(patches.encoder)
    learned = [path for path in after if "layer_positions" in path]
    assert learned
    assert all((after[path] != before[path]).any() for path in learned)


def test_learning_rates_of_positions_are_those_of_their_layer():
    own = training.learning_rate_multipliers(tiny(position_at="each_layer"), 0.5)
    shared = training.learning_rate_multipliers(tiny(position_at="each_layer_shared"), 0.5)
    by_path = {public_path(path): rate for path, rate in {**own, **shared}.items()}
    assert by_path["block_0/layer_positions/grid"] == 0.25
    assert by_path["block_1/layer_positions/prefix"] == 0.5
    assert by_path["layer_positions/grid"] == 0.125


@pytest.mark.one_backend
def test_similarity_of_positions_of_layers():
    own = tiny(position_at="each_layer")
    shared = tiny(position_at="each_layer_shared")
    grid = array(own.get_layer("block_1").layer_positions.grid)
    shared.get_layer("layer_positions").grid.assign(grid)
    found = analysis.position_similarity(shared)
    np.testing.assert_array_equal(analysis.position_similarity(own, block=-1), found)
    assert analysis.position_similarity(own, 5, block=0).shape == (5, 5, 5, 5)
    with pytest.raises(ValueError, match="block=None, a model.*'each_layer'.*block=0"):
        analysis.position_similarity(own)
    with pytest.raises(ValueError, match="block=1, a model.*each_layer_shared.*Leave it"):
        analysis.position_similarity(shared, block=1)


@pytest.mark.one_backend
def test_positions_of_layers_have_a_layout_on_several_devices():
    for layer in ("layer_positions", "vit/block_11/layer_positions"):
        assert tensor_parallel_axes(f"{layer}/grid", (14, 14, 768)) == (None,) * 3
        assert tensor_parallel_axes(f"{layer}/columns", (99, 768)) == (None,) * 2


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"position": "none"}, "position='none', which adds none"),
        ({"position": "relative"}, "position='relative', which adds none"),
        ({"merged_tokens": 1}, "cannot be merged.*position_at='each_layer'"),
        ({"input_shape": (None, 32, 3)}, "must know the number of patches"),
        ({"position_at": "everywhere"}, "'stem', 'each_layer', 'each_layer_shared'"),
    ],
)
def test_what_does_not_go_with_positions_of_layers_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**{"position_at": "each_layer", **fields})


@pytest.mark.one_backend
def test_sequences_of_other_grids_are_refused():
    own = {"position": "learned", "grid_size": (3, 4)}
    block = layers.EncoderBlock(2, 16, num_prefix=1, own_positions=own)
    with pytest.raises(ValueError, match=r"3 x 4 patches.*13 tokens. Received: 12"):
        block(np.zeros((1, 12, 8)))
    with pytest.raises(ValueError, match="position='none'"):
        layers.LayerPositions("none")
    with pytest.raises(ValueError, match="num_prefix=2, num_tokens=1"):
        layers.LayerPositions(num_prefix=2, num_tokens=1)


@pytest.mark.one_backend
@pytest.mark.parametrize("layout", ["google", "timm", "huggingface", "meta"])
@pytest.mark.parametrize("position_at", PLACES)
def test_other_layouts_have_no_positions_of_layers(layout, position_at, tmp_path):
    path = {"google": "a.npz", "huggingface": "a"}.get(layout, "a.safetensors")
    model = tiny(position_at=position_at)
    with pytest.raises(ValueError, match=f"position_at='{position_at}'.*by `model.save`"):
        keras_vit.save_weights(model, tmp_path / path, layout=layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerPositions("learned2d", grid_size=(2, 3), num_tokens=2, num_prefix=1),
        layers.EncoderBlock(
            2, 16, own_positions={"position": "learned", "grid_size": (2, 3)}
        ),
    ],
)
def test_config_round_trip(layer):
    revived = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert revived.get_config() == layer.get_config()


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
