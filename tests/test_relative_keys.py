"""Relative attention of the ViT paper's appendix D.4: formula, sizes, training, refusals."""

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
from test_positions import trained

import keras_vit
from keras_vit import analysis
from keras_vit.conversion.inspect import inspect
from keras_vit.distribution.layouts import tensor_parallel_axes
from keras_vit.layers import EncoderBlock, RelativeKeys, SelfAttention
from keras_vit.resize import resize_offsets, resize_raster_offsets

GRID = (3, 4)
SIZE = {"image_size": (16, 24), "position": "relative_key"}  # 2 × 3 patches


def random_layer(num_prefix, dtype="float32"):
    layer = RelativeKeys(GRID, num_prefix=num_prefix, dtype=dtype)
    layer.build((None, 2, None, 5))
    return randomize(layer)


@pytest.mark.parametrize("num_prefix", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_logits_are_their_formula(num_prefix, dtype):
    layer, tolerance = random_layer(num_prefix, dtype), 1e-5 if dtype == "float32" else 0.02
    query = np.random.default_rng(0).normal(size=(2, 2, num_prefix + 12, 5))
    query = query.astype("float32")
    logits = layer(query)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    expected = by_hand.offset_logits(layer, query)
    assert_close(logits, expected, tolerance)
    for first in (1, num_prefix, num_prefix + 5):
        if first:
            part = layer(query[:, :, :first], num_keys=num_prefix + 12)
            assert_close(part, expected[:, :, :first], tolerance)
            spec = layer(keras.KerasTensor((None, 2, first, 5)))
            assert spec.shape == (None, *part.shape[1:])


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"qkv_bias": "qv"}])
def test_attention_adds_the_logits_to_the_scores(options):
    layer = SelfAttention(
        2, relative_grid=GRID, relative_kind="keys", num_prefix=1, **options
    )
    layer.build((None, None, 8))
    randomize(layer)
    tokens = np.random.default_rng(0).normal(size=(2, 13, 8)).astype("float32")
    shares = by_hand.softmax(by_hand.scores(layer, tokens))
    attended = shares @ by_hand.projected(layer, tokens)[2]
    expected = np.einsum("bhtk,hkd->btd", attended, array(layer.projection.kernel))
    expected = expected + array(layer.projection.bias)
    assert_close(layer(tokens), expected)
    assert_close(layer(tokens[:, :1], context=tokens), expected[:, :1])
    sizes = np.arange(26).reshape(2, 13) % 3 + 1
    shares = by_hand.softmax(by_hand.scores(layer, tokens, sizes=sizes))
    attended = shares @ by_hand.projected(layer, tokens)[2]
    weighed = np.einsum("bhtk,hkd->btd", attended, array(layer.projection.kernel))
    assert_close(layer(tokens, sizes=sizes), weighed + array(layer.projection.bias))


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "layer",
    [
        RelativeKeys(GRID, num_prefix=1, dtype="mixed_bfloat16"),
        SelfAttention(2, relative_grid=GRID, relative_kind="keys", num_prefix=1),
        EncoderBlock(2, 16, relative_grid=GRID, relative_kind="keys", num_prefix=1),
    ],
)
def test_config_round_trip(layer):
    revived = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert revived.get_config() == layer.get_config()


# Tables of other grids.


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("old", "new"), [((3, 4), (6, 4)), ((4, 4), (2, 9)), ((2, 3), (5, 2))]
)
def test_tables_are_resized_pair_by_pair(old, new):
    """The mean over all pairs of patches that are so far apart in raster order."""
    (rows, columns), (new_rows, new_columns) = old, new
    table = np.random.default_rng(0).normal(size=(2 * rows, columns, 2, 3))
    flat = table.reshape(-1, 6)
    pairs = np.zeros((2 * rows - 1, 2 * columns - 1, 6))
    for down, right in np.ndindex(*pairs.shape[:2]):
        offset = (down - rows + 1) * columns + right - columns + 1
        pairs[down, right] = flat[rows * columns + offset]
    pairs = resize_offsets(pairs, new)
    number = new_rows * new_columns
    found = [[] for _ in range(2 * number)]
    for query, key in np.ndindex(number, number):
        down = key // new_columns - query // new_columns
        right = key % new_columns - query % new_columns
        vector = pairs[down + new_rows - 1, right + new_columns - 1]
        found[number + key - query].append(vector)
    expected = np.array([np.mean(each, axis=0) if each else np.zeros(6) for each in found])
    resized = resize_raster_offsets(table, new)
    np.testing.assert_allclose(
        resized, expected.reshape(2 * new_rows, new_columns, 2, 3), atol=1e-12
    )
    assert resize_raster_offsets(table, old) is table


@pytest.mark.parametrize("way", ["from_pretrained", "load_weights", "keras", "keras_vit"])
def test_another_image_size_resizes_the_tables(way, tmp_path):
    model = tiny(**SIZE)
    file = tmp_path / ("model.keras" if way != "keras" else "model.weights.h5")
    model.save_weights(file) if way == "keras" else model.save(file)
    other = tiny(**{**SIZE, "image_size": (40, 16)})
    if way == "from_pretrained":
        other = keras_vit.from_pretrained(model, image_size=(40, 16))
    elif way == "keras":
        other.load_weights(file)
    else:
        if way == "keras_vit":
            file = tmp_path / "model.weights.h5"
            model.save_weights(file)
        report = keras_vit.load_weights(other, file)
        path = "block_1/attention/relative_keys/grid"
        assert report.resized[path] == ((4, 3, 4, 12), (10, 2, 4, 12))
        assert len(report.resized) == 2
    expected = {
        path: resize_raster_offsets(value, (5, 2)) if path.endswith("keys/grid") else value
        for path, value in weights(model).items()
    }
    assert_same_weights(weights(other), expected)
    assert other(images(40, 16)).shape == (2, 10)


# Models.


def test_the_last_block_of_the_class_token_alone_is_the_same():
    model, full = tiny(**SIZE), tiny(**SIZE, full_last_block=True)
    full.set_weights(model.get_weights())
    batch = images(16, 24)
    assert_close(model(batch), full(batch))
    features = model.features(batch)
    assert_close(features["pooled"], features["class_token"])
    maps = analysis.attention_maps(model, batch)
    (tokens,) = by_hand.outputs_of(model, "block_0")(batch)
    expected = by_hand.attention_weights(model.get_layer("block_1"), tokens)
    assert_close(maps[1], expected)


def test_saved_models_and_clones_are_the_same(tmp_path):
    model = tiny(**SIZE)
    outputs = array(model(images(16, 24)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(weights(loaded), weights(model))
    assert_close(loaded(images(16, 24)), outputs, 1e-7)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_close(clone(images(16, 24)), outputs, 1e-7)
    model.save_weights(tmp_path / "model.weights.h5")
    assert inspect(tmp_path / "model.weights.h5").architecture["position"] == "relative_key"


def test_every_weight_is_trained_and_tables_are_not_decayed():
    model = tiny(**SIZE, rematerialize=True, pooling="gap", class_token=True)
    changed, optimizer = trained(model)
    assert changed == set(weights(model))
    tables = [w for w in model.weights if "/relative_keys/" in w.path]
    assert len(tables) == 4
    assert not any(optimizer._use_weight_decay(table) for table in tables)


def test_half_precision_is_near_float32():
    model, half = tiny(**SIZE), tiny(**SIZE, dtype="mixed_bfloat16")
    half.set_weights(model.get_weights())
    outputs, expected = array(half(images(16, 24))), array(model(images(16, 24)))
    assert np.abs(outputs - expected).max() < 0.05


@pytest.mark.one_backend
def test_what_does_not_go_with_relative_keys_is_refused(tmp_path):
    for fields, message in (
        ({"merged_tokens": 1}, "cannot be merged.*position='relative_key'"),
        ({"input_shape": (None, 32, 3)}, r"input_shape=\(None, 32, 3\)"),
        ({"num_prefix_positions": 1}, "num_prefix_positions=1"),
        ({"position_at": "each_layer"}, "position='relative_key', which adds none"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(position="relative_key", **fields)
    with pytest.raises(ValueError, match=r"3 x 4 patches.*13 tokens. Received: 12"):
        random_layer(1)(np.zeros((1, 2, 12, 5)), num_keys=12)
    with pytest.raises(ValueError, match="'relative_key'.*see `attention_maps`"):
        analysis.position_similarity(tiny(**SIZE))
    for layout, path in (
        ("google", "a.npz"),
        ("timm", "a.safetensors"),
        ("huggingface", "a"),
    ):
        with pytest.raises(ValueError, match="no place here for position='relative_key'"):
            keras_vit.save_weights(tiny(**SIZE), tmp_path / path, layout=layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.one_backend
def test_heads_of_relative_keys_are_split_over_devices():
    for name, shape in (("grid", (28, 14, 12, 64)), ("prefix", (3, 12, 64))):
        axes = tensor_parallel_axes(f"vit/block_3/attention/relative_keys/{name}", shape)
        assert axes.index("model") == shape.index(12)
