"""RGB checkpoints in models for images of other channels."""

import json
import logging

import keras
import numpy as np
import pytest
from helpers import REFERENCE, assert_close, assert_same_weights, images, tiny, weights

import keras_vit
from keras_vit.layers import StandardizedConv2D

VIT = REFERENCE / "vit_token_linen_names" / "checkpoint.npz"
HYBRID = REFERENCE / "hybrid_r3stage" / "checkpoint.npz"
BIT = REFERENCE / "bit_resnet" / "checkpoint.npz"
KERNEL = "patch_embedding/kernel"
ROOT = "stem_root/conv/kernel"
one_backend = pytest.mark.one_backend


def load(source, channels=3, **overrides):
    """A model that returns logits; a BiT's of more pixels, as it halves them five times."""
    size = 64 if source == BIT else 32
    overrides = {
        "classifier_activation": None,
        "input_shape": (size, size, channels),
        **overrides,
    }
    return keras_vit.from_pretrained(source, **overrides)


@pytest.fixture(scope="module")
def rgb():
    """RGB models by their checkpoint."""
    return {source: load(source) for source in (VIT, HYBRID, BIT)}


def test_a_grey_model_gives_the_outputs_for_grey_repeated(rgb):
    grey = images(channels=1)
    assert_close(load(VIT, 1)(grey), rgb[VIT](np.repeat(grey, 3, axis=-1)))


@pytest.mark.parametrize("source", [VIT, HYBRID, BIT], ids=["vit", "hybrid", "bit"])
def test_six_channels_give_the_outputs_for_rgb_twice(source, rgb):
    x = images(*rgb[source].input_shape[1:])
    assert_close(load(source, 6)(np.tile(x, (1, 1, 1, 2))), rgb[source](x))


@one_backend
@pytest.mark.parametrize("channels", [2, 4, 5, 13])
def test_kernels_are_repeated_and_rescaled(channels, rgb):
    kernel = weights(rgb[VIT])[KERNEL]
    expected = [kernel[:, :, i % 3] * 3 / channels for i in range(channels)]
    actual = weights(load(VIT, channels))[KERNEL]
    np.testing.assert_allclose(actual, np.stack(expected, axis=2), rtol=1e-6)


@one_backend
@pytest.mark.parametrize("channels", [4, 5, 13])
@pytest.mark.parametrize("source", [HYBRID, BIT], ids=["hybrid", "bit"])
def test_a_resnet_begins_without_the_channels_beyond(source, channels, rgb):
    x = images(*rgb[source].input_shape[1:])
    beyond = images(*x.shape[1:3], channels % 3)
    repeated = np.concatenate([*[x] * (channels // 3), beyond], axis=-1)
    assert_close(load(source, channels)(repeated), rgb[source](x))


@one_backend
def test_a_standardised_sum_is_not_the_sum_of_standardised_kernels(rgb):
    """The reason for which a ResNet of one channel is refused: the factor between the two
    differs by output, which a group norm does not remove."""
    kernel = weights(rgb[HYBRID])[ROOT]

    def standardized(kernel):
        layer = StandardizedConv2D(kernel.shape[-1], 7)
        layer.build((None, 32, 32, kernel.shape[2]))
        layer.kernel.assign(kernel)
        return keras.ops.convert_to_numpy(layer.standardized_kernel())

    sums = standardized(kernel).sum(axis=2)
    factors = sums.std(axis=(0, 1)) / standardized(kernel.sum(2, keepdims=True)).std(
        (0, 1, 2)
    )
    assert factors.max() > 1.1 * factors.min()


@one_backend
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("source", [HYBRID, BIT], ids=["hybrid", "bit"])
def test_a_resnet_of_fewer_channels_is_refused(source, channels):
    with pytest.raises(ValueError, match=r"(?s)root/conv/kernel.*variance 1.*repeat\(3"):
        load(source, channels)


@one_backend
def test_only_rgb_is_extended():
    model = tiny(input_shape=(32, 32, 4))
    with pytest.raises(ValueError, match=r"(?s)those for RGB alone.*give the model 4"):
        keras_vit.from_pretrained(model, input_shape=(32, 32, 3))


@one_backend
def test_every_way_of_loading(tmp_path, rgb):
    expected = weights(load(VIT, 4))
    rgb[VIT].save(tmp_path / "rgb.keras")
    assert_same_weights(weights(load(rgb[VIT], 4)), expected)
    assert_same_weights(weights(load(tmp_path / "rgb.keras", 4)), expected)
    first = load(VIT, input_shape=(4, 32, 32), data_format="channels_first")
    assert_same_weights(weights(first), expected)
    model = tiny(input_shape=(32, 32, 4))
    keras_vit.load_weights(model, VIT)
    assert_same_weights(weights(model), expected)
    assert first.input_shape == (None, 4, 32, 32)


@one_backend
def test_patches_are_resized_too():
    larger = {"input_shape": (64, 64, 4), "patch_size": 16, "resize_patches": True}
    at_once, one_by_one = load(VIT, **larger), load(load(VIT, 4), **larger)
    assert_close(weights(at_once)[KERNEL], weights(one_by_one)[KERNEL])


@one_backend
@pytest.mark.parametrize(
    ("source", "channels", "text"),
    [
        (VIT, 1, "patch_embedding/kernel for 1 channel: the sum over RGB"),
        (VIT, 4, "patch_embedding/kernel for 4 channels: RGB repeated, times 3/4"),
        (HYBRID, 6, "stem_root/conv/kernel for 6 channels: RGB repeated"),
        (BIT, 5, "root/conv/kernel for 5 channels: RGB repeated, zeros beyond"),
    ],
)
def test_the_report_says_it(source, channels, text, caplog):
    with caplog.at_level(logging.INFO, "keras_vit"):
        model = load(source, channels)
    assert caplog.messages == [f"{source}: {text}"]
    report = keras_vit.load_weights(model, source)
    assert report.channels == text
    assert str(report).endswith(f"\n  {text}")
    path = text.partition(" ")[0]
    assert report.resized[path][0][2:3] == (3,)
    assert report.resized[path][1][2:3] == (channels,)


@one_backend
def test_nothing_is_said_of_rgb(rgb):
    assert keras_vit.load_weights(rgb[VIT], VIT).channels is None


# Mean and deviation.


@one_backend
def test_mean_and_deviation_are_extended(tmp_path):
    model = tiny(image_mean=(0.1, 0.2, 0.6), image_std=(0.2, 0.3, 0.4))
    keras_vit.save_weights(model, tmp_path / "rgb.safetensors", layout="timm")
    for source in (model, tmp_path / "rgb.safetensors"):
        four, grey = (load(source, channels).get_config() for channels in (4, 1))
        assert four["image_mean"] == (0.1, 0.2, 0.6, 0.1)
        assert four["image_std"] == (0.2, 0.3, 0.4, 0.2)
        assert grey["image_mean"] == pytest.approx(0.3)
        assert grey["image_std"] == pytest.approx(0.3)
    given = {"image_mean": 0.1, "image_std": (0.1, 0.2, 0.3, 0.4)}
    config = load(model, 4, **given).get_config()
    assert {name: config[name] for name in given} == given
    for values in ((0.1, 0.2, 0.3), (0.1, 0.1, 0.1)):
        with pytest.raises(
            ValueError, match=r"each of the 4 channels. Received: image_mean"
        ):
            load(model, 4, image_mean=values)


@one_backend
def test_included_preprocessing_is_that_of_preprocess_input():
    fields = {"image_mean": (0.1, 0.2, 0.3, 0.4), "image_std": 0.25}
    model = tiny(input_shape=(32, 32, 4), **fields)
    inside = keras_vit.from_pretrained(model, include_preprocessing=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 4))
    assert_close(inside(pixels), model(keras_vit.preprocess_input(pixels, model)))
    with pytest.raises(ValueError, match=r"4 channels. Received.*has 3 channels"):
        keras_vit.preprocess_input(pixels[..., :3], model)


@one_backend
def test_data_of_other_channels_is_refused():
    data = keras_vit.data.load((np.zeros((20, 8, 8), "uint8"), np.arange(20) % 2))
    with pytest.raises(ValueError, match="grey or RGB. Received.*4 channels. Give `fit`"):
        data.prepared_for(tiny(input_shape=(32, 32, 4)))


# Files.


@one_backend
@pytest.mark.parametrize(
    ("source", "layout", "file"),
    [
        (VIT, "google", "four.npz"),
        (VIT, "timm", "four.safetensors"),
        (VIT, "huggingface", "four"),
        (HYBRID, "google", "four.npz"),
        (HYBRID, "timm", "four.safetensors"),
        (BIT, "google", "four.npz"),
        (BIT, "timm", "four.safetensors"),
    ],
)
def test_models_of_four_channels_are_saved(source, layout, file, tmp_path):
    model = load(source, 4, image_std=(0.1, 0.2, 0.3, 0.4))
    keras_vit.save_weights(model, tmp_path / file, layout=layout)
    copy = load(tmp_path / file, input_shape=None)
    assert copy.input_shape[-1] == 4
    assert_same_weights(weights(copy), weights(model))
    if layout != "google":  # whose files hold tensors alone
        assert copy.get_config()["image_std"] == (0.1, 0.2, 0.3, 0.4)
    if layout == "huggingface":
        processor = json.loads((tmp_path / file / "preprocessor_config.json").read_text())
        assert processor["image_mean"] == [0.5] * 4
        assert (
            json.loads((tmp_path / file / "config.json").read_text())["num_channels"] == 4
        )


@one_backend
@pytest.mark.parametrize("source", [VIT, HYBRID, BIT], ids=["vit", "hybrid", "bit"])
def test_files_that_keras_reads_are_refused_in_one_line(source, tmp_path, rgb):
    rgb[source].save_weights(tmp_path / "rgb.weights.h5")
    model = load(source, 4)
    before = weights(model)
    with pytest.raises(ValueError, match="have 3 channels, expected 4") as error:
        keras_vit.load_weights(model, tmp_path / "rgb.weights.h5")
    assert "\n" not in str(error.value)
    assert_same_weights(weights(model), before)
