"""Names of the classes of ImageNet-21k, and of any head from a file."""

import hashlib
import json
import re

import numpy as np
import pytest

import keras_vit
from keras_vit.zoo import class_lists
from keras_vit.zoo.class_lists import LISTS, NOUNS, ClassList

pytestmark = pytest.mark.one_backend


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Lists of four classes, in place of the published ones; returns the paths asked for."""
    ids = tmp_path / "ids.txt"
    nouns = tmp_path / "nouns.txt"
    ids.write_text("n01\nn02\nn03\nn04\n")
    nouns.write_text("n00\tthing\nn01\tcat\nn02\tdog, hound\nn03\tant\nn04\tbee\n")
    asked = []

    def source(path):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return ClassList(str(path), digest)

    monkeypatch.setattr(class_lists, "NOUNS", source(nouns))
    monkeypatch.setitem(LISTS, 4, source(ids))
    monkeypatch.setattr(class_lists, "fetch", lambda path: asked.append(path) or path)
    class_lists._lines.cache_clear()
    yield asked
    class_lists._lines.cache_clear()


def test_published_names(published):
    preds = np.array([[0.1, 0.6, 0.0, 0.3], [0.4, 0.3, 0.2, 0.1]])
    decoded = keras_vit.decode_predictions(preds, top=2)
    assert decoded == [
        [("n02", "dog, hound", 0.6), ("n04", "bee", 0.3)],
        [("n01", "cat", 0.4), ("n02", "dog, hound", 0.3)],
    ]
    keras_vit.decode_predictions(preds)
    assert len(published) == 2  # each file once


def test_a_list_with_another_digest_is_refused(published, monkeypatch):
    monkeypatch.setitem(LISTS, 4, LISTS[4]._replace(sha256="0" * 64))
    with pytest.raises(ValueError, match="sha256 is .*, where this package says 0000"):
        keras_vit.decode_predictions(np.ones((1, 4)))


def test_without_network(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_VIT_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="KERAS_VIT_OFFLINE forbids"):
        keras_vit.decode_predictions(np.ones((1, 21843)))


def test_lists_are_those_of_one_commit():
    """Published files do not change, and neither do addresses of a commit."""
    assert set(LISTS) == {21843, 21841, 11821, 11221}
    for source in (*LISTS.values(), NOUNS):
        assert re.search(r"/[0-9a-f]{40}/[\w/]+\.txt$", source.address)
        assert re.fullmatch("[0-9a-f]{64}", source.sha256)


def test_a_file_of_names(tmp_path):
    preds = np.array([[0.2, 0.7, 0.1]])
    files = {
        "names.txt": ("cat\ndog, hound\nbee\n", "1"),
        "names.tsv": ("n01\tcat\nn02\tdog, hound\nn04\tbee\n", "n02"),
        "names.json": (
            json.dumps(
                {"0": ["n01", "cat"], "1": ["n02", "dog, hound"], "2": ["n04", "bee"]}
            ),
            "n02",
        ),
    }
    for name, (text, number) in files.items():
        (tmp_path / name).write_text(text)
        decoded = keras_vit.decode_predictions(preds, top=1, class_index=tmp_path / name)
        assert decoded == [[(number, "dog, hound", 0.7)]]
        with pytest.raises(ValueError, match="line for each output|is not Keras'"):
            keras_vit.decode_predictions(np.ones((1, 4)), class_index=tmp_path / name)
    with pytest.raises(FileNotFoundError):
        keras_vit.decode_predictions(preds, class_index=tmp_path / "none.txt")


def test_other_heads_are_told_what_is_known():
    sizes = "1,000, 11,221, 11,821, 21,841, 21,843"
    with pytest.raises(
        ValueError,
        match=rf"names of {sizes} classes.*\(1, 21\). Give the `model`.*class_index",
    ):
        keras_vit.decode_predictions(np.ones((1, 21)))
    with pytest.raises(ValueError, match=r"\(batch, classes\). Received.*\(21,\)"):
        keras_vit.decode_predictions(np.ones(21))
