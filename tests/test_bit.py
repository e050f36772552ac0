"""BiT: the model as Keras users expect one, and its checkpoints in and out."""

import inspect
import json

import keras
import numpy as np
import pytest
from helpers import REFERENCE, array, assert_close, assert_same_weights, images, randomize

from helpers import path_of, reference, weights  # isort: skip

import keras_vit
from keras_vit.conversion.verify import compare_models

TINY = {"image_size": 32, "num_units": (1, 2), "width_factor": 0.5}
BIT = REFERENCE / "bit_resnet" / "checkpoint.npz"


def tiny_bit(**overrides):
    """A tiny `BiTResNet` whose every weight is random."""
    return randomize(keras_vit.BiTResNet(**{**TINY, "classes": 10, **overrides}))


def alike(*variants):
    """Models of the same weights."""
    first, *others = [tiny_bit(**variant) for variant in variants]
    for other in others:
        other.set_weights(first.get_weights())
    return first, *others


VARIANTS = {
    "classifier": {},
    "features": {"classes": 0},
    "feature map": {"classes": 0, "pooling": None},
    "odd and not square": {"image_size": (33, 50)},
    "four channels": {"input_shape": (32, 32, 4)},
    "any size": {"input_shape": (None, None, 3)},
    "of the hybrids' arithmetic": {"standardization": "std", "group_norm_epsilon": 1e-6},
}
each_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


def images_for(model):
    height, width, channels = (size or 32 for size in model.input_shape[1:])
    return images(height, width, channels)


@each_variant
def test_config_and_file_revive_the_model(variant, tmp_path):
    model = tiny_bit(**variant)
    config = model.get_config()
    assert list(config) == [
        name
        for name in inspect.signature(keras_vit.BiTResNet).parameters
        if name not in ("input_tensor", "dtype", "name", "trainable")
        and name not in ("class_names", "probabilities", "preprocessing")  # where given
    ] + ["dtype", "name", "trainable"]
    assert keras_vit.BiTResNet.from_config(config).get_config() == config

    x = images_for(model)
    expected = array(model(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is keras_vit.BiTResNet
    np.testing.assert_array_equal(array(loaded(x)), expected)
    copied = keras_vit.from_pretrained(tmp_path / "model.keras")
    assert_same_weights(weights(copied), weights(model))

    model.save_weights(tmp_path / "model.weights.h5")
    other = keras_vit.BiTResNet.from_config(config)
    keras_vit.load_weights(other, tmp_path / "model.weights.h5")
    assert_same_weights(weights(other), weights(model))


def test_layers_and_weights_have_public_names():
    model = tiny_bit()
    assert [layer.name for layer in model.layers[1:]] == [
        *("root", "stage_0_unit_0", "stage_1_unit_0", "stage_1_unit_1"),
        *("norm", "relu", "pooling", "head"),
    ]
    paths = [path_of(w) for w in model.weights if path_of(w).startswith("stage_1_unit_0/")]
    assert paths == [
        *("stage_1_unit_0/norm_1/gamma", "stage_1_unit_0/norm_1/beta"),
        "stage_1_unit_0/conv_1/kernel",
        *("stage_1_unit_0/norm_2/gamma", "stage_1_unit_0/norm_2/beta"),
        "stage_1_unit_0/conv_2/kernel",
        *("stage_1_unit_0/norm_3/gamma", "stage_1_unit_0/norm_3/beta"),
        "stage_1_unit_0/conv_3/kernel",
        "stage_1_unit_0/shortcut_conv/kernel",
    ]
    extractor = keras.Model(model.input, model.get_layer("stage_0_unit_0").output)
    assert extractor(images()).shape == (2, 8, 8, 128)


def test_it_trains():
    model = tiny_bit()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    before = weights(model)
    model.fit(images(), np.array([1, 2]), epochs=1, verbose=0)
    moved = [
        path for path, value in weights(model).items() if (value != before[path]).any()
    ]
    assert moved == list(before)


def test_channels_first_equals_channels_last():
    last, first = alike({}, {"data_format": "channels_first"})
    assert first.input_shape == (None, 3, 32, 32)
    x = images()
    assert_close(first(np.transpose(x, (0, 3, 1, 2))), last(x))


def test_mixed_precision_standardises_and_norms_in_float32():
    model, half = alike({}, {"dtype": "mixed_bfloat16"})
    assert {weight.dtype for weight in half.weights} == {"float32"}
    unit = half.get_layer("stage_1_unit_0")
    assert (
        keras.backend.standardize_dtype(unit.conv_2.standardized_kernel().dtype)
        == "float32"
    )
    assert unit.norm_2.compute_dtype == "float32"
    assert unit.conv_2.compute_dtype == "bfloat16"
    # Standardised before it is rounded, so no other rounding than that.
    expected = model.get_layer("stage_1_unit_0").conv_2.standardized_kernel()
    np.testing.assert_array_equal(array(unit.conv_2.standardized_kernel()), array(expected))
    outputs = half(images())
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert_close(outputs, model(images()), 0.1)


def test_images_between_0_and_255():
    colours = {"image_mean": (0.1, 0.2, 0.3)}
    plain, model = alike(colours, {**colours, "include_preprocessing": True})
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    prepared = keras_vit.preprocess_input(pixels, plain)
    assert_close(model(pixels), plain(prepared))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_units": ()}, "`num_units` must have at least one stage"),
        ({"num_units": (3, 0)}, "`num_units` must be a positive integer"),
        ({"width_factor": 0.3}, "`width_factor` must give the root .* multiple of 32"),
        ({"pooling": "token"}, "`pooling` must be one of 'gap', None"),
        ({"pooling": "max"}, "Max pooling is not offered.*Use pooling='gap', or"),
        ({"pooling": None}, "A head needs a `pooling` .* Use pooling='gap', or classes=0"),
        ({"standardization": "mean"}, "`standardization` must be one of 'std', 'variance'"),
    ],
)
def test_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        keras_vit.BiTResNet(**{**TINY, "classes": 10, **fields})


# Checkpoints.


def test_google_and_timm_and_back_are_the_same_bits(tmp_path):
    model = keras_vit.from_pretrained(BIT)
    keras_vit.save_weights(model, tmp_path / "m.safetensors", layout="timm")
    again = keras_vit.from_pretrained(tmp_path / "m.safetensors")
    assert again.get_config() | {"name": ""} == model.get_config() | {"name": ""}
    keras_vit.save_weights(again, tmp_path / "m.npz", layout="google")
    written, original = (
        dict(np.load(tmp_path / "m.npz")),
        reference("bit_resnet", "checkpoint"),
    )
    assert set(written) == set(original)
    for name, tensor in original.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)


def test_what_googles_layout_does_not_say_is_told(tmp_path, caplog):
    model = tiny_bit(standardization_epsilon=1e-8)
    keras_vit.save_weights(model, tmp_path / "m.npz", layout="google")
    assert "does not record standardization_epsilon=1e-08" in caplog.text


def test_a_new_head_and_another_size(tmp_path, caplog):
    model = keras_vit.from_pretrained(BIT, classes=3, input_shape=(48, 64, 3))
    assert model.input_shape == (None, 48, 64, 3)
    np.testing.assert_array_equal(array(model.get_layer("head").kernel), 0)
    assert "the head of 3 classes" in caplog.text
    expected = keras_vit.from_pretrained(BIT, classes=0)
    report = keras_vit.load_weights(model, BIT)
    assert set(report.fresh) == {"head/kernel", "head/bias"}
    assert compare_models(
        keras_vit.from_pretrained(model, classes=0, image_size=32, input_shape=None),
        keras_vit.from_pretrained(expected, image_size=32),
    ).ok


def test_without_top_a_constructor_gives_the_feature_map():
    with keras.StatelessScope(initialize_variables=False):
        model = keras_vit.BiTR50x1(weights=None, include_top=False)
        assert model.output_shape == (None, 7, 7, 2048)
        assert keras_vit.BiTR50x1(weights=None, classes=5).output_shape == (None, 5)
    keras.utils.clear_session()


def test_a_file_of_another_architecture_is_refused():
    with pytest.raises(
        ValueError, match=r"not a checkpoint of BiTR50x1. Expected num_units="
    ):
        keras_vit.BiTR50x1(weights=BIT)
    with pytest.raises(ValueError, match="is not a checkpoint of ViTB16"):
        keras_vit.ViTB16(weights=BIT)
    with pytest.raises(ValueError, match="is not a checkpoint of R50ViTB16"):
        keras_vit.R50ViTB16(weights=REFERENCE / "hybrid_r3stage" / "checkpoint.npz")


def test_no_tensor_is_left_out(tmp_path):
    tensors = reference("bit_resnet", "checkpoint")
    model = keras_vit.from_pretrained(BIT, image_size=32)
    before = weights(model)
    for name in ("resnet/block2/unit02/b/group_norm/gamma", "resnet/head/conv2d/bias"):
        left = {key: value for key, value in tensors.items() if key != name}
        np.savez(tmp_path / "m.npz", **left)
        with pytest.raises(ValueError, match="In the model, but not in the file"):
            keras_vit.load_weights(model, tmp_path / "m.npz", skip_mismatched_head=False)
    np.savez(
        tmp_path / "m.npz", **tensors, **{"resnet/block2/unit03/a/x": np.ones(3, "f4")}
    )
    with pytest.raises(ValueError, match="In the file, but not in the model"):
        keras_vit.load_weights(model, tmp_path / "m.npz")
    gap = {key.replace("unit02", "unit04"): value for key, value in tensors.items()}
    np.savez(tmp_path / "m.npz", **gap)
    with pytest.raises(ValueError, match="stages or units are missing, found 0"):
        keras_vit.from_pretrained(tmp_path / "m.npz")
    assert_same_weights(weights(model), before)


def test_metadata_that_another_model_has(tmp_path):
    """Fields that only a ViT or only a ResNet has do not affect the other."""
    from safetensors.numpy import load_file, save_file

    told = {"num_heads": 4, "mlp": "gelu", "group_norm_epsilon": 1e-3}
    for case, field in [("timm_bit", "group_norm_epsilon"), ("timm_token", "num_heads")]:
        path = tmp_path / f"{case}.safetensors"
        tensors = load_file(REFERENCE / case / "model.safetensors")
        save_file(tensors, path, {"keras_vit": json.dumps(told)})
        config = keras_vit.from_pretrained(path).get_config()
        assert config[field] == told[field]


def test_no_place_at_hugging_face(tmp_path):
    with pytest.raises(ValueError, match="has no place for a `BiTResNet`"):
        keras_vit.save_weights(tiny_bit(), tmp_path / "folder", layout="huggingface")
    assert not list(tmp_path.iterdir())
