"""Relative position bias: BEiT's formula, its numbers, and tables of other sizes."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import (
    REFERENCE,
    array,
    assert_close,
    assert_same_weights,
    images,
    randomize,
    tiny,
    weights,
)
from safetensors.numpy import load_file
from scipy.interpolate import RegularGridInterpolator

import keras_vit
from keras_vit.conversion.inspect import inspect
from keras_vit.layers import EncoderBlock, RelativePositionBias, SelfAttention
from keras_vit.resize import resize_offsets

GRID = (3, 4)


def bias_by_formula(grid, prefix, rows, columns, num_prefix):
    """(heads, tokens, tokens), one pair of tokens after the other."""
    places = [None] * num_prefix + [(r, c) for r in range(rows) for c in range(columns)]
    bias = np.zeros((grid.shape[-1], len(places), len(places)), "float32")
    for q, query in enumerate(places):
        for k, key in enumerate(places):
            if query is None or key is None:
                kind = 2 if query is key else 0 if query is None else 1
                bias[:, q, k] = prefix[kind]
            else:
                down, right = query[0] - key[0], query[1] - key[1]
                bias[:, q, k] = grid[down + rows - 1, right + columns - 1]
    return bias


def random_layer(num_prefix, dtype="float32"):
    layer = RelativePositionBias(GRID, 2, num_prefix=num_prefix, dtype=dtype)
    layer.build((None, None, 8))
    return randomize(layer)


@pytest.mark.parametrize("num_prefix", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_bias_is_its_formula(num_prefix, dtype):
    layer = random_layer(num_prefix, dtype)
    tokens = np.zeros((2, num_prefix + 12, 8), "float32")
    bias = layer(tokens)
    assert keras.backend.standardize_dtype(bias.dtype) == "float32"
    prefix = array(layer.prefix) if num_prefix else None
    expected = bias_by_formula(array(layer.grid), prefix, *GRID, num_prefix)
    np.testing.assert_array_equal(array(bias), expected)
    for first in (1, num_prefix, num_prefix + 5):
        part = layer(tokens[:, :first], context=tokens)
        np.testing.assert_array_equal(array(part), expected[:, :first])
        spec = layer(keras.KerasTensor((None, first, 8)), keras.KerasTensor(tokens.shape))
        assert spec.shape == part.shape


@pytest.mark.one_backend
def test_sequences_of_other_grids_are_refused():
    with pytest.raises(ValueError, match=r"3 x 4 patches.*13 tokens.*Received: 12"):
        random_layer(1)(np.zeros((1, 12, 8)))


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "layer",
    [
        RelativePositionBias(GRID, 2, num_prefix=1, dtype="mixed_bfloat16"),
        SelfAttention(2, relative_grid=GRID, num_prefix=1),
        EncoderBlock(2, 16, relative_grid=GRID, num_prefix=1),
    ],
)
def test_config_round_trip(layer):
    revived = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert revived.get_config() == layer.get_config()


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_attention_adds_the_bias_to_the_scores(dtype):
    layer = SelfAttention(2, relative_grid=GRID, num_prefix=1, dtype=dtype)
    layer.build((None, None, 8))
    randomize(layer)
    tokens = np.random.default_rng(0).normal(size=(2, 13, 8)).astype("float32")
    qkv = np.einsum("btd,dshk->sbhtk", tokens, array(layer.qkv.kernel))
    query, key, value = qkv + array(layer.qkv.bias)[:, None, :, None]
    bias = layer.relative_position
    scores = query @ np.swapaxes(key, -1, -2) / 2
    scores = scores + bias_by_formula(array(bias.grid), array(bias.prefix), *GRID, 1)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    attended = shares / shares.sum(-1, keepdims=True) @ value
    projected = np.einsum("bhtk,hkd->btd", attended, array(layer.projection.kernel))
    expected = projected + array(layer.projection.bias)
    tolerance = 1e-5 if dtype == "float32" else 0.03
    assert_close(keras.ops.cast(layer(tokens), "float32"), expected, tolerance)
    part = layer(tokens[:, :1], context=tokens)
    assert_close(keras.ops.cast(part, "float32"), expected[:, :1], tolerance)


# Tables of other grids.


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("old", "new"), [((3, 4), (6, 4)), ((4, 4), (2, 9)), ((1, 5), (2, 7))]
)
def test_tables_are_resized_as_in_beits_fine_tuning(old, new):
    """Linear between old offsets in geometric progression, by SciPy."""

    def spread(source, target):
        low, high = 1.01, 1.5
        for _ in range(19):  # until they are 1e-6 apart
            ratio = (low + high) / 2
            is_beyond = sum(ratio**i for i in range(source)) > target
            low, high = (low, ratio) if is_beyond else (ratio, high)
        out = [sum(ratio**i for i in range(n)) for n in range(1, source + 1)]
        return np.array([-x for x in reversed(out)] + [0] + out)

    table = np.random.default_rng(0).normal(size=(2 * old[0] - 1, 2 * old[1] - 1, 3))
    axes = [
        spread(*pair) for pair in zip(np.array(old) - 1, np.array(new) - 1, strict=True)
    ]
    wanted = [
        np.clip(np.arange(1 - n, n), axis[0], axis[-1])
        for n, axis in zip(new, axes, strict=True)
    ]
    if old[0] == 1:  # the same for every row
        table, axes[0] = np.repeat(table, 2, 0), np.array([0, 1])
    expected = RegularGridInterpolator(axes, table)(
        np.stack(np.meshgrid(*wanted, indexing="ij"), -1)
    )
    resized = resize_offsets(table[:1] if old[0] == 1 else table, new)
    np.testing.assert_allclose(resized, expected, atol=1e-6)


@pytest.mark.one_backend
def test_neighbours_keep_what_they_have_at_another_size():
    table = np.random.default_rng(0).normal(size=(27, 27, 2)).astype("float32")
    larger = resize_offsets(table, (24, 24))
    assert larger.shape == (47, 47, 2)
    np.testing.assert_allclose(larger[22:25, 22:25], table[12:15, 12:15], rtol=1e-6)
    assert resize_offsets(table, (14, 14)) is table


# Models.


def test_the_last_block_of_the_class_token_alone_is_the_same():
    options = {"image_size": (16, 24), "position": "relative"}
    model, full = tiny(**options), tiny(**options, full_last_block=True)
    full.set_weights(model.get_weights())
    batch = images(16, 24)
    assert_close(model(batch), full(batch))
    features = model.features(batch)
    assert_close(features["pooled"], features["class_token"])


def test_saved_models_and_clones_are_the_same(tmp_path):
    model = tiny(image_size=(16, 24), position="relative")
    outputs = array(model(images(16, 24)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(weights(loaded), weights(model))
    assert_close(loaded(images(16, 24)), outputs, 1e-7)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_close(clone(images(16, 24)), outputs, 1e-7)


def resized_weights(model, grid):
    return {
        path: resize_offsets(value, grid) if path.endswith("position/grid") else value
        for path, value in weights(model).items()
    }


@pytest.mark.parametrize("way", ["from_pretrained", "load_weights", "keras", "keras_vit"])
def test_another_image_size_resizes_the_tables(way, tmp_path):
    model = tiny(image_size=(16, 24), position="relative")
    file = tmp_path / ("model.keras" if way != "keras" else "model.weights.h5")
    model.save_weights(file) if way == "keras" else model.save(file)
    if way == "from_pretrained":
        other = keras_vit.from_pretrained(model, image_size=(40, 16))
    else:
        other = tiny(image_size=(40, 16), position="relative")
        if way == "keras":
            other.load_weights(file)
        elif way == "load_weights":
            report = keras_vit.load_weights(other, file)
            path = "block_1/attention/relative_position/grid"
            assert report.resized[path] == ((3, 5, 4), (9, 3, 4))
        else:
            model.save_weights(tmp_path / "model.weights.h5")
            report = keras_vit.load_weights(other, tmp_path / "model.weights.h5")
            assert len(report.resized) == 2
    assert_same_weights(weights(other), resized_weights(model, (5, 2)))
    assert other(images(40, 16)).shape == (2, 10)


def test_every_weight_is_trained_and_tables_are_not_decayed():
    model = tiny(image_size=16, position="relative", rematerialize=True, pooling="gap",
                 class_token=True)  # fmt: skip
    before = weights(model)
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    keras_vit.training.exclude_from_weight_decay(optimizer, model)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.train_on_batch(images(16, 16, batch=4), np.array([0, 1, 2, 0]))
    assert not [p for p, v in weights(model).items() if (v == before[p]).all()]
    tables = [w for w in model.weights if "/relative_position/" in w.path]
    assert len(tables) == 4
    assert not any(optimizer._use_weight_decay(table) for table in tables)


def test_half_precision_is_near_float32():
    model = tiny(position="relative")
    half = tiny(position="relative", dtype="mixed_bfloat16")
    half.set_weights(model.get_weights())
    outputs, expected = array(half(images())), array(model(images()))
    assert np.abs(outputs - expected).max() < 0.05


@pytest.mark.one_backend
def test_what_does_not_go_with_relative_positions_is_refused():
    with pytest.raises(ValueError, match="cannot be merged.*position='relative'"):
        tiny(position="relative", merged_tokens=1)
    with pytest.raises(ValueError, match=r"input_shape=\(None, 32, 3\)"):
        tiny(position="relative", input_shape=(None, 32, 3))
    with pytest.raises(ValueError, match="num_prefix_positions=1"):
        tiny(position="relative", num_prefix_positions=1)


# Layouts.


@pytest.mark.one_backend
def test_a_bare_file_of_timm_tells_its_positions(tmp_path):
    bare = tmp_path / "model.safetensors"
    shutil.copy(REFERENCE / "timm_beit" / "model.safetensors", bare)
    named = keras_vit.from_pretrained(REFERENCE / "timm_beit")
    with pytest.raises(
        ValueError, match="77 offsets, whose .rows, columns. .*position_grid"
    ):
        keras_vit.from_pretrained(bare, num_heads=4)
    for told in ({"position_grid": (4, 6)}, {"input_shape": (32, 48, 3)}):
        model = keras_vit.from_pretrained(bare, num_heads=4, **told)
        assert_same_weights(weights(model), weights(named))
    keras_vit.load_weights(model, bare)  # whose grid is known
    inspection = inspect(REFERENCE / "timm_beit")
    assert inspection.architecture["position"] == "relative"
    assert inspection.problem is None


@pytest.mark.one_backend
def test_transformers_files_are_written_as_they_were(tmp_path):
    model = keras_vit.from_pretrained(REFERENCE / "hf_beit")
    keras_vit.save_weights(model, tmp_path / "ours", layout="huggingface")
    folders = (tmp_path / "ours", REFERENCE / "hf_beit")
    written, original = (load_file(folder / "model.safetensors") for folder in folders)
    assert_same_weights(written, original)
    written, original = (json.loads((f / "config.json").read_text()) for f in folders)
    others = {"drop_path_rate", "layer_scale_init_value"}  # of training, and not kept
    for key in written.keys() & original.keys() - others:
        assert written[key] == original[key], key


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_shared_relative_position_bias": True}, "use_shared_relative_position_bias"),
        ({"use_absolute_position_embeddings": True}, "use_absolute_position_embeddings"),
        ({"image_size": [32, 48]}, "not square"),
        ({"architectures": ["BeitForMaskedImageModeling"]}, "BeitForMaskedImageModeling"),
    ],
)
def test_other_kinds_of_transformers_beit_are_refused(changes, message, tmp_path):
    folder = shutil.copytree(REFERENCE / "hf_beit", tmp_path / "beit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ValueError, match=message):
        keras_vit.from_pretrained(folder)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ("google", {}, "relative"),
        ("huggingface", {"qkv_bias": True}, "qkv_bias=True"),
        ("huggingface", {"image_size": (32, 48)}, r"image_size=\(32, 48\)"),
        ("huggingface", {"num_registers": 2}, "registers"),
        ("timm", {"representation_size": 8}, "pre_logits"),
        ("timm", {"qkv_bias": True}, "Beit has no qkv_bias=True: its keys have no bias"),
        ("timm", {"num_registers": 2}, "Beit has no num_registers=2"),
    ],
)
def test_what_a_layout_cannot_say_is_refused(layout, options, message, tmp_path):
    path = {"google": "a.npz", "timm": "a.safetensors", "huggingface": "a"}[layout]
    model = tiny(**{"position": "relative", "qkv_bias": "qv", **options})
    with pytest.raises(ValueError, match=message):
        keras_vit.save_weights(model, tmp_path / path, layout=layout)
    assert not list(tmp_path.iterdir())
