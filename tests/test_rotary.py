"""Rotary positions: the angles by their formulas, and what turning must keep."""

import json

import keras
import numpy as np
import pytest
from helpers import REFERENCE, assert_close, reference, weights

import keras_vit
from keras_vit.layers.rotary import RotaryEmbedding, checked_rope, rotate, turns
from keras_vit.weights.keras_tensors import KerasFile

HEAD_DIM = 12
GRID = (3, 5)


def angles_by_formula(rope, grid, head_dim):
    """(patches, 2, head_dim / 4), one patch and one channel after the other."""
    rows, columns = grid
    kind, angles = rope["kind"], []
    for r in range(rows):
        for c in range(columns):
            both = []
            for place, size, axis in ((r, rows, 0), (c, columns, 1)):
                if kind == "dinov3":
                    place = 2 * np.pi * (2 * (place + 0.5) / size - 1)
                elif kind == "cat":
                    reference = rope.get("reference_grid", grid)[axis]
                    place = (place + rope.get("offset", 0)) * reference / size
                base = rope.get("temperature", {"cat": 1e4}.get(kind, 100))
                both.append(
                    [place * base ** (-4 * k / head_dim) for k in range(head_dim // 4)]
                )
            is_xy = rope.get("indexing", "xy" if kind == "axial" else "ij") == "xy"
            angles.append(both[::-1] if is_xy else both)
    return np.array(angles)


ROPES = {
    "dinov3": {"kind": "dinov3"},
    "dinov3 neighbours": {"kind": "dinov3", "pairs": "neighbours", "temperature": 50.0},
    "cat": {"kind": "cat", "reference_grid": (4, 4)},
    "cat xy": {"kind": "cat", "indexing": "xy", "reference_grid": (2, 7), "offset": 1.0},
    "cat without reference": {"kind": "cat"},
    "axial": {"kind": "axial"},
}


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
@pytest.mark.parametrize("num_prefix", [0, 2])
def test_each_kind_is_its_formula(rope, num_prefix):
    layer = RotaryEmbedding(rope, HEAD_DIM, num_prefix=num_prefix)
    cosines, sines = keras.ops.convert_to_numpy(layer(np.zeros((2, *GRID, 8))))
    angles = angles_by_formula(rope, GRID, HEAD_DIM).reshape(-1, HEAD_DIM // 2)
    is_half = rope.get("pairs", "halves" if rope["kind"] == "dinov3" else "") == "halves"
    channels = [j % (HEAD_DIM // 2) if is_half else j // 2 for j in range(HEAD_DIM)]
    np.testing.assert_allclose(cosines[num_prefix:], np.cos(angles[:, channels]), atol=4e-6)
    signs = [
        -1.0 if (j < HEAD_DIM // 2 if is_half else j % 2 == 0) else 1.0
        for j in range(HEAD_DIM)
    ]
    expected = np.sin(angles[:, channels]) * signs
    np.testing.assert_allclose(sines[num_prefix:], expected, atol=4e-6)
    assert (cosines[:num_prefix] == 1).all()
    assert (sines[:num_prefix] == 0).all()


def test_periods_of_a_checkpoint_are_used_as_they_are():
    periods = (1.0, 3.0, 25.0)
    layer = RotaryEmbedding({"kind": "dinov3", "periods": periods}, HEAD_DIM)
    cosines, _ = keras.ops.convert_to_numpy(layer(np.zeros((1, 1, 2, 8))))
    places = np.array([0.0] * 3 + [-np.pi] * 3)  # of the first patch: row 0 of 1, column
    expected = np.cos(places / np.array(periods * 2))
    np.testing.assert_allclose(cosines[0, : HEAD_DIM // 2], expected, atol=1e-6)


@pytest.mark.parametrize("rope", [*ROPES.values(), "mixed"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_layer_from_its_config_gives_the_same_float32(rope, dtype):
    layer = RotaryEmbedding(rope, HEAD_DIM, num_prefix=1, dtype=dtype)
    serialized = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert again.get_config() == layer.get_config()
    patches = np.zeros((2, *GRID, 8))
    outputs = layer(patches)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    spec = layer.compute_output_spec(keras.KerasTensor((None, *GRID, 8)))
    assert spec.shape == tuple(outputs.shape)
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(each(patches)) for each in (layer, again))
    )


def test_mixed_positions_are_column_and_row():
    layer = RotaryEmbedding("mixed", HEAD_DIM, num_prefix=1)
    places = keras.ops.convert_to_numpy(layer(np.zeros((1, 2, 3, 8))))
    expected = [[0, 0], [0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]
    np.testing.assert_array_equal(places, expected)


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
def test_turning_is_a_rotation_of_each_pair(pairs):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 8)).astype("float32")
    angles = rng.normal(size=(4, 4)).astype("float32")
    cosines, sines = turns(keras.ops.convert_to_tensor(angles), pairs)
    turned = rotate(keras.ops.convert_to_tensor(x), cosines, sines, pairs)
    turned = keras.ops.convert_to_numpy(turned)
    # Pairs as complex numbers, multiplied by e^(i · angle).
    if pairs == "halves":
        before, after = (v[..., :4] + 1j * v[..., 4:] for v in (x, turned))
    else:
        before, after = (v[..., ::2] + 1j * v[..., 1::2] for v in (x, turned))
    np.testing.assert_allclose(after, before * np.exp(1j * angles), atol=1e-5)


def test_scores_of_turned_patches_depend_on_their_distance_alone():
    layer = RotaryEmbedding("axial", HEAD_DIM)
    cosines, sines = layer(np.zeros((1, 4, 4, 8)))
    rng = np.random.default_rng(1)
    query, key = rng.normal(size=(2, 1, 1, 1, HEAD_DIM)).astype("float32")
    query, key = (keras.ops.repeat(v, 16, axis=2) for v in (query, key))
    query, key = (rotate(v, cosines, sines, "neighbours") for v in (query, key))
    scores = keras.ops.convert_to_numpy(keras.ops.einsum("bhqd,bhkd->qk", query, key))
    scores = scores.reshape(4, 4, 4, 4)
    np.testing.assert_allclose(scores[0, 0, 1, 2], scores[2, 1, 3, 3], atol=1e-5)
    assert abs(scores[0, 0, 1, 2] - scores[0, 0, 2, 1]) > 1e-3


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"kind": "spiral"}, "rope\\['kind'\\]"),
        ({"kind": "axial", "reference_grid": (2, 2)}, "reference_grid"),
        ({"kind": "cat", "periods": (1, 2, 3)}, "periods"),
        ({"kind": "dinov3", "periods": (1, 2)}, "head_dim / 4"),
        ({"kind": "dinov3", "pairs": "thirds"}, "rope\\['pairs'\\]"),
        ({"kind": "dinov3", "speed": 1}, "speed"),
    ],
)
def test_wrong_descriptions_are_refused(rope, message):
    with pytest.raises(ValueError, match=message):
        checked_rope(rope, HEAD_DIM)


@pytest.mark.one_backend
def test_heads_that_have_no_pairs_for_two_axes_are_refused():
    with pytest.raises(ValueError, match="divisible by 4"):
        checked_rope("dinov3", 10)


SIZES = {"hidden_dim": 48, "num_layers": 2, "num_heads": 4, "mlp_dim": 96}
CASES = ["timm_dinov3", "timm_eva02_base", "timm_rope_axial", "timm_rope_mixed"]


def load(case, **overrides):
    overrides = {"classifier_activation": None, **overrides}
    return keras_vit.from_pretrained(REFERENCE / case, **overrides)


@pytest.mark.parametrize("case", CASES)
def test_positions_of_images_of_any_size(case):
    expected = reference(case)
    model = load(case, input_shape=(None, None, 3))
    assert_close(model(expected["input"]), expected["logits"])
    # A model of another size turns by other angles, which both compute alike.
    fixed = load(case, image_size=(40, 16))
    images = np.random.default_rng(2).normal(size=(2, 40, 16, 3)).astype("float32")
    assert_close(model(images), fixed(images))


@pytest.mark.parametrize("case", CASES)
def test_saved_models_turn_as_before(case, tmp_path):
    expected = reference(case)
    model = load(case)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    outputs = keras.ops.convert_to_numpy(model(expected["input"]))
    assert_close(again(expected["input"]), outputs, 1e-7)
    copy = keras_vit.from_pretrained(model, classes=3)
    assert copy.get_config()["rope"] == model.get_config()["rope"]


@pytest.mark.parametrize("kind", ["dinov3", "mixed"])
def test_every_weight_is_trained(kind):
    model = keras_vit.VisionTransformer(
        16, 8, **SIZES, classes=3, position="none", rope=kind, rematerialize=True
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.get_layer("head").kernel.assign(np.random.default_rng(0).normal(size=(48, 3)))
    before = [np.array(w) for w in model.trainable_weights]
    images = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype("float32")
    model.train_on_batch(images, np.array([0, 1, 2, 0]))
    frozen = [
        w.path
        for w, old in zip(model.trainable_weights, before, strict=True)
        if (np.array(w) == old).all()
    ]
    assert not frozen
    assert any("frequencies" in w.path for w in model.weights) == (kind == "mixed")


def test_half_precision_is_near_float32():
    expected = reference("timm_dinov3")
    model = load("timm_dinov3", dtype="mixed_bfloat16")
    outputs = keras.ops.convert_to_numpy(model(expected["input"]))
    error = np.abs(outputs - expected["logits"]).max() / np.abs(expected["logits"]).max()
    assert error < 0.05


@pytest.mark.one_backend
@pytest.mark.parametrize("qkv_bias", [True, "qv"])
@pytest.mark.parametrize("rope", ["axial", "mixed"])
def test_weights_of_attention_are_named_in_files_of_keras(qkv_bias, rope, tmp_path):
    model = keras_vit.VisionTransformer(
        16, 8, **SIZES, position="none", rope=rope, qkv_bias=qkv_bias, pooling="map"
    )
    model.save_weights(tmp_path / "model.weights.h5")
    targets = set(KerasFile(str(tmp_path / "model.weights.h5")).targets.values())
    assert targets == set(weights(model))


@pytest.mark.one_backend
def test_merged_tokens_have_no_place_to_turn_by():
    with pytest.raises(ValueError, match="cannot be merged"):
        keras_vit.VisionTransformer(16, 8, **SIZES, rope="axial", merged_tokens=1)


@pytest.mark.one_backend
@pytest.mark.parametrize("layout", ["google", "huggingface"])
def test_layouts_that_cannot_say_it_refuse_the_model(layout, tmp_path):
    model = keras_vit.VisionTransformer(16, 8, **SIZES, position="none", rope="axial")
    path = tmp_path / {"google": "a.npz", "huggingface": "a"}[layout]
    with pytest.raises(ValueError, match="rope"):
        keras_vit.save_weights(model, path, layout=layout)
    assert not list(tmp_path.iterdir())
