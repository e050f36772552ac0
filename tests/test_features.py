"""Features of data sets: equal to `predict`, cached by what decides them, resumed."""

import gc
import os
import shutil
import signal
import threading
import time
import weakref

import keras
import numpy as np
import pytest
from helpers import array, assert_close, images, randomize, tiny
from PIL import Image
from prepared_tfds import serialized, write_prepared

import keras_vit
from keras_vit.data import Augmentation
from keras_vit.evaluation import batches, extract_features, feature_files, features
from keras_vit.evaluation.feature_files import FeatureCache, Features, FeatureWriter
from keras_vit.evaluation.feature_key import feature_key
from keras_vit.evaluation.vector_model import vector_model

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (21, 32, 32, 3)).astype("uint8")
LABELS = np.arange(21) % 3
FILES = [feature_files.FEATURES, feature_files.LABELS, feature_files.RECORD]


def peer(width=5):
    """A small model of Keras alone, of the same weights each time; it is soon compiled."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3), name="images")
    hidden = keras.layers.Conv2D(4, 8, 8, activation="relu")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D(name="mean")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(width, name="scores")(pooled))
    return randomize(model)


def loaded(pixels=PIXELS, labels=LABELS, **pipeline):
    fields = {"image_size": 32, "batch_size": 8, **pipeline}
    return keras_vit.data.load(
        (pixels, labels), validation_split=0.0, duplicates="keep", **fields
    )


def folder_of(path, number=12):
    """A folder of images of three classes."""
    for i in range(number):
        (path / f"class {i % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[i]).save(path / f"class {i % 3}" / f"{i}.png")
    return path


def extract(model, data, *args, **options):
    return extract_features(model, data, *args, verbose=0, **options)


def predicted(model, data, split="train"):
    return model.predict(data.evaluation(split), verbose=0)


def test_features_are_what_predict_gives_in_the_order_of_the_data(tmp_path):
    model = tiny(pooling="gap", num_registers=1)
    data = keras_vit.data.load(folder_of(tmp_path / "data"), validation_split=0.0)
    data = data.with_pipeline(batch_size=5)
    pooled = keras.Model(model.input, model.get_layer("pooling").output)
    expected = predicted(pooled, data.prepared_for(model))
    found = extract(model, data)
    np.testing.assert_array_equal(found.features, expected)
    np.testing.assert_array_equal(found.labels, [0] * 4 + [1] * 4 + [2] * 4)
    assert found.features.dtype == np.float32
    assert found.labels.dtype == np.int32
    assert found.class_names == ("class 0", "class 1", "class 2")
    assert len(found) == 12
    # A path, whose images are prepared as the model says, and the stream of the same.
    for other in (tmp_path / "data", data.prepared_for(model).evaluation("train")):
        again = extract(model, other, batch_size=5)
        np.testing.assert_array_equal(again.features, expected)
        np.testing.assert_array_equal(again.labels, found.labels)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "options",
    [
        {"distilled": True},
        {"distilled": True, "classes": 0},
        {"pooling": "gap", "fc_norm": True, "classes": 0},
        {"pooling": "token_gap", "merged_tokens": 3},
        {"pooling": "map", "input_shape": (None, None, 3)},
        {"representation_size": 8, "dtype": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_pooled_features_are_those_that_the_model_names_so(options):
    model = tiny(**options)
    expected = model.features(images())["pooled"]
    tolerance = 1e-2 if "dtype" in options else 1e-5
    assert_close(vector_model(model, "pooled")(images()), expected, tolerance)


@pytest.mark.one_backend
@pytest.mark.parametrize("model", ["BiTResNet", "EfficientNet"])
def test_the_resnets_have_pooled_features(model):
    sizes = {"num_units": (1,)} if model == "BiTResNet" else {"num_blocks": (1,) * 7}
    model = getattr(keras_vit, model)(32, **sizes, width_factor=0.5, classes=3)
    layer = model.get_layer("pooling")
    assert vector_model(model, "pooled").output is layer.output
    assert vector_model(model, "head").output is model.output


def test_any_keras_model_and_any_layer_that_gives_a_vector():
    model, data = peer(), loaded()
    np.testing.assert_array_equal(extract(model, data).features, predicted(model, data))
    mean = keras.Model(model.input, model.get_layer("mean").output)
    found = extract(model, data, "mean")
    np.testing.assert_array_equal(found.features, predicted(mean, data))

    class Subclass(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = model

        def call(self, x):
            return self.inner(x)

    found = extract(Subclass(), data)
    np.testing.assert_array_equal(found.features, predicted(model, data))


def test_a_second_pass_compiles_nothing(monkeypatch):
    model, data, traced = peer(), loaded(), []
    pooling = type(model.get_layer("mean"))
    original = pooling.call

    def call(self, *args, **named):
        traced.append(self.name)
        return original(self, *args, **named)

    monkeypatch.setattr(pooling, "call", call)
    first = extract(model, data, "mean").features.copy()
    count = len(traced)
    model.layers[1].kernel.assign(2 * model.layers[1].kernel)
    again = extract(model, data, "mean").features
    assert np.abs(again - first).max() > 0.1  # of the weights of today
    if keras.backend.backend() != "torch":  # which calls the layer for each batch
        assert len(traced) == count


@pytest.mark.one_backend
def test_models_of_vectors_are_as_their_model_is_now():
    model = peer()
    before = vector_model(model, "mean")
    assert vector_model(model, "mean") is before
    model.run_eagerly = True
    assert vector_model(model, "mean").run_eagerly
    model.layers[-1].enable_lora(2)
    assert vector_model(model, "mean") is not before
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None


def test_half_precision_gives_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, data = peer(), loaded()
    found = extract(model, data, "mean")
    expected = keras.Model(model.input, model.get_layer("mean").output)
    expected = predicted(expected, data).astype("float32")
    assert found.features.dtype == np.float32
    np.testing.assert_array_equal(found.features, expected)


def test_what_gives_no_vector_is_refused():
    vit = tiny(pooling=None, classes=0)
    two = keras.Input((3,)), keras.Input((3,))
    for model, layer, message in (
        (vit, "pooled", "need a pooling"),
        (vit, "block_1", r"one vector.*\(None, 17, 48\)"),
        (vit, "block_7", "must be 'pooled' or one of 'images', 'patch_embedding'"),
        (keras.Model(two, keras.layers.Add()(two)), "pooled", "images alone"),
        (keras.Sequential([keras.layers.Flatten()]), "flatten", "functional"),
        (np.mean, "pooled", "must be a keras.Model"),
    ):
        with pytest.raises(ValueError, match=message):
            extract(model, loaded(), layer)
    with pytest.raises(ValueError, match="one vector"):
        extract(keras.Sequential([keras.layers.ReLU()]), loaded())


def test_streams_of_batches(tmp_path):
    whole = Augmentation(evaluation_crop="resize")
    model, data = peer(), loaded(image_mean=None, image_std=None, augmentation=whole)
    expected = predicted(model, data)
    parts = [slice(0, 8), slice(8, 16), slice(16, 21)]
    one_hot = np.eye(3)[LABELS]
    for name, make in {
        "one-hot rows": lambda part: (PIXELS[part], one_hot[part]),
        "integers": lambda part: [PIXELS[part], LABELS[part][:, None]],
        "no labels": lambda part: PIXELS[part].astype("float32"),
    }.items():
        found = extract(model, map(make, parts))
        assert_close(found.features, expected)
        assert found.class_names is None
        if name == "no labels":
            assert found.labels is None
        else:
            np.testing.assert_array_equal(found.labels, LABELS)
    for stream, options, message in (
        (iter([]), {}, "must hold images"),
        ((PIXELS, LABELS), {}, "must be a VisionTransformer"),
        (data.train, {}, "must end"),
        (map(str, "a"), {"cache_dir": tmp_path}, "does not tell what it holds"),
        (map(str, "a"), {"split": "test"}, "has one split"),
        (PIXELS, {}, "a path, a name, a pair"),
        ((make for make in [(PIXELS, ["a"] * 21)]), {}, "labels of a stream"),
    ):
        with pytest.raises(ValueError, match=message):
            extract(model, stream, **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_stream_has_labels_throughout_or_none(order):
    stream = [(PIXELS, LABELS), PIXELS][::order]
    # On TensorFlow a generator's error is one of TensorFlow, with the same text.
    with pytest.raises(Exception, match="have labels, or none.*both, from batch 2 on"):
        extract(peer(), stream)


def test_one_split_at_a_time():
    model = peer()
    splits = {"train": (PIXELS, LABELS), "test": (PIXELS[:5], LABELS[:5])}
    data = keras_vit.data.load(
        splits, validation_split=0.0, duplicates="keep", image_size=32
    )
    with pytest.raises(ValueError, match="one of 'train', 'test'. Received: split=None"):
        extract(model, data)
    found = extract(model, data, split="test")
    np.testing.assert_array_equal(found.labels, LABELS[:5])
    with pytest.raises(ValueError, match="split='validation'"):
        extract(model, data, split="validation")


def test_the_data_has_the_last_word_on_its_own_values():
    """Other images than those of the training may be stored in another way."""
    model = tiny(preprocessing={"value_range": (0, 100), "evaluation_crop": "resize"})
    kept = loaded(value_range=(0, 200), augmentation=Augmentation(resize_factor=2.0))
    noted = loaded()
    for data, expected in (
        (kept, kept.with_pipeline(image_mean=0.5, image_std=0.5)),
        (noted, noted.prepared_for(model)),
    ):
        found, _ = features._images(data, model, None, None, keras_vit.data.load)
        assert found.pipeline == expected.pipeline
    assert expected.pipeline.value_range == (0, 100)


# The cache.


def test_the_same_question_again_computes_nothing(tmp_path, monkeypatch):
    model, data = peer(), folder_of(tmp_path / "data")
    data = keras_vit.data.load(data, validation_split=0.0, image_size=32)
    first = extract(model, data, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(keras.Model, "predict", None)
    again = extract(model, data, cache_dir=tmp_path / "cache", batch_size=3)
    np.testing.assert_array_equal(again.features, first.features)
    np.testing.assert_array_equal(again.labels, first.labels)
    assert again.class_names == first.class_names
    # The array may be written to; the file stays as it is.
    again.features[:] = 0
    again = extract(model, data, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(again.features, first.features)


@pytest.mark.one_backend
def test_a_path_is_listed_and_not_read_again(tmp_path, monkeypatch):
    model = tiny()
    path, cache = folder_of(tmp_path / "data"), tmp_path / "cache"
    first = extract(model, path, cache_dir=cache)
    monkeypatch.setattr(features, "load", None)
    again = extract(model, path, cache_dir=cache)
    np.testing.assert_array_equal(again.features, first.features)


def test_the_key_changes_with_all_that_decides_the_features():
    model, data = peer(), loaded()

    def key(model=model, layer="pooled", data=data):
        return feature_key(model, layer, data, "train")[0]

    def keys_after_changes():
        yield "layer", key(layer="mean")
        yield "width", key(peer(6))
        for weight in model.weights:
            value = array(weight).copy()
            changed = value.copy()
            changed.flat[-1] = np.nextafter(changed.flat[-1], 9)
            weight.assign(changed)
            yield weight.path, key()
            weight.assign(value)
        pixels, labels = PIXELS.copy(), LABELS.copy()
        pixels[20, 31, 31, 2] ^= 1
        labels[20] -= 1
        yield "image", key(data=loaded(pixels))
        yield "label", key(data=loaded(labels=labels))
        yield "order", key(data=loaded(PIXELS[::-1], LABELS[::-1]))
        yield "fewer", key(data=loaded(PIXELS[:20], LABELS[:20]))
        for name, value in {
            "image_size": 24,
            "image_mean": 0.4,
            "value_range": (0, 254),
            "alpha": "drop",
            "augmentation": Augmentation(evaluation_interpolation="bicubic"),
        }.items():
            yield name, key(data=data.with_pipeline(**{name: value}))
        keras.config.set_dtype_policy("mixed_bfloat16")
        yield "dtype", key(randomize(peer()))
        keras.config.set_dtype_policy("float32")

    found = dict(keys_after_changes())
    assert len({key(), *found.values()}) == 1 + len(found) == 17
    # Not with numbered names, the batch size, or what training alone reads.
    again = peer()
    again.trainable = False
    again.compile("sgd", "mse")
    fields = {"batch_size": 3, "label_mode": "int", "num_parallel_calls": 1}
    fields["augmentation"] = Augmentation(crop="random", flip=False, randaugment=(1, 2.0))
    assert key(again, data=data.with_pipeline(**fields)) == key()
    ours = {}
    for name, options in {
        "plain": {},
        "named": {"name": "another", "class_names": [f"{i}" for i in range(10)]},
        "other": {"gelu_approximate": False},
    }.items():
        keras.utils.set_random_seed(0)
        ours[name] = key(tiny(**options))
    assert ours["named"] == ours["plain"] != ours["other"]


@pytest.mark.one_backend
def test_the_key_of_files(tmp_path):
    model, path = peer(), folder_of(tmp_path / "data")

    def key(path=path):
        data = keras_vit.data.load(path, validation_split=0.0, image_size=32)
        return feature_key(model, "pooled", data, "train")[0]

    first = key()
    shutil.copytree(path, tmp_path / "moved")  # with the times of the files
    assert key(tmp_path / "moved") == first
    image = path / "class 1" / "4.png"
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))  # changed in place
    changed = key()
    image.rename(path / "class 2" / "4.png")
    assert len({first, changed, key()}) == 3


@pytest.mark.one_backend
def test_features_and_key_of_tensorflow_datasets(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    label = tfds.features.ClassLabel(names=["x", "y", "z"])
    image = tfds.features.Image(shape=(32, 32, 3), encoding_format="png")
    fields = tfds.features.FeaturesDict({"image": image, "label": label})
    records = [
        serialized(fields, {"image": x, "label": y})
        for x, y in zip(PIXELS, LABELS, strict=True)
    ]
    splits = {"train": [records[:8], records[8:15]], "test": [records[15:]]}
    folder = write_prepared(tmp_path, "mine", fields, splits)
    model = peer()

    def load(**options):
        return keras_vit.data.load("mine", data_dir=tmp_path, image_size=32, **options)

    found = extract(model, load(), split="test", cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(found.labels, LABELS[15:])
    np.testing.assert_array_equal(found.features, predicted(model, load(), "test"))

    def key(**options):
        return feature_key(model, "pooled", load(**options), "test")[0]

    first, other = key(), key(class_names=("z", "x", "y"))
    assert key() == first
    (path,) = folder.glob("*test*tfrecord*")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert len({first, other, key()}) == 3


def test_a_model_without_a_config_is_not_cached(tmp_path):
    class Odd(keras.Model):
        def __init__(self, number):
            super().__init__()
            self.dense = keras.layers.Dense(number)

        def call(self, x):
            return self.dense(keras.ops.mean(x, (1, 2)))

    with pytest.raises(ValueError, match="without a config"):
        extract(Odd(3), loaded(), cache_dir=tmp_path)


def finished(folder, rows=40, dim=3):
    """Features that are written in batches of 16, and finished."""
    vectors = np.random.default_rng(rows).normal(size=(rows, dim)).astype("float32")
    writer = FeatureWriter(folder)
    for start in range(writer.rows, rows, 16):
        writer.append(start, vectors[start : start + 16])
    writer.finish(np.arange(rows, dtype="int32"), ("a", "ü"), {"layer": "pooled"})
    return vectors


@pytest.mark.one_backend
def test_files_are_read_back_by_numpy(tmp_path):
    vectors = finished(tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), vectors)
    found = feature_files.read(tmp_path)
    assert isinstance(found, Features)
    np.testing.assert_array_equal(found.features, vectors)
    np.testing.assert_array_equal(found.labels, np.arange(40))
    assert found.class_names == ("a", "ü")
    # Ten times the digits, the same header.
    vectors = finished(tmp_path / "more", rows=1003)
    np.testing.assert_array_equal(np.load(tmp_path / "more" / "features.npy"), vectors)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path, -1),
        lambda path: flip(path, path.stat().st_size // 2),
        lambda path: flip(path, 9),
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, 0),
        os.remove,
    ],
    ids=["last byte", "middle", "header", "cut", "empty", "missing"],
)
def test_damaged_features_are_never_used(tmp_path, name, damage, caplog):
    cache = FeatureCache(tmp_path, "abc")
    assert cache.read() is None
    assert not caplog.messages
    vectors = finished(cache.part)
    assert cache.read() is None  # not before it is complete
    cache.complete()
    np.testing.assert_array_equal(cache.read().features, vectors)
    damage(cache.folder / name)
    assert cache.read() is None
    assert "abc are damaged" in caplog.messages[0]
    finished(cache.part)
    cache.complete()
    np.testing.assert_array_equal(cache.read().features, vectors)
    assert os.listdir(tmp_path) == ["abc"]


def test_damaged_features_are_computed_again(tmp_path, caplog):
    model, data = peer(), loaded()
    first = extract(model, data, cache_dir=tmp_path).features.copy()
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    flip(folder / "features.npy", -3)
    again = extract(model, data, cache_dir=tmp_path)
    np.testing.assert_array_equal(again.features, first)
    assert sum("are damaged" in message for message in caplog.messages) == 1
    assert feature_files.read(folder)


def test_a_cache_is_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file, and a folder is to be written"):
        extract(peer(), loaded(), cache_dir=tmp_path / "file")


# What was begun.


class Stop(BaseException):
    """Ends a run, as Ctrl-C does."""


def counted(monkeypatch, last=None):
    """Numbers of the batches that are written from now on; ends after some of them."""
    written, original = [], FeatureWriter.append

    def append(writer, start, vectors):
        if len(written) == last:
            raise Stop
        original(writer, start, vectors)
        written.append(start)

    monkeypatch.setattr(FeatureWriter, "append", append)
    return written


@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_run_that_was_stopped_computes_the_rest_alone(tmp_path, monkeypatch, number):
    model, data = peer(), loaded(batch_size=4)
    expected = extract(model, data).features.copy()
    before = model.get_weights()
    with monkeypatch.context() as patch:
        written = counted(patch, number)
        with pytest.raises(Stop):
            extract(model, data, cache_dir=tmp_path)
        assert len(written) == number
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    # The same images in another array: threads may still read ahead in the first.
    read, pixels = [], PIXELS.copy()
    data = loaded(pixels, batch_size=4)
    original = keras_vit.data.sources.ImageArrays.read

    def reading(source, index, channels):
        if source.images is pixels:
            read.append(int(source.indices[index]))
        return original(source, index, channels)

    monkeypatch.setattr(keras_vit.data.sources.ImageArrays, "read", reading)
    written = counted(monkeypatch)
    found = extract(model, data, cache_dir=tmp_path)
    np.testing.assert_array_equal(found.features, expected)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert written == list(range(4 * number, 21, 4))
    assert sorted(read) == list(range(4 * number, 21))


@pytest.mark.one_backend
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_killed_process_leaves_its_finished_batches(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(64, 7)).astype("float32")
    if not (child := os.fork()):
        writer = FeatureWriter(tmp_path)
        for start in range(0, 48, 16):
            writer.append(start, vectors[start : start + 16])
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    writer = FeatureWriter(tmp_path)
    assert (writer.rows, writer.dim) == (48, 7)
    with pytest.raises(ValueError, match="FileNotFoundError"):
        feature_files.read(tmp_path)
    writer.append(48, vectors[48:])
    writer.append(32, vectors[32:48])  # is there already
    with pytest.raises(RuntimeError, match="in order"):
        writer.append(70, vectors[:3])
    writer.finish(None, None, {})
    np.testing.assert_array_equal(feature_files.read(tmp_path).features, vectors)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "place", "rows"),
    [
        ("features.npy", -1, 32),  # in the last batch
        ("features.npy", 128, 0),  # in the first
        ("features.npy", 3, 0),  # no header
        ("journal", -1, 32),
        ("journal", 17, 16),
    ],
)
def test_batches_that_are_damaged_are_written_anew(tmp_path, name, place, rows):
    vectors = np.random.default_rng(0).normal(size=(48, 7)).astype("float32")
    writer = FeatureWriter(tmp_path)
    for start in range(0, 48, 16):
        writer.append(start, vectors[start : start + 16])
    writer.close()
    flip(tmp_path / name, place)
    writer = FeatureWriter(tmp_path)
    assert writer.rows == rows
    writer.append(rows, vectors[rows:])
    writer.finish(None, None, {})
    np.testing.assert_array_equal(feature_files.read(tmp_path).features, vectors)


def test_a_damaged_image_is_named_and_the_batches_before_it_stay(tmp_path, monkeypatch):
    model, path = peer(), folder_of(tmp_path / "data")
    data = keras_vit.data.load(path, validation_split=0.0, image_size=32, batch_size=2)
    image = path / "class 2" / "5.png"
    content, found = image.read_bytes(), image.stat()
    image.write_bytes(content[:-40])
    with pytest.raises(ValueError, match="5.png"):
        extract(model, data, cache_dir=tmp_path / "cache")
    image.write_bytes(content)
    # The image that was there when the data was loaded.
    os.utime(image, ns=(found.st_atime_ns, found.st_mtime_ns))
    expected = extract(model, data).features.copy()
    written = counted(monkeypatch)
    extract(model, data, cache_dir=tmp_path / "cache2")
    assert written[0] == 0
    np.testing.assert_array_equal(
        extract(model, data, cache_dir=tmp_path / "cache").features, expected
    )


def test_chunks_change_nothing(monkeypatch):
    model, data = peer(), loaded(batch_size=4)
    expected = predicted(model, data)
    monkeypatch.setattr(batches, "CHUNK", 4 * 5 * 9)  # nine rows
    calls = []
    original = keras.Model.predict

    def predict(self, *args, **options):
        calls.append(1)
        return original(self, *args, **options)

    monkeypatch.setattr(keras.Model, "predict", predict)
    np.testing.assert_array_equal(extract(model, data).features, expected)
    assert len(calls) == 3
    stream = list(data.evaluation("train"))
    found = extract(model, (batch for batch in stream))
    np.testing.assert_array_equal(found.features, expected)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert len(calls) == 3 + 2  # of three and three batches


def test_two_that_ask_the_same_at_once_compute_it_once(tmp_path, caplog):
    data, models = loaded(batch_size=4), [peer(), peer()]
    found, written = [None, None], []
    original = FeatureWriter.append

    def run(i):
        found[i] = extract(models[i], data, cache_dir=tmp_path)

    def slow(writer, start, vectors):
        written.append(start)
        time.sleep(0.05)
        original(writer, start, vectors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureWriter, "append", slow)
        threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert written == list(range(0, 21, 4))
    np.testing.assert_array_equal(found[0].features, found[1].features)
    assert "Another process computes the same" in caplog.text


@pytest.mark.one_backend
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_processes_that_write_the_same_features_take_turns(tmp_path):
    cache = FeatureCache(tmp_path, "abc")
    log = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    children = []
    for number in range(3):
        if not (child := os.fork()):
            try:
                with cache.locked():
                    if cache.read() is None:
                        os.write(log, f"{number} wrote\n".encode())
                        finished(cache.part)
                        time.sleep(0.2)
                        cache.complete()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    np.testing.assert_array_equal(cache.read().features, finished(tmp_path / "other"))


def test_progress_tells_images_per_second(capsys):
    extract_features(peer(), loaded(), verbose=2)
    assert "21/21" in (said := capsys.readouterr().out)
    assert "images_per_second" in said
    extract_features(peer(), (batch for batch in loaded().evaluation("train")), verbose=2)
    assert "images_per_second" in capsys.readouterr().out
