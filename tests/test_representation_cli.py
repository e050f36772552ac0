"""`keras-vit evaluate --protocol`: features of a data set, judged."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import tiny
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import keras_vit
from keras_vit.cli import main
from keras_vit.evaluation import few_shot, nearest_neighbors
from keras_vit.runs import evaluate_representation


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model with a `pre_logits` layer; its images are 16 × 16."""
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    small = {"image_size": 16, "num_layers": 1, "hidden_dim": 16, "num_heads": 2}
    tiny(**small, mlp_dim=16, representation_size=12, classes=5).save(path)
    return path


def write_images(folder, number, seed, classes=("dark", "grey", "light")):
    """Images of 16 × 16 pixels that differ in their brightness, overlapping."""
    rng = np.random.default_rng(seed)
    for level, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(number):
            pixels = rng.normal(70 + 50 * level, 60, (16, 16, 3)) + rng.normal(0, 30)
            image = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
            image.save(folder / name / f"{i:02}.png")


@pytest.fixture(scope="module")
def one_split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "shades"
    write_images(folder, 10, seed=0)
    return folder


@pytest.fixture(scope="module")
def three_splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "parts"
    for seed, (split, number) in enumerate([("train", 9), ("val", 5), ("test", 7)]):
        write_images(folder / split, number, seed)
    return folder


def features(weights, source, split, layer=None, **options):
    """Features and labels of a split, by an ordinary `predict`."""
    model = keras_vit.from_pretrained(weights)
    if layer is None:
        output = lambda images: model.features(images)["pooled"]  # noqa: E731
    else:
        output = keras.Model(model.input, model.get_layer(layer).output)
    data = keras_vit.data.load(source, **options).prepared_for(model)
    batches = list(data.evaluation(split))
    images = np.concatenate([np.asarray(batch[0]) for batch in batches])
    return keras.ops.convert_to_numpy(output(images)), data.labels(split)


def printed(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def error(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_few_shot_of_a_folder(weights, one_split, tmp_path, capsys):
    """A fifth of a folder without splits is drawn for the test; the features of it."""
    options = (
        "--shots",
        1,
        4,
        "--seeds",
        0,
        1,
        "--l2",
        16,
        "--output",
        tmp_path / "r.json",
    )
    given = (weights, one_split, "--protocol", "few-shot", *options)
    found = json.loads(printed(capsys, *given, "--json"))
    drawn = {"validation_split": 0.0, "test_split": 0.2}
    parts = [features(weights, one_split, name, **drawn) for name in ("train", "test")]
    expected = few_shot(*parts[0], *parts[1], shots=(1, 4), seeds=(0, 1), l2=16)
    assert found["results"] == [
        {name: pytest.approx(value) for name, value in row.items()}
        for row in expected.rows()
    ]
    assert found["images"] == {"train": 24, "test": 6}
    assert (found["layer"], found["width"], found["classes"]) == ("pooled", 16, 3)
    assert json.loads((tmp_path / "r.json").read_text("utf-8")) == found
    assert "There is something at" in error(capsys, *given)
    text = printed(capsys, *given, "--overwrite")
    assert (
        "shades: 3 classes; images: 24 train, 6 test; features: pooled, 16 numbers" in text
    )
    assert text.endswith(f"{expected}\n")


def test_neighbors_of_another_layer(weights, three_splits, capsys):
    """The data's own splits are used, and the validation images are left out."""
    layer = ("--layer", "pre_logits")
    given = (weights, three_splits, "--protocol", "knn", "--k", 1, 5, *layer)
    found = json.loads(printed(capsys, *given, "--temperature", "none", "--json"))
    parts = [features(weights, three_splits, name, layer[1]) for name in ("train", "test")]
    expected = nearest_neighbors(*parts[0], *parts[1], k=(1, 5), temperature=None)
    assert [row["accuracy"] for row in found["results"]] == expected.accuracy.tolist()
    assert (found["images"], found["width"]) == ({"train": 27, "test": 21}, 12)


def test_linear_probe_chooses_on_the_validation_split(weights, three_splits):
    found = evaluate_representation(
        weights, three_splits, protocol="linear", settings={"l2": (0.5, 50.0)}
    )
    names = ("train", "validation", "test")
    fit, held_out, test = (features(weights, three_splits, name) for name in names)
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=1 / l2, max_iter=1000))
        for l2 in (0.5, 50.0)
    ]
    scores = [model.fit(*fit).score(*held_out) for model in models]
    np.testing.assert_allclose(found.result.validation.accuracy, scores)
    best = models[max(range(2), key=lambda i: (scores[i], i))]
    both = [np.concatenate(pair) for pair in zip(fit, held_out, strict=True)]
    np.testing.assert_allclose(found.result.accuracy, best.fit(*both).score(*test))


def test_a_split_may_be_chosen(weights, three_splits):
    found = evaluate_representation(
        weights, three_splits, protocol="knn", settings={"k": 3}, split="validation"
    )
    assert found.summary()["images"] == {"train": 27, "validation": 15}
    assert found.test_split == "validation"


def test_options_that_do_not_fit(weights, one_split, three_splits, capsys):
    knn = (weights, one_split, "--protocol", "knn")
    message = error(capsys, *knn, "--shots", 3)
    assert "takes k, temperature, num_classes" in message
    assert "`--shots`, which is one of --protocol few-shot" in message
    few = (weights, one_split, "--protocol", "few-shot", "--shots", 9)
    message = error(capsys, *few, "--fewer", "error")
    assert "class 0 has 8, class 1 has 8, class 2 has 8. Give smaller `--shots`" in message
    assert (
        "or `--fewer all` to use all" in message or "or --fewer all to use all" in message
    )
    few_images = printed(capsys, *few)
    assert "    9  1024" in few_images
    assert "Fewer examples than 9 shots: class 0 has 8" in few_images
    message = error(capsys, weights, one_split, "--k", 3)
    assert "`--k` is for a protocol. Give `--protocol` as well" in message
    assert "`--by-order` is for an evaluation without" in error(capsys, *knn, "--by-order")
    message = error(capsys, weights, three_splits, *knn[2:], "--split", "train")
    assert "beside 'train'" in message
    assert "Give DATA" in error(capsys, weights, "--protocol", "knn")
    assert "Choose another `--layer`" in error(capsys, *knn, "--layer", "block_0")


def test_the_documentation_runs(weights, three_splits, monkeypatch):
    text = (Path(__file__).parent.parent / "docs" / "representations.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)
    for name, ours in (("ViTB16", weights), ("flowers", three_splits)):
        block = block.replace(f'"{name}"', repr(str(ours)))
    monkeypatch.setattr(keras_vit, "ViTB16", lambda: keras_vit.from_pretrained(weights))
    names = {}
    exec(compile(block, "representations.md", "exec"), names)
    assert names["result"].predictions.shape == (2, 21)
    assert names["found"].result.accuracy.shape == (3, 2, 1)
