"""ImageNet's test sets, as folders and as data sets of TensorFlow Datasets."""

import json

import numpy as np
import pytest
from helpers import tiny
from PIL import Image
from prepared_tfds import serialized, write_prepared

import keras_vit
from keras_vit import cli
from keras_vit.data import load_images
from keras_vit.evaluation import imagenet
from keras_vit.evaluation.imagenet import load_test_set, wordnet_ids
from keras_vit.evaluation.real_labels import real_accuracy
from keras_vit.presets import find_preset
from keras_vit.runs import evaluate_imagenet, load_classifier

pytestmark = pytest.mark.one_backend
ROW = "ViTB16.augreg_imagenet21k+imagenet2012-224"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model = tiny(image_size=8, num_layers=1, classes=1000, classifier_activation=None)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (1040, 8, 8, 3), "uint8")


@pytest.fixture(scope="module")
def scores(checkpoint, pictures):
    """Logits of the pictures, (1040, 1000)."""
    classifier = load_classifier(checkpoint)
    images = load_images(list(pictures), classifier.pipeline)
    return classifier.model.predict(images, verbose=0)


def labels_of(scores, classes):
    """One picture of each class, then as many as there are with their predicted class."""
    labels = classes[np.arange(len(classes))]
    best = classes[scores[len(classes) :][:, classes].argmax(1)]
    return np.concatenate([labels, best])


def write_folders(root, pictures, labels, names):
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        folder = root / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.png")


def expected_accuracy(scores, labels, classes):
    return np.mean(classes[scores[:, classes].argmax(1)] == labels)


def test_wordnet_ids():
    ids = wordnet_ids()
    assert len(set(ids)) == 1000
    assert list(ids) == sorted(ids)
    assert (ids[0], ids[-1]) == ("n01440764", "n15075141")  # tench, toilet tissue


def test_folders_of_v2_are_numbers(checkpoint, pictures, scores, tmp_path):
    """Sorted by name, folder 10 would come before folder 2."""
    every = np.arange(1000)
    labels = labels_of(scores, every)
    write_folders(tmp_path, pictures, labels, list(map(str, every)))
    result = evaluate_imagenet(checkpoint, "imagenet_v2", tmp_path)
    assert result.accuracy == expected_accuracy(scores, labels, every) > 0.03
    assert (result.num_scored, result.num_images) == (1040, 1040)
    assert "1,040 images, not all 10,000 of the test set" in str(result)
    with pytest.raises(ValueError, match="no other classes"):  # V2 has no WordNet ids
        evaluate_imagenet(checkpoint, "imagenet_sketch", tmp_path)


@pytest.mark.parametrize("source", ["folder", "tfds"])
def test_a_model_chooses_among_the_200_classes(
    source, checkpoint, pictures, scores, tmp_path
):
    classes = np.sort(np.random.default_rng(1).permutation(1000)[:200])
    some = scores[:220]
    labels = labels_of(some, classes)
    if source == "folder":
        write_folders(tmp_path / "data", pictures[:220], labels, wordnet_ids())
        (tmp_path / "data/README.txt").write_text("ImageNet-A")
        options = {"data": tmp_path / "data"}
    else:
        write_tfds(tmp_path, "imagenet_a", "test", pictures[:220], labels)
        options = {"data_dir": tmp_path}
    result = evaluate_imagenet(checkpoint, "imagenet_a", **options)
    assert result.accuracy == expected_accuracy(some, labels, classes)
    assert result.accuracy > expected_accuracy(some, labels, np.arange(1000))


def test_a_test_set_is_whole(pictures, scores, tmp_path):
    labels = np.arange(199)
    write_folders(tmp_path, pictures[:199], labels, wordnet_ids())
    with pytest.raises(ValueError, match=r"of 200 classes.* with 199 classes"):
        load_test_set("imagenet_r", tmp_path, image_size=8)
    with pytest.raises(ValueError, match=r"of 1,000 classes.* with 199 classes"):
        load_test_set("imagenet2012", tmp_path, image_size=8)


REAL = [[1, 7], [], [3], [999], [5, 6], [0]]


@pytest.fixture
def real_folder(pictures, tmp_path):
    """Images 1, 2, 4 and 6 of the list; the names say which they are."""
    for number in (6, 2, 4, 1):
        folder = tmp_path / ("n01440764" if number < 3 else "")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"ILSVRC2012_val_{number:08d}.png"
        Image.fromarray(pictures[number - 1]).save(folder / name)
    return tmp_path


def test_real_labels_by_the_names_of_the_images(
    real_folder, checkpoint, scores, tmp_path_factory
):
    best = scores.argmax(1)
    right = [list(labels) for labels in REAL]
    right[0][1], right[3][0] = int(best[0]), int(best[3])
    path = tmp_path_factory.mktemp("real") / "real.json"
    path.write_text(json.dumps(right))
    result = evaluate_imagenet(checkpoint, "imagenet_real", real_folder, real_labels=path)
    assert best[5] != 0
    assert (result.num_correct, result.num_scored, result.num_images) == (2, 3, 4)
    text = str(result)
    assert "1 images without a right label are left out" in text
    # Wilson's: (0.6667 + 0.6402 ± 1.96 · √(0.0741 + 0.1067)) / 2.2805
    assert "top-1 accuracy 66.7 % (95 % interval 20.8–93.9 %; 2 of 3)" in text


def test_real_labels_are_the_published_ones(real_folder, tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("real") / "real.json"
    path.write_text(json.dumps(REAL))
    monkeypatch.setattr(imagenet, "fetch", lambda address: str(path))
    with pytest.raises(ValueError, match=r"real\.json' is damaged or was changed"):
        load_test_set("imagenet_real", real_folder)
    path.write_text(json.dumps([[1000]]))
    with pytest.raises(ValueError, match="a list of classes, from 0 to 999"):
        load_test_set("imagenet_real", real_folder, real_labels=path)
    for content in (b"\x89PNG", b"[[1],", b"{}"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"for each image. Received: .*real\.json'"):
            load_test_set("imagenet_real", real_folder, real_labels=path)
    path.write_text(json.dumps(REAL[:5]))
    with pytest.raises(ValueError, match=r"to 00000005\. Received: .*00000006"):
        load_test_set("imagenet_real", real_folder, real_labels=path)
    with pytest.raises(ValueError, match="`real_labels` belongs to 'imagenet_real'"):
        load_test_set("imagenet_v2", real_folder, real_labels=path)


def test_real_labels_of_tfds(checkpoint, pictures, scores, tmp_path):
    best = [int(label) for label in scores.argmax(1)[:6]]
    right = [[best[0], 3], [], [best[2]], [998, 999], [], [0, best[5], 2]]
    write_tfds(tmp_path, "imagenet2012_real", "validation", pictures[:6], right)
    result = evaluate_imagenet(checkpoint, "imagenet_real", data_dir=tmp_path)
    assert (result.num_correct, result.num_scored, result.num_images) == (3, 4, 6)


def write_tfds(folder, name, split, pictures, labels):
    import tensorflow_datasets as tfds

    classes = tfds.features.ClassLabel(names=wordnet_ids())
    several = isinstance(labels[0], list)
    fields = {"label": classes}
    if several:
        fields = {"original_label": classes, "real_label": tfds.features.Sequence(classes)}
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(), **fields})
    records = []
    for picture, label in zip(pictures, labels, strict=True):
        own = {"original_label": 0, "real_label": label} if several else {"label": label}
        records.append(serialized(features, {"image": picture, **own}))
    write_prepared(folder, name, features, {split: [records]}, version="1.0.0")


def test_the_published_accuracy_stands_beside(
    checkpoint, real_folder, tmp_path_factory, monkeypatch, capsys
):
    path = tmp_path_factory.mktemp("real") / "real.json"
    path.write_text(json.dumps(REAL))
    row = find_preset(ROW)
    monkeypatch.setattr(keras_vit.runs.imagenet, "find_preset", lambda name: row)
    arguments = ["evaluate", str(checkpoint), str(real_folder)]
    arguments += ["--imagenet", "imagenet_real", "--real-labels", str(path)]
    assert cli.main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    published = row.scores["imagenet_real"].accuracy
    assert 80 < published < 95
    assert printed["published"] == published
    assert printed["difference"] == pytest.approx(100 * printed["accuracy"] - published)
    assert cli.main(arguments) == 0
    assert f"published {published:.2f} %" in capsys.readouterr().out
    assert cli.main([*arguments, "--split", "test"]) == 2
    assert "Leave out: `--split`" in capsys.readouterr().err


def test_scores_that_overflow_are_refused(real_folder, tmp_path_factory):
    """The largest of a row with NaN would be NaN's place."""
    path = tmp_path_factory.mktemp("real") / "real.json"
    path.write_text(json.dumps(REAL))
    found = load_test_set("imagenet_real", real_folder, real_labels=path)
    scores = np.zeros((4, 1000), "float32")
    scores[2, 7] = np.nan
    for predict in (found.predicted, lambda s: real_accuracy(s, found.labels)):
        with pytest.raises(ValueError, match="1 rows with NaN or infinity, 2"):
            predict(scores)


def test_models_of_other_classes(checkpoint, real_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model = tiny(image_size=8, num_layers=1, classes=10, classifier_activation=None)
    model.save(folder / "ten.keras")
    with pytest.raises(ValueError, match="whose head has 10 outputs"):
        evaluate_imagenet(folder / "ten.keras", "imagenet_real", real_folder)


def test_classes_of_a_model_by_their_ids(checkpoint, pictures, scores, tmp_path):
    """A model fine-tuned on ImageNet may have its classes in another order."""
    model = keras_vit.from_pretrained(checkpoint)
    model.note(class_names=wordnet_ids()[::-1], probabilities="softmax")
    model.save(tmp_path / "reversed.keras")
    labels = 999 - scores.argmax(1)[:4]
    right = [[int(label)] for label in labels[:3]] + [[int(scores.argmax(1)[3])]]
    write_tfds(tmp_path, "imagenet2012_real", "validation", pictures[:4], right)
    result = evaluate_imagenet(
        tmp_path / "reversed.keras", "imagenet_real", data_dir=tmp_path
    )
    assert result.num_correct == 3
