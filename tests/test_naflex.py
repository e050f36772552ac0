"""`naflex`: images of several shapes in one batch, against SigLIP 2's arrays and alone."""

import json

import keras
import numpy as np
import pytest
from helpers import (
    REFERENCE,
    array,
    assert_close,
    assert_same_weights,
    images,
    tiny,
    weights,
)
from safetensors.numpy import load_file

import keras_vit
from keras_vit.naflex import NaFlexModel, fitting_size, pack_images

CASE = REFERENCE / "hf_siglip2_naflex"
TIMM = REFERENCE / "timm_naflex_gap"
SMALL = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "mlp_dim": 32, "classes": 3}
SHAPES = ((32, 48), (40, 24), (8, 16))  # pixels, in patches of 8


def mixed(channels=3, dtype="float32"):
    """Images of several shapes."""
    found = [images(*shape, channels, batch=1)[0] for shape in SHAPES]
    if dtype == "uint8":
        found = [((image + 1) * 127).astype("uint8") for image in found]
    return found


def packed(found, num_patches=26):
    """A batch with random numbers in its padding."""
    batch = pack_images(found, 8, num_patches)
    noise = np.random.default_rng(0).uniform(-9, 9, batch["patches"].shape)
    is_padding = batch["mask"][..., None] == 0
    batch["patches"] = np.where(is_padding, noise, batch["patches"]).astype("float32")
    return batch


def test_computes_what_siglip_2_does():
    with np.load(CASE / "expected_two_shapes.npz") as file:
        case = dict(file)
    model = NaFlexModel(keras_vit.from_pretrained(CASE))
    batch = pack_images([case["image_0"][0], case["image_1"][0]], 8)
    np.testing.assert_array_equal(batch["patches"], case["pixel_values"])
    np.testing.assert_array_equal(batch["mask"], case["pixel_attention_mask"])
    np.testing.assert_array_equal(batch["spatial_shapes"], case["spatial_shapes"])
    assert_close(model(batch), case["pooled"])
    features = model.features(batch)
    assert_close(features["pooled"], case["pooled"])
    is_patch = batch["mask"] == 1
    assert_close(array(features["patch_tokens"])[is_patch], case["features"][is_patch])


ENCODERS = {
    "class token and registers": {"num_registers": 2, "position_interpolation": "bicubic"},
    "mean": {"pooling": "gap", "fc_norm": True, "position_interpolation": "linear"},
    "token and mean": {"pooling": "token_gap", "representation_size": 8},
    "attention": {"pooling": "map", "position_interpolation": "bilinear", "classes": 0},
    "query, no positions": {"pooling": "query", "position": "none", "pre_norm": True},
}


@pytest.mark.parametrize(
    "kind",
    [
        "class token and registers",
        *(pytest.param(kind, marks=pytest.mark.one_backend) for kind in [*ENCODERS][1:]),
    ],
)
def test_each_image_gets_what_it_gets_alone(kind):
    encoder = tiny(**{**SMALL, **ENCODERS[kind]})
    config = encoder.get_config()
    any_shape = keras_vit.from_pretrained(encoder, input_shape=(None, None, 3))
    model = NaFlexModel(encoder)
    batch = packed(mixed())
    outputs, features = model(batch), model.features(batch)
    for i, image in enumerate(mixed()):
        assert_close(outputs[i : i + 1], any_shape(image[None]))
        alone = any_shape.features(image[None])
        assert alone.keys() == features.keys()
        number = int(batch["mask"][i].sum())
        for name, expected in alone.items():
            found = array(features[name])[i : i + 1]
            found = found[:, :number] if name == "patch_tokens" else found
            assert_close(found, expected)
    assert encoder.get_config() == config


@pytest.mark.one_backend
def test_pixel_values_and_channels_first():
    pixels = mixed(dtype="uint8")
    fields = {**SMALL, "include_preprocessing": True, "image_mean": (0.4, 0.5, 0.6)}
    encoder = tiny(**fields)
    first = tiny(**fields, data_format="channels_first")
    first.set_weights(encoder.get_weights())
    batch = pack_images(pixels, 8)
    assert batch["patches"].dtype == "uint8"
    outputs = NaFlexModel(encoder)(batch)
    assert_close(NaFlexModel(first)(batch), array(outputs))
    any_shape = keras_vit.from_pretrained(encoder, input_shape=(None, None, 3))
    for i, image in enumerate(pixels):
        assert_close(outputs[i : i + 1], any_shape(image[None]))


def test_trains_and_is_saved(tmp_path):
    """Every weight of the encoder is trained, the learned grid by images of any shape."""
    model = NaFlexModel(tiny(**SMALL, num_registers=1, rematerialize=True))
    before = weights(model)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    batch, labels = packed(mixed()), np.arange(3)
    losses = model.fit(batch, labels, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    after = weights(model)
    assert after.keys() == weights(model.encoder).keys()
    assert [path for path in before if np.array_equal(before[path], after[path])] == []
    predictions = model.predict(batch, verbose=0)
    model.save(tmp_path / "naflex.keras")
    loaded = keras.models.load_model(tmp_path / "naflex.keras")
    assert_same_weights(weights(loaded), after)
    np.testing.assert_array_equal(loaded.predict(batch, verbose=0), predictions)
    keras_vit.save_weights(model.encoder, tmp_path / "timm.safetensors", layout="timm")


def test_under_mixed_precision():
    encoder = tiny(**SMALL)
    expected = NaFlexModel(encoder)(packed(mixed()))
    half = keras_vit.from_pretrained(encoder, dtype="mixed_bfloat16")
    outputs = NaFlexModel(half)(packed(mixed()))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert_close(outputs, array(expected), 0.05)


@pytest.mark.one_backend
def test_siglip_2_goes_out_as_it_came(tmp_path):
    encoder = keras_vit.from_pretrained(CASE)
    keras_vit.save_weights(encoder, tmp_path / "model", layout="huggingface")
    path = tmp_path / "model" / "model.safetensors"
    ours, theirs = load_file(path), load_file(CASE / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)
    config = json.loads((path.parent / "config.json").read_text())
    assert config["num_patches"] == 16
    assert "image_size" not in config
    processor = json.loads((path.parent / "preprocessor_config.json").read_text())
    assert processor["image_processor_type"] == "Siglip2ImageProcessor"
    assert (processor["patch_size"], processor["max_num_patches"]) == (8, 16)
    again = keras_vit.from_pretrained(path.parent)
    assert_same_weights(weights(again), weights(encoder))
    assert again.get_config() == {**encoder.get_config(), "name": again.name}
    # One with other positions is a SigLIP, of images of one size.
    other = keras_vit.from_pretrained(encoder, image_size=(32, 48))
    keras_vit.save_weights(other, tmp_path / "one size", layout="huggingface")
    told = json.loads((tmp_path / "one size" / "config.json").read_text())
    assert told["architectures"] == ["SiglipVisionModel"]
    refused = {"classes": 0, "pooling": "map", "position_interpolation": "bilinear"}
    for fields in (
        {"input_shape": (32, 32, 1)},
        {"patch_size": (8, 4), "image_size": (32, 16)},
    ):
        model = tiny(**{**SMALL, **refused, **fields})
        with pytest.raises(ValueError, match="squares of 3 channels"):
            keras_vit.save_weights(model, tmp_path / "x", layout="huggingface")


@pytest.mark.one_backend
def test_transformers_reads_what_is_written(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    encoder = keras_vit.from_pretrained(CASE)
    keras_vit.save_weights(encoder, tmp_path, layout="huggingface")
    model, found = transformers.Siglip2VisionModel.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(found.values()), found
    batch = packed(mixed())
    with torch.no_grad():
        outputs = model(
            pixel_values=torch.tensor(batch["patches"]),
            pixel_attention_mask=torch.tensor(batch["mask"]),
            spatial_shapes=torch.tensor(batch["spatial_shapes"], dtype=torch.int64),
        )
    assert_close(NaFlexModel(encoder)(batch), outputs.pooler_output.numpy())


@pytest.mark.one_backend
def test_timms_naflexvit_goes_out_as_it_came(tmp_path):
    path = tmp_path / "naflex.safetensors"
    model = keras_vit.from_pretrained(TIMM, classifier_activation=None)
    keras_vit.save_weights(model, path, layout="timm_naflex")
    ours, theirs = load_file(path), load_file(TIMM / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)
    again = keras_vit.from_pretrained(path, classifier_activation=None)
    assert_same_weights(weights(again), weights(model))
    assert again.get_config() == {**model.get_config(), "name": again.name}
    # Through timm's VisionTransformer, whose positions have no grid.
    keras_vit.save_weights(again, tmp_path / "vit.safetensors", layout="timm")
    plain = keras_vit.from_pretrained(tmp_path / "vit.safetensors")
    keras_vit.save_weights(plain, path, layout="timm_naflex")
    assert all(np.array_equal(load_file(path)[name], theirs[name]) for name in theirs)


@pytest.mark.one_backend
def test_sizes_are_those_of_transformers():
    module = pytest.importorskip(
        "transformers.models.siglip2.image_processing_pil_siglip2", exc_type=ImportError
    )
    rng = np.random.default_rng(0)
    for numbers in rng.integers(1, (3000, 3000, 64, 1200), (500, 4)).tolist():
        expected = module.get_image_size_for_max_num_patches(*numbers)
        assert fitting_size(*numbers) == expected, numbers
    # The aspect ratio stays, and an image has a patch at least.
    assert fitting_size(480, 640, 16, 256) == (224, 288)
    assert fitting_size(1, 5000, 16, 4) == (16, 64)
    assert fitting_size(64, 64, (16, 32), 8) == (64, 64)


@pytest.mark.one_backend
def test_packing():
    batch = pack_images([np.ones((8, 16, 1)), np.ones((16, 8, 1), "float32")], (8, 4), 5)
    assert batch["patches"].shape == (2, 5, 32)
    assert batch["spatial_shapes"].tolist() == [[1, 4], [2, 2]]
    assert batch["mask"].tolist() == [[1, 1, 1, 1, 0]] * 2
    assert (batch["patches"].sum(-1) == 32 * batch["mask"]).all()
    for wrong, message in (
        ([], "one at least"),
        ([np.ones((8, 8))], r"must be arrays \(height, width, channels\)"),
        ([np.ones((8, 8, 1)), np.ones((8, 8, 3))], "as many channels"),
        ([np.ones((8, 12, 1))], "whole patches.*8 × 12 pixels.*fitting_size"),
    ):
        with pytest.raises(ValueError, match=message):
            pack_images(wrong, 8)
    with pytest.raises(ValueError, match="num_patches=3, and an image of 4 patches"):
        pack_images([np.ones((16, 16, 1))], 8, 3)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"position": "sincos2d"}, "position='sincos2d'"),
        ({"position_at": "each_layer"}, "position_at='each_layer'"),
        ({"position": "none", "rope": "dinov3"}, "rope="),
        ({"distilled": True}, "distilled=True"),
        ({"merged_tokens": 2}, "keeps every token"),
    ],
)
def test_encoders_that_take_no_such_patches(fields, message):
    with pytest.raises(ValueError, match=message):
        NaFlexModel(tiny(**{**SMALL, **fields}))


@pytest.mark.one_backend
def test_other_models_and_patches_are_refused():
    with pytest.raises(ValueError, match="must be a `VisionTransformer`"):
        NaFlexModel(keras.Sequential())
    with pytest.raises(ValueError, match=r"rows of 192 numbers.*\(3, 24, 64\)"):
        NaFlexModel(tiny(**SMALL))(pack_images(mixed(channels=1), 8))


def test_inputs_are_those_of_pack_images():
    model, batch = NaFlexModel(tiny(**SMALL)), packed(mixed())
    with pytest.raises(ValueError, match="without 'spatial_shapes'"):
        model({name: batch[name] for name in ("patches", "mask")})
    with pytest.raises(ValueError, match="without 'patches', 'mask', 'spatial_shapes'"):
        model(images())
    with pytest.raises(ValueError, match=r"Received: shapes \(3, 26, 192\), \(3, 25\)"):
        model({**batch, "mask": batch["mask"][:, 1:]})


@pytest.mark.parametrize("scale", [1, 2, True])
def test_a_patch_is_there_or_it_is_not(scale):
    model, batch = NaFlexModel(tiny(**SMALL)), packed(mixed())
    mask = batch["mask"].astype(bool) if scale is True else batch["mask"] * scale
    assert_close(model({**batch, "mask": mask}), array(model(batch)))
