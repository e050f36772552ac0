"""Images without labels: `keras_vit.data.load(labels="none" | "optional")`."""

import numpy as np
import pytest
from PIL import Image
from prepared_tfds import serialized, write_prepared

from keras_vit.data import load

pytestmark = pytest.mark.one_backend


def write(path, number):
    """Writes an image of its own color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), (number * 9, 40, 90)).save(path)


@pytest.fixture
def loose(tmp_path):
    """Twenty images in a folder and in folders of it, and a note."""
    for i in range(10):
        write(tmp_path / f"{i}.png", i)
        write(tmp_path / "2019" / "may" / f"{i}.png", 10 + i)
    (tmp_path / "note.txt").write_text("hello")
    return tmp_path


@pytest.mark.parametrize("labels", ["none", "optional"])
def test_a_folder_is_all_images_in_it(loose, labels):
    data = load(loose, labels=labels, label_mode="int", batch_size=4, image_size=4)
    assert data.num_examples == {"train": 16, "validation": 4}
    assert data.class_names == ()
    assert "without labels" in repr(data)
    names = {*data.names("train"), *data.names("validation")}
    assert len(names) == 20
    images, targets = next(iter(data.train))
    assert images.shape == (4, 4, 4, 3)
    assert targets.numpy().tolist() == [0] * 4
    # The same split and order each time.
    again = load(loose, labels=labels, label_mode="int", batch_size=4, image_size=4)
    assert again.fingerprint == data.fingerprint
    np.testing.assert_array_equal(next(iter(again.train))[0], images)


def test_labels_are_read_where_there_are_any(tmp_path):
    for i in range(8):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", i)
    assert load(tmp_path, labels="optional").class_names == ("a", "b")
    none = load(tmp_path, labels="none")
    assert none.class_names == ()
    assert set(none.labels("train")) == {0}
    # One folder alone tells nothing apart.
    (tmp_path / "one").mkdir()
    (tmp_path / "a").rename(tmp_path / "one" / "a")
    assert load(tmp_path / "one", labels="optional").class_names == ()


@pytest.mark.parametrize("labels", ["none", "optional"])
def test_folders_of_splits_need_no_classes(tmp_path, labels):
    for i in range(6):
        write(tmp_path / "train" / f"{i}.png", i)
        write(tmp_path / "val" / f"{i}.png", 6 + i)
    data = load(tmp_path, labels=labels)
    assert data.num_examples == {"train": 6, "validation": 6}
    named = load(tmp_path, labels=labels, splits={"train": "val"})
    assert named.num_examples == {"train": 6}


def test_folders_that_are_not_all_splits_are_one(tmp_path):
    for i, name in enumerate(("train", "car", "bus") * 2):
        write(tmp_path / name / f"{i}.png", i)
    assert load(tmp_path, labels="none", validation_split=0).num_examples == {"train": 6}
    assert load(tmp_path, labels="optional").class_names == ("bus", "car", "train")


def test_a_folder_without_an_image_is_refused(tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"needs an image .* Files left out: 1 \.txt"):
        load(tmp_path, labels="none")


def test_a_table_needs_no_labels(loose):
    rows = [f"{i}.png,{'val' if i > 7 else 'train'},{i % 2}" for i in range(10)]
    (loose / "paths.csv").write_text("\n".join(["path,split", *(r[:-2] for r in rows)]))
    (loose / "labels.csv").write_text("\n".join(["path,split,label", *rows]))
    for labels in ("none", "optional"):
        data = load(loose / "paths.csv", labels=labels)
        assert data.num_examples == {"train": 8, "validation": 2}
        assert data.class_names == ()
    assert load(loose / "labels.csv", labels="optional").class_names == ("0", "1")
    assert load(loose / "labels.csv", labels="none").class_names == ()
    with pytest.raises(ValueError, match="must have a column 'label'"):
        load(loose / "paths.csv")
    with pytest.raises(ValueError, match="must have a column 'kind'"):
        load(loose / "paths.csv", labels="optional", label_column="kind")


def test_arrays_need_no_labels():
    images = np.random.default_rng(0).integers(0, 255, (10, 6, 6, 3)).astype("uint8")
    for labels in ("none", "optional"):
        data = load(images, labels=labels)
        assert data.num_examples == {"train": 8, "validation": 2}
        assert data.class_names == ()
        splits = {"train": images[:6], "validation": images[6:]}
        assert load(splits, labels=labels).num_examples == {"train": 6, "validation": 4}
    pair = (images, np.arange(10) % 2)
    assert load(pair, labels="optional").class_names == ("0", "1")
    assert load(pair, labels="none").class_names == ()


def test_data_sets_of_tensorflow_need_no_labels(tmp_path):
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(6, 6, 3))
    unlabelled = tfds.features.FeaturesDict({"image": image})
    labelled = tfds.features.FeaturesDict(
        {"image": image, "label": tfds.features.ClassLabel(names=["a", "b"])}
    )
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (10, 6, 6, 3)).astype("uint8")
    records = [serialized(unlabelled, {"image": picture}) for picture in pictures]
    write_prepared(tmp_path, "pictures", unlabelled, {"train": [records]})
    # -1: not known, as in test splits of challenges.
    examples = [{"image": one, "label": -1} for one in pictures]
    records = [serialized(labelled, example) for example in examples]
    write_prepared(tmp_path, "challenge", labelled, {"train": [records]})
    options = {"data_dir": tmp_path, "validation_split": 0.2}

    for labels in ("none", "optional"):
        data = load("pictures", labels=labels, **options)
        assert data.num_examples == {"train": 8, "validation": 2}
        assert data.class_names == ()
        assert data.labels("train").tolist() == [0] * 8
        np.testing.assert_array_equal(data.images("train", [3])[0], pictures[3])
    assert load("challenge", labels="none", **options).labels("train").tolist() == [0] * 8
    with pytest.raises(ValueError, match="must have an image and a label"):
        load("pictures", **options)


def test_a_wrong_value_is_refused(loose):
    with pytest.raises(ValueError, match="`labels` must be one of"):
        load(loose, labels="no")
    with pytest.raises(ValueError, match="`class_names` are names of labels"):
        load(loose, labels="none", class_names=("a", "b"))
