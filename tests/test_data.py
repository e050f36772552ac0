"""Data sets from every source, as streams that are pure functions of seed and step."""

import csv
import io
import os
import socket
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import tiny
from PIL import Image, ImageEnhance, ImageOps
from prepared_tfds import serialized, write_prepared

import keras_vit.data
from keras_vit.data import Augmentation, Pipeline, load, load_images, read_image

PLAIN = Augmentation(crop="resize", flip=False, evaluation_crop="resize")
AS_IT_IS = {"image_mean": None, "image_std": None, "augmentation": PLAIN}

one_backend = pytest.mark.one_backend


def noise(height, width, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def batches(stream, count=None):
    """Batches as NumPy arrays: (images, labels)."""
    stream = stream if count is None else stream.take(count)
    return [(x.numpy(), y.numpy()) for x, y in stream]


def assert_same_batches(actual, expected):
    assert len(actual) == len(expected)
    for (images, labels), (expected_images, expected_labels) in zip(
        actual, expected, strict=True
    ):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


def numbered(count=10, size=4, classes=2):
    """Images of which each pixel is the image's number, and labels in turn."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.tile(images, (1, size, size, 3)), np.arange(count) % classes


def numbered_data(count=10, **fields):
    fields = {"image_size": 4, "batch_size": 4, **AS_IT_IS, **fields}
    return load(numbered(count), validation_split=0, **fields)


def write_images(folder, names, size=(20, 30)):
    """Image files of noise; a name without a suffix is of a class folder."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(*size, seed=i)).save(path)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of 6 images each, of several sizes, with odd names and clutter."""
    root = tmp_path_factory.mktemp("flowers")
    for label, name in enumerate(("daisy", "rose é", "tulip 郁")):
        for i in range(6):
            suffix = (".jpg", ".PNG", ".webp")[i % 3]
            write_images(root, [f"{name}/img {i}{suffix}"], (20 + i, 30 + label))
    for clutter in ("README.txt", ".DS_Store", "daisy/Thumbs.db", "daisy/.hidden.png"):
        (root / clutter).write_text("clutter")
    (root / "__MACOSX").mkdir()
    (root / ".git").mkdir()
    return root


# The order of examples


@one_backend
def test_the_order_is_a_permutation_by_seed_and_epoch():
    """Recomputed: batches go on from one epoch to the next, and have one size."""
    data = numbered_data(10, seed=3, label_mode="int")
    stream = batches(data.train, 10)
    assert {images.shape for images, _ in stream} == {(4, 4, 4, 3)}
    seen = np.concatenate([images[:, 0, 0, 0] for images, _ in stream]).astype(int)
    epochs = [
        np.random.RandomState(
            np.random.MT19937(np.random.SeedSequence([3, epoch]))
        ).permutation(10)
        for epoch in range(4)
    ]
    np.testing.assert_array_equal(seen, np.concatenate(epochs))
    np.testing.assert_array_equal(np.concatenate([y for _, y in stream]), seen % 2)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert data.steps_per_epoch == 3


@one_backend
def test_another_seed_is_another_stream():
    streams = [batches(numbered_data(seed=seed).train, 3) for seed in (0, 1, 2**63 - 1)]
    orders = [np.concatenate([x[:, 0, 0, 0] for x, _ in stream]) for stream in streams]
    assert len({tuple(order) for order in orders}) == 3


@one_backend
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(crop="random", mixup_alpha=0.2),
        Augmentation(crop="resize", cutmix_alpha=1.0, mixup_alpha=0.8),
        Augmentation(randaugment=(1, 15)),
    ],
    ids=("inception", "random, mixup", "resize, mixed", "randaugment"),
)
def test_a_stream_starts_anywhere_whatever_the_threads(augmentation):
    images = np.stack([noise(12, 16, seed=i) for i in range(7)])
    fields = {"image_size": (8, 10), "batch_size": 3, "augmentation": augmentation}
    data = load((images, np.arange(7) % 3), validation_split=0, **fields)
    keras.utils.set_random_seed(5)  # no global state takes part
    stream = batches(data.train, 12)
    keras.utils.set_random_seed(6)
    keras.config.set_dtype_policy("mixed_float16")
    for step, threads in ((0, 1), (5, 4)):
        rest = data.with_pipeline(num_parallel_calls=threads).train_from(step)
        assert_same_batches(batches(rest, 12 - step), stream[step:])
    assert np.isfinite([images for images, _ in stream]).all()
    assert not np.array_equal(stream[0][0], stream[7][0])  # the same three images


@one_backend
def test_two_streams_of_one_data_set_do_not_mix():
    data = numbered_data(5)
    stream, other = iter(data.train), iter(data.train_from(40))
    alternating = [(next(stream)[0].numpy(), next(other)[0].numpy()) for _ in range(8)]
    for i, expected in enumerate((batches(data.train, 8), batches(data.train_from(40), 8))):
        for pair, (images, _) in zip(alternating, expected, strict=True):
            np.testing.assert_array_equal(pair[i], images)


@one_backend
def test_evaluation_keeps_order_and_the_partial_batch(folder):
    data = load(folder, image_size=8, batch_size=4, validation_split=0.5, label_mode="int")
    stream = batches(data.validation)
    assert [len(images) for images, _ in stream] == [4, 4, 1]
    assert_same_batches(batches(data.evaluation("validation")), stream)
    labels = np.concatenate([labels for _, labels in stream])
    np.testing.assert_array_equal(labels, data.labels("validation"))
    assert labels.dtype == np.int32
    assert data.test is None
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'validation'"):
        data.evaluation("test")
    names = data.names("validation")
    decoded = data.images("validation", [0, 8])
    np.testing.assert_array_equal(decoded[1], read_image(names[8]))
    loaded = load_images(names[:4], data.pipeline)
    np.testing.assert_array_equal(loaded, stream[0][0])
    loaded = load_images([Path(names[0]).read_bytes(), decoded[0]], data.pipeline)
    np.testing.assert_array_equal(loaded, stream[0][0][[0, 0]])


@one_backend
def test_a_padded_evaluation_counts_every_image_once():
    data = numbered_data(10, batch_size=4)
    plain = batches(data.evaluation("train"))
    stream = data.evaluation("train", padded=True)
    padded = [[part.numpy() for part in batch] for batch in stream]
    assert [len(part) for batch in padded for part in batch] == [4] * 9
    for place in (0, 1):
        joined = np.concatenate([batch[place] for batch in padded])
        expected = np.concatenate([batch[place] for batch in plain])
        np.testing.assert_array_equal(joined[:10], expected)
        assert not joined[10:].any()
    weights = np.concatenate([batch[2] for batch in padded])
    np.testing.assert_allclose(weights, [1.2] * 10 + [0] * 2)


def test_load_images_refuses(folder):
    with pytest.raises(ValueError, match=r"`images` must be a list.*'a\.png'"):
        load_images("a.png", Pipeline())
    for array, shape in ((np.zeros((4, 4, 2)), "4, 4, 2"), (np.zeros(4), "1, 4")):
        with pytest.raises(ValueError, match=f"must have the shape.*{shape}"):
            load_images([array], Pipeline())
    assert load_images([np.zeros((4, 4), int)], Pipeline()).shape == (1, 224, 224, 3)
    with pytest.raises(ValueError, match="at least one image"):
        load_images([], Pipeline())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_images(["nowhere.png"], Pipeline())


# What images become


@one_backend
@pytest.mark.parametrize("size", [(12, 12), (8, 14)])
@pytest.mark.parametrize("image_shape", [(37, 61), (61, 37), (13, 12), (5, 7)])
def test_center_crop_is_resize_then_crop(image_shape, size):
    import tensorflow as tf

    image = noise(*image_shape)
    pipeline = Pipeline(image_size=size, image_mean=None, image_std=None)
    actual = load_images([image], pipeline)[0]
    height, width = image_shape
    small = [round(side * 448 / 384) for side in size]
    scale = max(small[0] / height, small[1] / width)
    resized = [round(height * scale), round(width * scale)]
    full = tf.image.resize(image, resized, antialias=True).numpy()
    top, left = (r - s for r, s in zip(resized, size, strict=True))
    top, left = top // 2, left // 2
    expected = full[top : top + size[0], left : left + size[1]]
    np.testing.assert_allclose(actual, expected, atol=1e-2)


@one_backend
@pytest.mark.parametrize("size", [(12, 12), (8, 14)])
@pytest.mark.parametrize("image_shape", [(37, 61), (61, 37), (13, 12), (5, 7)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area"])
@pytest.mark.parametrize("crop", ["center", "square", "resize"])
def test_evaluation_crops_by_other_programs(crop, interpolation, image_shape, size):
    """Pillow resizes bilinearly and bicubically, TensorFlow by area; then a slice."""
    import tensorflow as tf
    from PIL import Image

    image = noise(*image_shape)
    augmentation = Augmentation(
        evaluation_crop=crop, evaluation_interpolation=interpolation, resize_factor=1.5
    )
    pipeline = Pipeline(
        image_size=size, image_mean=None, image_std=None, augmentation=augmentation
    )
    actual = load_images([image], pipeline)[0]
    resized = [round(side * 1.5) for side in size] if crop != "resize" else list(size)
    if crop == "center":
        scale = max(r / side for r, side in zip(resized, image_shape, strict=True))
        resized = [round(side * scale) for side in image_shape]
    if interpolation == "area":
        full = tf.image.resize(image, resized, "area").numpy()
    else:
        filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
        planes = [
            Image.fromarray(image[..., i].astype("float32")).resize(
                resized[::-1], filters[interpolation]
            )
            for i in range(3)
        ]
        full = np.stack([np.asarray(plane) for plane in planes], -1).clip(0, 255)
    top, left = ((r - s) // 2 for r, s in zip(resized, size, strict=True))
    expected = full[top : top + size[0], left : left + size[1]]
    np.testing.assert_allclose(actual, expected, atol=2e-2)


@one_backend
def test_crops_for_training():
    """The pixels of the image tell their place."""
    rows, columns = np.mgrid[0:60, 0:80].astype("uint8")
    image = np.stack([rows, columns, np.zeros_like(rows)], -1)
    fields = {"image_size": 40, "batch_size": 1, "image_mean": None, "image_std": None}

    def crops(**augmentation):
        augmentation = Augmentation(flip=False, **augmentation)
        two = (np.stack([image, image]), [0, 1])
        data = load(two, validation_split=0, augmentation=augmentation, **fields)
        return [images[0] for images, _ in batches(data.train, 40)]

    corners = []
    for crop in crops(crop="random", resize_factor=1.25):
        # The small side of 60 becomes 50, so neighbours are 1.2 apart, in both directions.
        np.testing.assert_allclose(np.diff(crop[:, 5, 0])[1:-1], 1.2, atol=0.1)
        np.testing.assert_allclose(np.diff(crop[5, :, 1])[1:-1], 1.2, atol=0.1)
        corners.append(crop[0, 0, :2] / 1.2)
    corners = np.array(corners).round().astype(int)
    assert corners.min(0).tolist() <= [1, 2]
    assert (corners.max(0) >= [8, 22]).all()
    assert (corners.max(0) <= [10, 27]).all()
    corners = []
    for crop in crops(crop="square", resize_factor=1.25):
        # 60 × 80 becomes 50 × 50: neighbours are 1.2 and 1.6 apart.
        np.testing.assert_allclose(np.diff(crop[:, 5, 0])[1:-1], 1.2, atol=0.1)
        np.testing.assert_allclose(np.diff(crop[5, :, 1])[1:-1], 1.6, atol=0.15)
        corners.append(crop[0, 0, :2] / (1.2, 1.6))
    corners = np.array(corners).round().astype(int)
    assert (corners.min(0) <= 2).all()
    assert (corners.max(0) >= 8).all()
    assert (corners.max(0) <= 11).all()
    areas, ratios = [], []
    for crop in crops(crop="inception", crop_area=(0.2, 0.5), crop_ratio=(0.5, 2.0)):
        height = np.diff(crop[:, 0, 0])[19] * 40
        width = np.diff(crop[0, :, 1])[19] * 40
        areas.append(height * width / (60 * 80))
        ratios.append(width / height)
    assert 0.18 <= min(areas) < 0.3
    assert 0.4 < max(areas) <= 0.52
    assert 0.45 <= min(ratios) < 0.8
    assert 1.2 < max(ratios) <= 2.1


@one_backend
def test_every_second_image_is_mirrored():
    images = np.tile(np.array([0, 255], np.uint8)[:, None], (50, 2, 1, 3))
    augmentation = Augmentation(crop="resize")
    data = load(
        (images, np.arange(50) % 2),
        validation_split=0,
        **{**AS_IT_IS, "augmentation": augmentation},
        image_size=2,
        batch_size=50,
    )
    first, second = batches(data.train, 2)
    mirrored = [np.mean(x[:, 0, 0, 0] > x[:, 0, 1, 0]) for x, _ in (first, second)]
    assert all(0.25 < share < 0.75 for share in mirrored)
    assert not np.array_equal(first[0], second[0])


@one_backend
@pytest.mark.parametrize("crop", ["inception", "random", "square", "resize"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 3)])
def test_images_of_any_shape(crop, shape):
    """None of them needs memory beyond the image's own."""
    images = np.full((2, *shape, 3), 100, np.uint8)
    augmentation = Augmentation(crop=crop)
    fields = {"image_mean": None, "image_std": None, "augmentation": augmentation}
    data = load((images, [0, 1]), validation_split=0, image_size=16, **fields)
    np.testing.assert_allclose(batches(data.train, 1)[0][0], 100, atol=1e-3)
    np.testing.assert_allclose(load_images(list(images), data.pipeline), 100, atol=1e-3)


@one_backend
def test_value_range_channels_and_data_format():
    image = noise(6, 8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    fields = {"image_size": (6, 8), "augmentation": PLAIN}
    as_it_is = load_images([image], Pipeline(**{**AS_IT_IS, "image_size": (6, 8)}))
    np.testing.assert_array_equal(as_it_is[0], image)
    scaled = load_images([image], Pipeline(**fields))
    np.testing.assert_allclose(scaled[0], image / 127.5 - 1, atol=1e-6)
    by_channel = Pipeline(image_mean=mean, image_std=std, **fields)
    scaled = load_images([image], by_channel)
    np.testing.assert_allclose(scaled[0], (image / 255 - mean) / std, atol=1e-5)
    first = Pipeline(image_mean=mean, image_std=std, data_format="channels_first", **fields)
    np.testing.assert_array_equal(load_images([image], first), scaled.transpose(0, 3, 1, 2))


@one_backend
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, "`image_size` must be"),
        ({"channels": 4}, "`channels` must be one of 1, 3"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"label_mode": "binary"}, "`label_mode` must be one of"),
        ({"data_format": "NHWC"}, "`data_format` must be one of"),
        ({"image_mean": None}, "must be given together"),
        ({"image_std": 0}, "`image_std` must be positive"),
        ({"image_mean": (0.1, 0.2)}, "one for each of the 3 channels"),
        ({"num_parallel_calls": 0}, "`num_parallel_calls` must be"),
        (
            {"label_mode": "int", "augmentation": Augmentation(mixup_alpha=0.1)},
            "label_mode='categorical'",
        ),
        ({"seed": -1}, "`seed` must be an integer from 0"),
        ({"seed": 2**63}, "`seed` must be an integer from 0"),
        ({"bad_images": "ignore"}, "`bad_images` must be one of 'raise', 'skip'"),
        ({"validation_split": 1.0}, r"`validation_split` must be in \[0, 1\)"),
        ({"validation_split": 0.5, "test_split": 0.5}, "must leave examples to train on"),
        ({"splits": {"train": "a"}}, "Give arrays as a dictionary"),
        ({"splits": {"test": "a"}}, "`splits` must name 'train'"),
    ],
)
def test_load_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        load(numbered(), **fields)


@one_backend
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": "center"}, "`crop` must be one of"),
        ({"evaluation_crop": "random"}, "`evaluation_crop` must be one of"),
        (
            {"evaluation_interpolation": "nearest"},
            "`evaluation_interpolation` must be one of",
        ),
        ({"crop_area": (0.5, 0.2)}, "`crop_area` must be a pair"),
        ({"crop_area": (0.5, 2)}, "up to 1"),
        ({"crop_ratio": (0, 1)}, "`crop_ratio` must be a pair"),
        ({"resize_factor": 0.9}, "`resize_factor` must be 1 or more"),
        ({"mixup_alpha": -1}, "`mixup_alpha` must be positive"),
        ({"cutmix_alpha": float("nan")}, "`cutmix_alpha` must be positive"),
        ({"randaugment": (0, 10)}, "randaugment layers"),
        ({"randaugment": (2, -1)}, "`randaugment` must be a pair"),
    ],
)
def test_augmentation_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**fields)


# RandAugment, MixUp, CutMix


def pillow_operations(level):
    """The operations of which Pillow has the same, at level = magnitude / 10."""
    factor = 0.1 + 1.8 * level
    bits, threshold = min(int(4 * level), 8), int(256 * level)

    def affine(*coefficients):
        return lambda image: image.transform(
            image.size, Image.Transform.AFFINE, coefficients, fillcolor=(128,) * 3
        )

    return {
        "AutoContrast": ImageOps.autocontrast,
        "Equalize": ImageOps.equalize,
        "Invert": ImageOps.invert,
        "Posterize": lambda image: ImageOps.posterize(image, bits),
        "Solarize": lambda image: ImageOps.solarize(image, threshold),
        "Color": lambda image: ImageEnhance.Color(image).enhance(factor),
        "Brightness": lambda image: ImageEnhance.Brightness(image).enhance(factor),
        "Sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(factor),
        "Rotate": lambda image: image.rotate(30 * level, fillcolor=(128,) * 3),
        "ShearX": affine(1, 0.3 * level, 0, 0, 1, 0),
        "ShearY": affine(1, 0, 0, 0.3 * level, 1, 0),
        "TranslateX": affine(1, 0, -100 / 224 * level * 56, 0, 1, 0),
        "TranslateY": affine(1, 0, 0, 0, 1, -100 / 224 * level * 56),
    }


@pytest.mark.parametrize("magnitude", [3, 10])
def test_randaugment_operations_are_pillows(magnitude):
    import tensorflow as tf

    from keras_vit.data.randaugment import RandAugment

    smooth = Image.fromarray(noise(7, 7) // 2 + 40).resize((56, 56), Image.BICUBIC)
    images = tf.constant(np.asarray(smooth)[None], "float32")
    place = tf.constant(
        [0.7, 0.2]
    )  # in the positive direction; below the middle, to the left
    operations = RandAugment(2, magnitude).operations
    assert len(operations) == 16

    @tf.function  # as in `tf.data`, where Keras' backend has no part
    def apply_all(images):
        return {name: apply(images, place) for name, apply in operations.items()}

    results = {name: result.numpy() for name, result in apply_all(images).items()}
    for name, expected in pillow_operations(magnitude / 10).items():
        difference = np.abs(results[name][0] - np.asarray(expected(smooth), "float32"))
        # Values are floats here, and where pixels move, a few fall on the next one.
        assert np.quantile(difference, 0.9) <= 2.5, name
    for name, result in results.items():
        assert result.shape == images.shape, name
        assert 0 <= result.min() <= result.max() <= 255, name
    level = magnitude / 10
    cut = round(80 / 224 * level * 56)
    is_cut = (results["Cutout"] == 128).all(-1)[0]
    assert abs(is_cut.any(0).sum() - cut) <= 1
    assert is_cut[39].any()
    assert is_cut[:, 11].any()
    dark = images.numpy() < 128
    np.testing.assert_array_equal(results["SolarizeAdd"][~dark], images.numpy()[~dark])
    brighter = np.minimum(images.numpy()[dark] + int(110 * level), 255)
    np.testing.assert_array_equal(results["SolarizeAdd"][dark], brighter)
    factor = 0.1 + 1.8 * level
    mean = images.numpy().mean((1, 2), keepdims=True)
    expected = np.clip((images.numpy() - mean) * factor + mean, 0, 255)
    np.testing.assert_allclose(results["Contrast"], expected, atol=1e-2)


@one_backend
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 20, 30])
def test_randaugment_at_its_ends(magnitude, channels):
    """Magnitudes beyond those of the paper, and grey images; every operation occurs."""
    import tensorflow as tf

    from keras_vit.data.randaugment import RandAugment

    randaugment = tf.function(RandAugment(1, magnitude))
    image = tf.constant(noise(9, 11, channels), "float32")
    results = np.stack(
        [randaugment(image, tf.constant([1, i], "int64")).numpy() for i in range(40)]
    )
    assert results.shape == (40, 9, 11, channels)
    assert 0 <= results.min() <= results.max() <= 255
    assert len({result.tobytes() for result in results}) > 5


@one_backend
@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0])
def test_mixup(alpha):
    """Images of one value each: pixels and labels say the same weight."""
    augmentation = Augmentation(crop="resize", flip=False, mixup_alpha=alpha)
    fields = {**AS_IT_IS, "augmentation": augmentation, "image_size": 2, "batch_size": 4}
    images = np.full((4, 2, 2, 3), 60.0) * np.arange(1, 5)[:, None, None, None]
    data = load((images, np.arange(4)), validation_split=0, **fields)
    shares = []
    for mixed, labels in batches(data.train, 30):
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
        values = 60 * labels @ np.arange(1, 5)
        np.testing.assert_allclose(
            mixed, np.tile(values[:, None, None, None], (2, 2, 3)), rtol=1e-5
        )
        share = labels.max(1)
        np.testing.assert_allclose(share, share[0], atol=1e-6)  # one weight for all
        shares.append(share[0])
    assert min(shares) >= 0.5
    expected = {0.001: 1.0, 0.2: 0.9, 1.0: 0.75}[alpha]  # mean of max(λ, 1 − λ)
    assert abs(np.mean(shares) - expected) < 0.06


@one_backend
def test_cutmix():
    augmentation = Augmentation(crop="resize", flip=False, cutmix_alpha=1.0)
    fields = {**AS_IT_IS, "augmentation": augmentation, "image_size": (16, 20)}
    data = load(numbered(4, classes=4), validation_split=0, batch_size=4, **fields)
    shares = []
    for mixed, labels in batches(data.train, 30):
        for number in range(4):
            share = (mixed[..., 0] == number).mean((1, 2))
            np.testing.assert_allclose(labels[:, number], share, atol=1e-6)
        own = mixed[0, ..., 0]
        other = own != own[0, 0]  # a rectangle, or all but one
        for inside in (other, ~other):
            rows, columns = inside.any(1), inside.any(0)
            if (inside == np.outer(rows, columns)).all():
                break
        else:
            pytest.fail("what is exchanged is no rectangle")
        shares.append(labels.max(1)[0])
    assert len(set(shares)) > 20


@one_backend
def test_one_of_mixup_and_cutmix_by_batch():
    augmentation = Augmentation(
        crop="resize", flip=False, cutmix_alpha=1.0, mixup_alpha=1.0
    )
    fields = {**AS_IT_IS, "augmentation": augmentation, "image_size": 8}
    data = load(numbered(4, classes=4), validation_split=0, batch_size=4, **fields)
    kinds = [len(np.unique(images[0])) for images, _ in batches(data.train, 30)]
    assert 5 < sum(kind > 1 for kind in kinds) < 25


# Folders


@one_backend
def test_a_folder_of_classes(folder):
    data = load(folder, image_size=8)
    assert data.class_names == ("daisy", "rose é", "tulip 郁")
    assert data.num_examples == {"train": 15, "validation": 3}
    assert data.labels("validation").tolist() == [0, 1, 2]
    both = set(data.names("train")) | set(data.names("validation"))
    assert len(both) == 18
    assert repr(data) == (
        f"ImageData({folder.name!r}: 3 classes, train 15, validation 3; images of 8 × 8 × 3)"
    )
    assert load(folder).names("validation") == data.names("validation")
    others = [load(folder, seed=seed).names("validation") for seed in range(1, 5)]
    assert any(names != data.names("validation") for names in others)
    data = load(folder, validation_split=0.2, test_split=0.3)
    assert data.num_examples == {"train": 9, "validation": 3, "test": 6}
    assert not set(data.names("validation")) & set(data.names("test"))


@one_backend
@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_a_folder_of_splits(tmp_path, validation):
    names = [f"{s}/{c}/0.png" for s in ("train", validation, "test") for c in "ab"]
    data = load(write_images(tmp_path, [*names, "train/c/deep/er/1.png"]))
    assert data.class_names == ("a", "b", "c")
    assert data.num_examples == {"train": 3, "validation": 2, "test": 2}
    assert data.names("train")[2].endswith("1.png")


@one_backend
def test_other_folders_by_name(tmp_path):
    names = [f"{s}/{c}/0.png" for s in ("images/fit", "dev", "train") for c in "ab"]
    root = write_images(tmp_path, names)
    data = load(root, splits={"train": "images/fit", "test": "dev"})
    assert data.num_examples == {"train": 2, "test": 2}
    write_images(root / "images/fit", [f"{c}/{i}.png" for c in "ab" for i in range(4)])
    names = {"train": "images/fit"}
    assert load(root, splits=names).num_examples == {"train": 8}
    taken = load(root, splits=names, validation_split=0.25).num_examples
    assert taken == {"train": 6, "validation": 2}
    with pytest.raises(ValueError, match=r"each folder in it must be a split.*'images'"):
        load(root)
    with pytest.raises(FileNotFoundError, match="`splits` names a folder that does not"):
        load(root, splits={"train": "images/fit", "test": "nope"})
    write_images(tmp_path, ["s/train/a/0.png", "s/val/a/0.png", "s/valid/a/0.png"])
    with pytest.raises(ValueError, match="several folders for the split 'validation'"):
        load(tmp_path / "s")


@one_backend
def test_a_class_may_be_called_train(tmp_path):
    data = load(write_images(tmp_path, ["bus/0.png", "train/0.png"]), validation_split=0)
    assert data.class_names == ("bus", "train")


@one_backend
def test_links_are_followed_and_loops_are_not(tmp_path):
    write_images(tmp_path, ["elsewhere/0.png", "data/a/0.png"])
    os.symlink(tmp_path / "elsewhere", tmp_path / "data/b")
    os.symlink(tmp_path / "data/a", tmp_path / "data/a/loop")
    os.symlink(tmp_path / "data/a/0.png", tmp_path / "data/a/linked.png")
    data = load(tmp_path / "data", validation_split=0)
    assert data.num_examples == {"train": 3}


@one_backend
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/0.png"], "two classes or more to tell apart. Received: 'a' only"),
        (["0.png", "1.png"], r"in the folder of its class.*0\.png', and 1 more"),
        (["a/0.png", "b/notes.txt"], r"Every class needs an image.*/b'\. Remove.*1 \.txt"),
        (["notes.txt"], "a folder for each class"),
        (["train/a/0.png", "train/b/0.png", "val/c/0.png"], "'validation' only: 'c'"),
        (["train/a/0.png", "train/b/0.png", "test/0.png"], "the folder of its class"),
        (["train/a/0.png", "train/b/0.png", "train/0.png"], "the folder of its class"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, names, message):
    write_images(tmp_path, [name for name in names if name.endswith(".png")])
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@one_backend
def test_few_images(tmp_path, caplog):
    """One image of each class: it stays in training, and that is said."""
    data = load(write_images(tmp_path, ["a/0.png", "b/0.png"]), image_size=8)
    assert data.num_examples == {"train": 2}
    assert data.validation is None
    assert "no examples for validation" in caplog.text
    assert batches(data.train, 1)[0][0].shape == (32, 8, 8, 3)
    assert data.steps_per_epoch == 1
    write_images(tmp_path, [f"a/{i}.png" for i in range(4)])
    assert load(tmp_path).labels("validation").tolist() == [0]


@one_backend
def test_what_is_not_there():
    for source in ("nowhere/images", "nowhere.csv", "./nowhere"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load(source)


# CSV files


def write_csv(file, rows, encoding="utf-8"):
    with open(file, "w", newline="", encoding=encoding) as stream:
        csv.writer(stream).writerows(rows)
    return file


@one_backend
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv(folder, tmp_path, encoding):
    link = tmp_path / "images"
    link.symlink_to(folder)
    rows = [
        ("path", "note", "label"),
        ("images/daisy/img 0.jpg", 'a, "quoted"\nnote', "daisy, wild"),
        (folder / "rose é/img 1.PNG", "", "rosé"),
        ("images/daisy/img 1.PNG", "", "daisy, wild"),
    ]
    file = write_csv(tmp_path / "flowers.CSV", rows, encoding)
    data = load(file, validation_split=0, image_size=8, batch_size=2)
    assert data.name == "flowers"
    assert data.class_names == ("daisy, wild", "rosé")
    assert data.labels("train").tolist() == [0, 1, 0]
    assert len(batches(data.train, 2)) == 2


@one_backend
def test_csv_with_splits_and_numbers(folder, tmp_path):
    image = folder / "daisy/img 0.jpg"
    names = ("daisy/img 0.jpg", "rose é/img 1.PNG", "rose é/img 0.jpg", "daisy/img 1.PNG")
    others = [folder / name for name in names]
    parts = [(10, "train"), (9, "train"), (10, "fifth"), (9, "x")]
    rows = [(path, *part) for path, part in zip(others, parts, strict=True)]
    file = write_csv(tmp_path / "a.csv", [("file", "class", "part"), *rows])
    columns = {"image_column": "file", "label_column": "class", "split_column": "part"}
    with pytest.raises(
        ValueError, match=r"line 4: the column 'part' must be one of.*'fifth'"
    ):
        load(str(file), **columns)
    data = load(str(file), splits={"train": "train", "validation": "fifth"}, **columns)
    assert data.class_names == ("9", "10")
    assert data.num_examples == {"train": 2, "validation": 1}
    parts = [("a", "train"), ("b", "train"), ("b", "val")]
    rows = [(path, *part) for path, part in zip(others[:3], parts, strict=True)]
    file = write_csv(tmp_path / "b.csv", [("path", "label", "split"), *rows])
    assert load(file).num_examples == {"train": 2, "validation": 1}
    file = write_csv(
        tmp_path / "c.csv", [("path", "label", "split"), *rows, (image, "c", "test")]
    )
    with pytest.raises(ValueError, match="in 'test' only: 'c'"):
        load(file)
    file = write_csv(tmp_path / "d.csv", [("path", "label"), (image, "a"), (image, "b")])
    with pytest.raises(ValueError, match="must have a column 'split'"):
        load(file, splits={"train": "fit"})


@one_backend
@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "path,label\nhere.png,a\n\nnope.png,b\n",
            FileNotFoundError,
            r"line 4: .*nope\.png",
        ),
        ("file,label\nhere.png,a\n", ValueError, "column 'path'.*columns: 'file', 'label'"),
        ("path|label\nhere.png|a\n", ValueError, r"columns: 'path\|label'"),
        ("", ValueError, "must have a column 'path'"),
        ("path,label\n", ValueError, "must have rows to train on"),
        ("path,label\nhere.png\n", ValueError, "line 2 must have one value for each"),
        ("path,label\nhere.png,\n", ValueError, "line 2 must have one value for each"),
        ("path,label\nhere.png,a,b\n", ValueError, "line 2 must have one value for each"),
        ("path,label\nhere.png,é\n", ValueError, "must be a CSV file in UTF-8"),
        ("path,label\nhere.png,a\nhere.png,a\n", ValueError, "two classes or more"),
    ],
)
def test_csv_files_that_are_no_data_set(tmp_path, text, error, message):
    write_images(tmp_path, ["here.png"])
    (tmp_path / "a.csv").write_text(text, encoding="latin-1")
    with pytest.raises(error, match=message):
        load(tmp_path / "a.csv")


# Arrays


@one_backend
def test_arrays_of_every_kind():
    grey = np.stack([noise(6, 6, 1, seed=i) for i in range(6)])
    labels = np.array(["b", "a", "c"] * 2)
    fields = {"image_size": 6, "validation_split": 0, **AS_IT_IS}
    data = load((grey[..., 0], labels), **fields)
    assert data.class_names == ("a", "b", "c")
    assert data.labels("train").tolist() == [1, 0, 2] * 2
    expected = np.tile(grey, (1, 1, 1, 3))
    np.testing.assert_array_equal(data.images("train", range(6)), expected)
    for images in (
        grey.astype("float32"),
        grey.astype("int64"),
        grey[..., 0].astype(float),
    ):
        one_hot = np.eye(3)[data.labels("train")]
        same = load((images, one_hot), **fields)
        np.testing.assert_array_equal(same.labels("train"), data.labels("train"))
        assert_same_batches(batches(same.train, 2), batches(data.train, 2))
    assert data.names("train")[4] == "[4]"


@one_backend
def test_arrays_of_one_and_four_channels():
    color = np.stack([noise(6, 6, 4, seed=i) for i in range(2)])
    fields = {"image_size": 6, "validation_split": 0, "alpha": "white", **AS_IT_IS}
    for images in (color, color.astype("float32"), color.astype("int64")):
        data = load((images, [0, 1]), **fields)
        for actual, rgba in zip(data.images("train", [0, 1]), color, strict=True):
            file = io.BytesIO()
            Image.fromarray(rgba).save(file, "PNG")
            expected = read_image(file.getvalue()).astype(int)
            assert np.abs(actual - expected).max() <= 1
        grey = data.with_pipeline(channels=1)
        assert batches(grey.train, 1)[0][0].shape == (32, 6, 6, 1)
        expected = np.asarray(Image.fromarray(data.images("train", [1])[0]).convert("L"))
        actual = grey.images("train", [1])[0][..., 0].astype(int)
        assert np.abs(actual - expected).max() <= 1


@one_backend
def test_arrays_by_split():
    images, labels = numbered(10, classes=4)
    splits = {"test": (images[8:], labels[8:]), "train": (images[:8], labels[:8])}
    data = load(splits, validation_split=0.5)
    assert data.num_examples == {"train": 4, "validation": 4, "test": 2}
    assert tuple(data.splits) == ("train", "validation", "test")
    splits["test"] = (images[:1], [4])
    with pytest.raises(ValueError, match="in 'test' only: 4"):
        load(splits)
    splits["test"] = (images[:1], ["a"])
    with pytest.raises(ValueError, match="strings in every split, or in none"):
        load(splits)
    with pytest.raises(ValueError, match="keys: \\['test', 'val'\\]"):
        load({"val": 0, "test": 1})


@one_backend
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 3)) + 0.5, [0, 1], "scale of 0 to 1.*Multiply them by 255"),
        (np.full((2, 4, 4, 3), np.nan), [0, 1], "Received: values from nan to nan"),
        (np.full((2, 4, 4, 3), -1), [0, 1], "from 0 to 255. Received: values from -1"),
        (np.full((2, 4, 4, 3), 256), [0, 1], "to 256"),
        (np.zeros((2, 4, 4, 2)), [0, 1], r"Received: \(2, 4, 4, 2\)"),
        (np.zeros((0, 4, 4, 3)), [], r"Received: \(0, 4, 4, 3\)"),
        (np.zeros((2, 4, 4), complex), [0, 1], "an array of complex128"),
        (np.zeros((2, 4, 4)), [0, 1, 1], "2 images and 3 labels"),
        (np.zeros((2, 4, 4)), [0, 0], "two classes or more"),
        (np.zeros((2, 4, 4)), [0, 2], "There is none of: '1'"),
        (np.zeros((2, 4, 4)), [-1, 0], "integers from 0. Received: -1"),
        (np.zeros((2, 4, 4)), [0.5, 1.0], "Received: an array of float64"),
        (np.zeros((2, 4, 4)), [[0.5, 0.5], [0, 1]], "each row must be one-hot"),
        (np.zeros((2, 4, 4)), [[1, 1], [0, 1]], "each row must be one-hot"),
    ],
)
def test_arrays_that_are_no_data_set(images, labels, message):
    with pytest.raises(ValueError, match=message):
        load((images, labels))
    with pytest.raises(ValueError, match="must be a pair"):
        load({"train": images})


# TensorFlow Datasets


def write_tfds(folder, file_format="tfrecord", shards=(30, 20), features=None, label=None):
    """A prepared data set "tiny_flowers" with a train and a test split."""
    import tensorflow_datasets as tfds

    features = features or {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["daisy", "rose"]),
    }
    features = tfds.features.FeaturesDict(features)

    def record(shard, i):
        image = np.full((9, 8, 3), i + 30 * shard, np.uint8)
        example = {"image": image, "label": i % 2 if label is None else label}
        return serialized(features, example)

    splits = {
        split: [[record(k, i) for i in range(length)] for k, length in enumerate(lengths)]
        for split, lengths in (("train", shards), ("test", (6,)))
    }
    name = "tiny_flowers"
    return write_prepared(folder, name, features, splits, file_format=file_format)


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_tfds(folder)
    return folder


@one_backend
def test_tfds(tfds_folder):
    """Its own splits, the last 2 % for validation, and every example once an epoch."""
    fields = {"image_size": 4, "batch_size": 10, "label_mode": "int", **AS_IT_IS}
    data = load("tiny_flowers", data_dir=tfds_folder, **fields)
    assert data.name == "tiny_flowers/1.2.3"
    assert data.class_names == ("daisy", "rose")
    assert data.num_examples == {"train": 49, "validation": 1, "test": 6}
    assert data.names("validation") == ["tiny_flowers-train.tfrecord-00001-of-00002__19"]
    assert data.labels("test").tolist() == [0, 1, 0, 1, 0, 1]
    assert data.images("train", [48])[0][0, 0, 0] == 48
    assert int(batches(data.validation)[0][0][0, 0, 0, 0]) == 49
    stream = batches(data.train, 10)
    assert_same_batches(batches(data.train_from(6), 4), stream[6:])
    seen = np.concatenate([x[:, 0, 0, 0] for x, _ in stream]).round()
    assert sorted(seen[:49]) == sorted(seen[49:98]) == list(range(49))
    assert seen[:49].tolist() != seen[49:98].tolist()
    labels = np.concatenate([y for _, y in stream])
    np.testing.assert_array_equal(labels, seen % 30 % 2)


@one_backend
def test_tfds_splits(tfds_folder):
    names = {"train": "train[:50%]+test", "validation": "train[50%:60%]"}
    data = load("tiny_flowers:1.2.3", data_dir=tfds_folder, splits=names)
    assert data.num_examples == {"train": 31, "validation": 5}
    assert data.images("validation", [4])[0][0, 0, 0] == 29
    data = load("tiny_flowers", data_dir=tfds_folder, validation_split=0.5)
    assert data.num_examples == {"train": 25, "validation": 25, "test": 6}
    with pytest.raises(ValueError, match="takes no `validation_split`"):
        load("tiny_flowers", data_dir=tfds_folder, splits=names, validation_split=0.1)
    with pytest.raises(ValueError, match=r"Received: 'dev'. There are: train, test"):
        load("tiny_flowers", data_dir=tfds_folder, splits={"train": "dev"})
    with pytest.raises(ValueError, match="'train\\[:1%\\]' of.*has no example"):
        load("tiny_flowers", data_dir=tfds_folder, splits={"train": "train[:1%]"})


@one_backend
def test_tfds_in_array_records_is_the_same(tfds_folder, tmp_path):
    write_tfds(tmp_path, "array_record")
    folders = (tfds_folder, tmp_path)
    data, same = (load("tiny_flowers", data_dir=f, image_size=8) for f in folders)
    assert_same_batches(batches(same.train, 2), batches(data.train, 2))


@one_backend
def test_tfds_that_cannot_be_had(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    with pytest.raises(
        FileNotFoundError, match="neither a file or folder 'tiny_flower' here"
    ):
        load("tiny_flower", data_dir=tmp_path)

    def no_network(builder):
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    with pytest.raises(RuntimeError, match=r"could not prepare 'cifar10'.*`data_dir`"):
        load("cifar10", data_dir=tmp_path)


@one_backend
def test_tfds_in_another_version(tmp_path, caplog, monkeypatch):
    """The prepared version is used, and nothing downloaded."""
    import tensorflow_datasets as tfds

    def downloads(builder):
        raise AssertionError

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", downloads)
    info = tfds.builder("cifar10", data_dir=tmp_path).info
    image = np.zeros((32, 32, 3), "uint8")
    records = [
        serialized(info.features, {"id": f"{i}", "image": image, "label": i % 10})
        for i in range(60)
    ]
    splits = {"train": [records], "test": [records[:5]]}
    write_prepared(tmp_path, "cifar10", info.features, splits, version="2.9.9")
    data = load("cifar10", data_dir=tmp_path)
    assert data.name == "cifar10/2.9.9"
    assert f"would prepare {info.full_name}. Used is cifar10/2.9.9" in caplog.text
    assert load("cifar10:2.9.9", data_dir=tmp_path).name == "cifar10/2.9.9"
    with pytest.raises(ValueError, match=r"'cifar10:2\.0\.0'.*only: 3"):
        load("cifar10:2.0.0", data_dir=tmp_path)


@one_backend
def test_tfds_offline(tfds_folder, tmp_path, monkeypatch):
    """Prepared data is read; nothing is asked of the network, not even a name."""
    import tensorflow_datasets as tfds

    def no_network(*arguments, **options):
        pytest.fail("the network is asked")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    monkeypatch.setattr(tfds.core.load.community, "community_register", no_network)
    builders = tfds.core.dataset_builders.huggingface_dataset_builder
    monkeypatch.setattr(builders, "builder", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("KERAS_VIT_OFFLINE", "1")
    names = {"train": "train"}
    assert len(
        load("tiny_flowers:1.2.3", data_dir=tfds_folder, splits=names).labels("train")
    )
    with pytest.raises(RuntimeError, match="'cifar10'.*KERAS_VIT_OFFLINE forbids"):
        load("cifar10", data_dir=tmp_path)
    for name in ("huggingface:mnist", "kaggle:mnist/plain:1.0.0", "tiny_flower"):
        with pytest.raises(FileNotFoundError, match="neither a file or folder"):
            load(name, data_dir=tmp_path)
    with pytest.raises(ValueError, match="KERAS_VIT_OFFLINE forbids.*'gs://bucket"):
        load("tiny_flowers", data_dir="gs://bucket/datasets")


@one_backend
def test_tfds_that_does_not_fit(tmp_path):
    import tensorflow_datasets as tfds

    text = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.Text(),
    }
    write_tfds(tmp_path / "text", features=text, label="daisy")
    with pytest.raises(ValueError, match="an image and a label of one class"):
        load("tiny_flowers", data_dir=tmp_path / "text")
    write_tfds(tmp_path / "none", label=-1)
    data = load("tiny_flowers", data_dir=tmp_path / "none")
    with pytest.raises(ValueError, match="__0 has no label"):
        data.labels("test")
    folder = write_tfds(tmp_path / "cut")
    file = next(folder.glob("*train*00001-of*"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match="ends within a record"):
        load("tiny_flowers", data_dir=tmp_path / "cut")
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="must hold 20 examples and holds 0"):
        load("tiny_flowers", data_dir=tmp_path / "cut")


# Decoding


# Labels that count in names given beside them.


@one_backend
def test_class_names_of_a_folder(folder, tmp_path):
    names = ("tulip 郁", "oak", "rose e\u0301", "daisy")  # é in its other spelling
    data = load(folder, class_names=names, validation_split=0)
    assert data.class_names == names
    found = [Path(name).parent.name for name in data.names("train")]
    places = {"daisy": 3, "rose é": 2, "tulip 郁": 0}
    assert data.labels("train").tolist() == [places[name] for name in found]
    one = write_images(tmp_path, ["daisy/0.png", "daisy/1.png"])
    (one / "rose é").mkdir()
    data = load(one, class_names=names, validation_split=0)
    assert data.labels("train").tolist() == [3, 3]
    with pytest.raises(ValueError, match="Unknown: 'rose é', 'tulip 郁', in .* 'daisy'"):
        load(folder, class_names=("daisy", "oak"))
    with pytest.raises(ValueError, match="Several classes .* name: 'daisy'"):
        load(one, class_names=("daisy", "oak", "daisy"))
    # The same names are the same data.
    same = load(folder, class_names=load(folder).class_names)
    assert same.fingerprint == load(folder).fingerprint


@one_backend
def test_class_names_of_tables_and_splits(folder, tmp_path):
    """A split may have classes that `train` has not, or there is no `train`."""
    image = next(folder.glob("*/*.jpg"))
    rows = [["path", "label", "split"]] + [[image, k, "test"] for k in ("12", "3", "12")]
    write_csv(tmp_path / "a.csv", rows)
    data = load(tmp_path / "a.csv", class_names=("3", "5", "12"))
    assert data.num_examples == {"test": 3}
    assert data.labels("test").tolist() == [2, 0, 2]
    splits = write_images(tmp_path / "x", ["train/a/0.png", "test/b/0.png"])
    data = load(splits, class_names=("b", "a"), validation_split=0)
    assert {s: data.labels(s).tolist() for s in data.splits} == {"train": [1], "test": [0]}


@one_backend
def test_class_names_of_arrays(tfds_folder):
    images, _ = numbered(3)
    data = load((images, [2, 0, 2]), class_names="abc", validation_split=0)
    assert (data.class_names, data.labels("train").tolist()) == (("a", "b", "c"), [2, 0, 2])
    data = load((images, ["c", "a", "c"]), class_names="abc", validation_split=0)
    assert data.labels("train").tolist() == [2, 0, 2]
    with pytest.raises(ValueError, match="Labels must be from 0 to 1.* Received: 2"):
        load((images, [2, 0, 2]), class_names="ab")


@one_backend
def test_class_names_of_tfds(tfds_folder):
    plain = load("tiny_flowers", data_dir=tfds_folder)
    turned = load("tiny_flowers", data_dir=tfds_folder, class_names=plain.class_names[::-1])
    last = plain.num_classes - 1
    for split in plain.splits:
        expected = last - plain.labels(split)
        np.testing.assert_array_equal(turned.labels(split), expected)
        assert turned.splits[split].read(0, 3)[1] == expected[0]


def encoded(image, image_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


@one_backend
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    upright = Image.fromarray(noise(4, 6))
    stored = {  # how a camera held that way writes the same picture
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image = upright if stored is None else upright.transpose(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    actual = read_image(encoded(image, exif=exif))
    np.testing.assert_array_equal(actual, np.asarray(upright))


@one_backend
def test_modes_of_images():
    color = Image.fromarray(noise(8, 10))
    grey = Image.fromarray(noise(8, 10, 1)[..., 0])
    expected = np.repeat(np.asarray(grey)[..., None], 3, -1)
    np.testing.assert_array_equal(read_image(encoded(grey)), expected)
    np.testing.assert_array_equal(read_image(encoded(grey), 1), expected[..., :1])
    luma = np.asarray(color.convert("L"))[..., None]
    np.testing.assert_array_equal(read_image(encoded(color), channels=1), luma)
    # 16 bits: each value twice, as a byte and the same byte again, is the 8-bit image
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for image_format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read_image(encoded(deep, image_format)), expected)
    palette = color.quantize(8)
    np.testing.assert_array_equal(
        read_image(encoded(palette)), np.asarray(palette.convert("RGB"))
    )
    bits = grey.convert("1")
    np.testing.assert_array_equal(
        read_image(encoded(bits), 1)[..., 0], np.asarray(bits.convert("L"))
    )
    smooth = color.resize((64, 64), Image.BICUBIC)
    cmyk = encoded(smooth.convert("CMYK"), "JPEG", quality=95)
    assert np.abs(read_image(cmyk).astype(int) - np.asarray(smooth)).mean() < 5
    flat = Image.fromarray(np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="mode 'F'.*the value of white is unknown"):
        read_image(encoded(flat, "TIFF"))


@one_backend
def test_alpha_is_laid_over_white():
    rgba = noise(4, 4, 4)
    rgba[0, 0], rgba[0, 1] = (10, 20, 30, 0), (10, 20, 30, 255)
    pixels = read_image(encoded(Image.fromarray(rgba)))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 1].tolist() == [10, 20, 30]
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(pixels - expected).max() <= 1
    grey = Image.fromarray(rgba[..., 2:])
    assert grey.mode == "LA"
    assert read_image(encoded(grey), channels=1)[0, 0] == 255
    palette = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)).convert("P")
    transparent = read_image(encoded(palette, transparency=1))
    assert transparent[0, 1].tolist() == [255, 255, 255]
    assert transparent[1, 1].max() < 10
    by_value = read_image(
        encoded(Image.fromarray(rgba[..., :3]), transparency=(10, 20, 30))
    )
    assert by_value[0, 0].tolist() == [255, 255, 255]


@one_backend
@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_of_many(image_format):
    frames = [Image.fromarray(np.full((4, 4, 3), v, np.uint8)) for v in (40, 200)]
    many = encoded(frames[0], image_format, save_all=True, append_images=frames[1:])
    assert abs(int(read_image(many).mean()) - 40) <= 2


@one_backend
def test_damaged_images(tmp_path):
    whole = encoded(Image.fromarray(noise(64, 64)), "JPEG")
    cases = {
        "cut.jpg": whole[:-200],
        "cut.png": encoded(Image.fromarray(noise(64, 64)))[:-200],
        "empty.png": b"",
        "text.png": b"<html>404</html>",
        "header.jpg": whole[:20],
    }
    for name, contents in cases.items():
        path = tmp_path / name
        path.write_bytes(contents)
        with pytest.raises(ValueError, match=f"Cannot read the image '.*{name}'"):
            read_image(path)
    with pytest.raises(ValueError, match="'an image of 16 bytes'"):
        read_image(b"<html>404</html>")
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="`channels` must be one of 1, 3"):
        read_image(whole, channels=4)


@pytest.fixture
def damaged(tmp_path):
    """8 whole images, one cut off, and three that show it at once."""
    write_images(tmp_path, [f"{c}/{i}.jpg" for c in "ab" for i in range(4)], (90, 90))
    (tmp_path / "a/cut.jpg").write_bytes((tmp_path / "a/0.jpg").read_bytes()[:2000])
    (tmp_path / "a/empty.jpg").touch()
    (tmp_path / "b/text.png").write_text("text")
    (tmp_path / "b/gone.png").symlink_to("/nowhere")
    return tmp_path


@one_backend
def test_damaged_files_are_listed_or_left_out(damaged, caplog):
    with pytest.raises(ValueError, match="3 of 12 images cannot") as error:
        load(damaged)
    for name in ("empty.jpg", "text.png", "gone.png"):
        assert name in str(error.value)
    data = load(damaged, bad_images="skip", validation_split=0)
    assert data.num_examples == {"train": 8}
    assert len(caplog.records) == 1
    for name in ("cut.jpg", "empty.jpg", "text.png", "gone.png"):
        assert name in caplog.text
    for i in range(4):
        (damaged / f"b/{i}.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="images to train on. There is none of: 'b'"):
        load(damaged, bad_images="skip")
    with pytest.raises(ValueError, match="7 of 12"):
        load(damaged)
    for i in range(9):
        (damaged / f"b/x{i}.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"(?s)16 of 21.*and 6 more"):
        load(damaged)


# Models


def test_fit_names_the_image_that_is_cut_off(damaged):
    import tensorflow as tf

    for name in ("a/empty.jpg", "b/text.png", "b/gone.png"):
        (damaged / name).unlink()
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    data = load(damaged, image_size=8, batch_size=9, validation_split=0)
    model.compile("sgd", "mse")
    message = r"Cannot read the image .*a/cut\.jpg.*bad_images="
    with pytest.raises(tf.errors.OpError, match=message):
        model.fit(data.train, steps_per_epoch=1, shuffle=False, verbose=0)


@pytest.mark.parametrize(
    "data_format", ["channels_last", pytest.param("channels_first", marks=one_backend)]
)
def test_a_model_is_trained_and_evaluated(folder, data_format):
    """The same images and labels arrive whatever the backend, shapes and range fit."""
    model = keras_vit.VisionTransformer(
        (16, 24),
        patch_size=8,
        hidden_dim=8,
        num_layers=1,
        num_heads=2,
        mlp_dim=8,
        classes=3,
        data_format=data_format,
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
    )
    data = load(folder, batch_size=6, validation_split=0.34).prepared_for(model)
    assert data.pipeline.image_mean == (0.485, 0.456, 0.406)
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        data.train,
        steps_per_epoch=data.steps_per_epoch,
        epochs=2,
        validation_data=data.validation,
        shuffle=False,
        verbose=0,
    )
    assert np.isfinite(history.history["val_loss"]).all()
    predictions = model.predict(data.validation, verbose=0)
    assert len(predictions) == data.num_examples["validation"] == 6
    images = load_images(data.names("validation"), data.pipeline)
    alone = model.predict(images, verbose=0)
    np.testing.assert_allclose(predictions, alone, atol=1e-6)


@one_backend
def test_configured_for_models_of_other_kinds():
    data = load(numbered(), validation_split=0, label_mode="int")
    model = tiny(include_preprocessing=True, input_shape=(32, 32, 1), image_mean=0.1)
    pipeline = data.prepared_for(model, batch_size=2).pipeline
    assert pipeline == Pipeline(
        image_size=32,
        channels=1,
        batch_size=2,
        label_mode="int",
        image_mean=None,
        image_std=None,
    )
    model = keras_vit.BiTResNet(32, (1,), 0.5, classes=2)
    pipeline = data.prepared_for(model).pipeline
    assert (pipeline.image_size, pipeline.image_mean) == ((32, 32), 0.5)
    assert data.pipeline.image_size == (224, 224)


# What identifies a data set


@one_backend
def test_fingerprint(folder, tfds_folder, tmp_path):
    import shutil

    data = load(folder)
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    assert load(copy).fingerprint == data.fingerprint
    assert data.with_pipeline(batch_size=1).fingerprint == data.fingerprint
    assert load(copy, validation_split=0).fingerprint != data.fingerprint
    assert load(copy, test_split=0.2).fingerprint != data.fingerprint
    (copy / "daisy/img 0.jpg").rename(copy / "daisy/img 9.jpg")
    assert load(copy).fingerprint != data.fingerprint
    images, labels = numbered()
    prints = {load((images, labels)).fingerprint for _ in range(2)}
    images = images.copy()
    images[3, 0, 0, 0] += 1
    prints |= {load((images, labels)).fingerprint, load((images, 1 - labels)).fingerprint}
    for splits in ({"train": "train"}, {"train": "train[:9%]"}, {"train": "test"}):
        tfds = load("tiny_flowers", data_dir=tfds_folder, splits=splits)
        prints.add(tfds.fingerprint)
    assert len(prints) == 6


# The packages behind it


@one_backend
@pytest.mark.parametrize(
    ("module", "fields"),
    [
        ("tensorflow_datasets", {"source": "cifar10"}),
        ("keras_cv.layers", {"augmentation": Augmentation(randaugment=(2, 10))}),
    ],
)
def test_a_missing_package_is_named(monkeypatch, module, fields):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'keras-vit\[data\]'"):
        load(**{"source": numbered(), **fields}).train  # noqa: B018
