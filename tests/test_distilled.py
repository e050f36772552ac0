"""DeiT's distillation token and its head, by reference cases and in NumPy."""

import keras
import numpy as np
import pytest
from helpers import (
    REFERENCE,
    array,
    assert_close,
    assert_same_weights,
    images,
    path_of,
    reference,
    tiny,
    weights,
)

import keras_vit
from keras_vit.conversion.verify import compare_stages
from keras_vit.training import SmallData, freeze, learning_rate_multipliers
from keras_vit.weight_paths import HEADS

CASES = ["timm_deit_distilled", "hf_deit_teacher"]
HEAD_PATHS = {f"{head}/{weight}" for head in HEADS for weight in ("kernel", "bias")}


def published(case, **overrides):
    overrides = {"classifier_activation": None, **overrides}
    return keras_vit.from_pretrained(REFERENCE / case, **overrides)


@pytest.mark.parametrize("case", CASES)
def test_every_stage_of_the_originals(case):
    expected = reference(case)
    model = published(case)
    pooled = expected.pop("pooled", None)
    grid = model.get_layer("patch_embedding").output.shape[1:]
    expected["patch_embedding"] = expected["patch_embedding"].reshape(-1, *grid)
    comparison = compare_stages(model, expected, 1e-5)
    heads = {"logits", "logits_class", "logits_distillation"}
    assert heads <= {row.name for row in comparison.rows}
    assert comparison.ok, f"\n{comparison}"
    assert_close(model(expected["input"]), expected["logits"])
    features = model.features(expected["input"])
    assert_close(features["class_token"], expected["features"][:, 0])
    assert_close(features["distillation_token"], expected["features"][:, 1])
    assert_close(features["patch_tokens"], expected["features"][:, 2:])
    if pooled is not None:
        assert_close(features["pooled"], pooled)
        assert_close(published(case, classes=0)(expected["input"]), pooled)


def test_the_activation_is_that_of_the_averaged_logits():
    model = tiny(distilled=True)
    both = keras.Model(model.input, [model.get_layer(head).output for head in HEADS])
    logits = np.mean([array(each) for each in both(images())], axis=0)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert_close(model(images()), expected)


@pytest.mark.parametrize("registers", [0, 2])
def test_the_last_block_computes_the_two_tokens_alone(registers):
    fields = {"distilled": True, "num_registers": registers, "image_size": (32, 48)}
    model, full = tiny(**fields), tiny(**fields, full_last_block=True)
    full.set_weights(model.get_weights())
    assert model.get_layer("block_1").output.shape == (None, 2, 48)
    assert full.get_layer("block_1").output.shape == (None, 2 + registers + 24, 48)
    assert_close(model(images(32, 48)), full(images(32, 48)))
    every = tiny(**fields, pooling=None, classes=0)
    every.set_weights(model.get_weights()[: len(every.weights)])
    features, tokens = model.features(images(32, 48)), array(every(images(32, 48)))
    assert_close(features["distillation_token"], tokens[:, 1])
    assert_close(features["patch_tokens"], tokens[:, 2 + registers :])


def test_a_new_head_is_two_new_heads(tmp_path):
    model = published("timm_deit_distilled")
    other = keras_vit.from_pretrained(model, classes=3)
    for path, value in weights(other).items():
        assert path not in HEAD_PATHS or not value.any(), path
    assert other.get_config()["distilled"]
    model.save_weights(tmp_path / "a.weights.h5")
    report = keras_vit.load_weights(other, tmp_path / "a.weights.h5")
    assert set(report.fresh) == HEAD_PATHS
    report = keras_vit.load_weights(other, REFERENCE / "timm_deit_distilled")
    assert set(report.fresh) == HEAD_PATHS
    same = published("timm_deit_distilled")
    report = keras_vit.load_weights(same, tmp_path / "a.weights.h5")
    assert set(report.loaded) >= HEAD_PATHS


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_saved_models_compute_the_same(dtype, tmp_path):
    expected = reference("timm_deit_distilled")
    model = published("timm_deit_distilled", dtype=dtype, rematerialize=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    assert_same_weights(weights(again), weights(model))
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"
    tolerance = 1e-5 if dtype == "float32" else 0.05
    assert_close(again(expected["input"]), expected["logits"], tolerance)


@pytest.mark.one_backend
def test_training_knows_its_parts():
    model = tiny(distilled=True)
    multipliers = learning_rate_multipliers(model, 0.5)
    by_path = {path_of(weight): multipliers[weight.path] for weight in model.weights}
    assert by_path["distillation_token/tokens"] == by_path["class_token/tokens"] == 0.125
    assert by_path["distillation_head/kernel"] == 1
    freeze(model, "linear")
    assert {path_of(weight) for weight in model.trainable_weights} == HEAD_PATHS
    recipe = SmallData(freeze="linear", init_head_bias=-1)
    recipe.prepare(model)
    for head in HEADS:
        assert (array(model.get_layer(head).bias) == -1).all()
    recipe.loss_function(tiny(distilled=True))


@pytest.mark.one_backend
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", ["timm", "huggingface"])
def test_layouts_hold_both_heads(case, layout, tmp_path):
    expected = reference(case)
    model = published(case)
    path = tmp_path / ("a.safetensors" if layout == "timm" else "a")
    keras_vit.save_weights(model, path, layout=layout)
    again = keras_vit.from_pretrained(path, classifier_activation=None)
    assert_same_weights(weights(again), weights(model))
    assert_close(again(expected["input"]), expected["logits"])


@pytest.mark.one_backend
def test_layouts_without_a_place_refuse_it(tmp_path):
    with pytest.raises(ValueError, match="no place here for distilled=True"):
        keras_vit.save_weights(tiny(distilled=True), tmp_path / "a.npz", layout="google")
    headless = tiny(distilled=True, classes=0)
    with pytest.raises(ValueError, match="cannot have classes=0"):
        keras_vit.save_weights(headless, tmp_path / "a", layout="huggingface")
    assert not list(tmp_path.iterdir())


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"pooling": "gap", "class_token": True},
            "pooling='gap'. Use pooling='token' or N",
        ),
        ({"representation_size": 8}, "representation_size=8. Use representation_size=None"),
        ({"fc_norm": True}, "fc_norm=True. Use fc_norm=False, or distilled=False"),
        ({"num_prefix_positions": 3}, r"num_registers=0 \(2 tokens\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(distilled=True, **fields)
