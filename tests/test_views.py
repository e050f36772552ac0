"""`data.multi_crop`: views of images, by Pillow's formulas, from any step on."""

import colorsys

import keras
import numpy as np
import pytest
from helpers import tiny

import keras_vit
from keras_vit.data import MultiCrop, multi_crop
from keras_vit.data import views as views_module
from keras_vit.pretraining import SelfDistillation
from keras_vit.training import ExactResume

tf = pytest.importorskip("tensorflow")
SMALL = {"hidden_dim": 8, "num_layers": 1, "num_heads": 2, "mlp_dim": 16, "classes": 0}


def distilling(**fields):
    keras.utils.set_random_seed(0)
    own = {"steps": 8, "output_dim": 12, "projection_hidden_dim": 8, "bottleneck_dim": 4}
    own |= {"num_local_views": 3, "local_image_size": 16}
    return SelfDistillation(tiny(**SMALL, **fields), **own)


def photos(number=10, channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (number, 40, 48, channels), "uint8"), np.arange(number) % 2


def loaded(model, seed=3, **fields):
    data = keras_vit.data.load(photos(), validation_split=0.2, seed=seed)
    return data.prepared_for(model.encoder, batch_size=4, **fields)


def first(stream, number=1):
    return [
        {name: one.numpy() for name, one in views.items()}
        for views, _ in stream.take(number)
    ]


@pytest.mark.one_backend
def test_views_have_the_sizes_of_the_model_and_differ():
    model = distilling()
    train, validation = multi_crop(loaded(model), model)
    for stream, batch in ((train, 4), (validation, 2)):
        (views,) = first(stream)
        assert {n: v.shape for n, v in views.items()} == {
            "global": (batch, 2, 32, 32, 3),
            "local": (batch, 3, 16, 16, 3),
        }
        for one in views.values():
            assert one.dtype == np.float32
            assert -1 <= one.min() < one.max() <= 1
            assert len({view.tobytes() for image in one for view in image}) == one[:, :, 0, 0, 0].size  # fmt: skip


@pytest.mark.one_backend
def test_views_are_a_function_of_the_seed_and_the_step():
    model = distilling()
    data = loaded(model)
    train, validation = multi_crop(data, model)
    seen = first(train, 4)
    again = first(train, 4)
    data.start.step = 2
    later = first(train, 2)
    for one, other in (*zip(seen, again, strict=True), *zip(seen[2:], later, strict=True)):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert not np.array_equal(seen[0]["local"], seen[1]["local"])
    other, _ = multi_crop(loaded(model, seed=4), model)
    assert not np.array_equal(first(other)[0]["global"], seen[0]["global"])
    for name, views in first(validation)[0].items():
        np.testing.assert_array_equal(views, first(validation)[0][name])


@pytest.mark.one_backend
def test_processes_compute_their_own_rows():
    from keras_vit.distribution.batch_rows import SHARD

    model = distilling()
    train, _ = multi_crop(loaded(model), model)
    (whole,) = first(train)
    for index in range(2):
        stream, rows = getattr(train, SHARD)(index, 2)
        assert rows == 4
        for name, views in first(stream)[0].items():
            np.testing.assert_array_equal(views, whole[name][2 * index : 2 * index + 2])


@pytest.mark.one_backend
def test_channels_first_and_grey_images():
    model = distilling()
    (views,) = first(multi_crop(loaded(model), model)[0])
    other = distilling(data_format="channels_first")
    (moved,) = first(multi_crop(loaded(other), other)[0])
    for name, one in views.items():
        np.testing.assert_array_equal(moved[name], one.transpose(0, 1, 4, 2, 3))
    grey = distilling(input_shape=(32, 32, 1))
    data = keras_vit.data.load(photos(channels=1)).prepared_for(grey.encoder, batch_size=4)
    (views,) = first(multi_crop(data, grey)[0])
    assert views["global"].shape == (4, 2, 32, 32, 1)
    assert np.ptp(views["local"]) > 0.5


def pixels(seed=0, size=(9, 12)):
    return np.random.default_rng(seed).uniform(0, 255, (*size, 3)).astype("float32")


@pytest.mark.one_backend
def test_changes_of_colours_by_hand():
    image = pixels()
    grey = image @ np.float32([0.2989, 0.587, 0.114])
    expected = {
        "_brighten": image * 1.3,
        "_contrast": grey.mean() + (image - grey.mean()) * 1.3,
        "_saturate": grey[..., None] + (image - grey[..., None]) * 1.3,
        "_in_grey": np.repeat(grey[..., None], 3, axis=-1),
    }
    turned = []
    for color in image.reshape(-1, 3) / 255:
        hue, saturation, value = colorsys.rgb_to_hsv(*color)
        turned.append(colorsys.hsv_to_rgb((hue + 0.3) % 1, saturation, value))
    expected["_turn_hue"] = np.reshape(turned, image.shape) * 255
    for name, values in expected.items():
        draw = () if name == "_in_grey" else (0.3,)
        found = getattr(views_module, name)(tf.constant(image), *draw)
        np.testing.assert_allclose(found, np.clip(values, 0, 255), atol=2e-2, err_msg=name)


@pytest.mark.one_backend
@pytest.mark.parametrize("deviation", [0.1, 1.5, 2.0])
def test_blur_by_hand(deviation):
    image = pixels()
    weights = np.exp(-0.5 * (np.arange(-8, 9) / deviation) ** 2)
    expected = np.pad(image, ((8, 8), (8, 8), (0, 0)), "edge")
    for axis in (0, 1):
        smooth = np.apply_along_axis(np.convolve, axis, expected, weights, "valid")
        expected = smooth / weights.sum()
    np.testing.assert_allclose(views_module.blur(image, deviation), expected, atol=1e-3)


PLAIN = MultiCrop(
    global_area=(1.0, 1.0),
    flip=False,
    jitter=0.0,
    grey=0.0,
    global_blur=(0.0, 0.0),
    solarize=(0.0, 1.0),
)


@pytest.mark.one_backend
def test_the_second_global_view_alone_is_solarized():
    model = distilling()
    images = np.stack([pixels(i, (32, 32)) for i in range(2)]).astype("uint8")
    data = keras_vit.data.load((images, [0, 1])).prepared_for(
        model.encoder, batch_size=2, image_mean=None, image_std=None
    )
    (views,) = first(multi_crop(data, model, PLAIN.__class__(**{**PLAIN.__dict__, "crop_ratio": (1.0, 1.0)}))[0])  # fmt: skip
    plain, solarized = views["global"].swapaxes(0, 1)
    assert {image.tobytes() for image in plain} == {
        image.tobytes() for image in images.astype("float32")
    }
    np.testing.assert_array_equal(solarized, np.where(plain >= 128, 255 - plain, plain))


@pytest.mark.one_backend
def test_shares_of_the_views_are_the_papers():
    """The share in 2,000 images is within 5 deviations of its binomial."""
    flat = MultiCrop(global_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), grey=0.2, jitter=0.0)
    pipeline = keras_vit.data.Pipeline(image_size=(4, 4))
    make = views_module.Views(flat, pipeline, 0, (4, 4))
    image = tf.constant(pixels(1, (4, 4)))
    seeds = tf.stack([tf.zeros(2000, "int64"), tf.range(2000, dtype="int64")], axis=1)
    views = tf.map_fn(
        lambda seed: make(image, seed)["global"],
        seeds,
        fn_output_signature=tf.TensorSpec((2, 4, 4, 3), "float32"),
    ).numpy()
    grey = (np.ptp(views, axis=-1) < 1e-2).all((2, 3))  # (images, 2)
    for share in grey.mean(0):
        assert abs(share - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 2000)


def test_a_training_on_views_resumes_bit_for_bit(tmp_path):
    def trained(folder, epochs):
        model = distilling()
        model.compile(keras.optimizers.AdamW(0.01, clipnorm=3.0))
        data = loaded(model)
        train, validation = multi_crop(data, model)
        resume = [ExactResume(tmp_path / folder, data=data)] if folder else []
        options = {"steps_per_epoch": 2, "shuffle": False, "verbose": 0}
        log = model.fit(
            train,
            epochs=epochs,
            validation_data=validation,
            callbacks=resume,
            **options,
        ).history
        return model.get_weights(), {name: values[-1] for name, values in log.items()}

    trained("resume", 1)
    (resumed, log), (expected, same) = trained("resume", 2), trained(None, 2)
    for one, other in zip(resumed, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert log == same


@pytest.mark.one_backend
def test_settings_that_are_wrong():
    for field, value, message in (
        ("local_area", (0.4, 0.05), "pair .* up to 1"),
        ("blur_deviation", (0.1, 3.0), "up to 2"),
        ("solarize", 0.2, "pair|iterable"),
        ("jitter", 1.5, "`jitter` must be from 0 to 1"),
        ("hue", 0.6, "`hue` must be from 0 to 0.5"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            MultiCrop(**{field: value})
    model = distilling()
    data = loaded(model).with_pipeline(image_size=24)
    with pytest.raises(ValueError, match="Global views have the size of the encoder's"):
        multi_crop(data, model)
