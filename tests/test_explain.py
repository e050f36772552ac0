"""`keras-vit explain`: predictions with maps of what a model reads, on one page."""

import json
import re

import numpy as np
import pytest
from helpers import assert_close, images, tiny
from PIL import Image
from test_report import Page, evaluation

import keras_vit
from keras_vit import analysis
from keras_vit.cli import main
from keras_vit.data import load_images
from keras_vit.report import write_report
from keras_vit.report.explanation_page import ExplainedImage, write_explanation
from keras_vit.report.looks import Look
from keras_vit.runs import explain, load_classifier, predict

# Names of kinds of models, with their class map.
MODELS = {
    "token": ({}, "class token"),
    "distilled": ({"distilled": True, "num_registers": 1}, "class token"),
    "class token and mean": ({"pooling": "token_gap"}, "class token"),
    "gap": ({"pooling": "gap", "num_registers": 2}, "relevance"),
    "gap, two sides": ({"pooling": "gap", "image_size": (32, 16)}, "relevance"),
    "map": ({"pooling": "map", "position": "sincos2d"}, "pooling"),
    "query": ({"pooling": "query", "num_registers": 1}, "pooling"),
    "no head": ({"classes": 0}, "class token"),
    "map without a head": ({"classes": 0, "pooling": "map"}, "pooling"),
    "every token": ({"classes": 0, "pooling": None}, "class token"),
    "merged": ({"merged_tokens": (2, 3)}, "class token"),
    "merged gap": ({"pooling": "gap", "merged_tokens": (2, 0)}, "relevance"),
    "fc norm": ({"pooling": "gap", "fc_norm": True}, "relevance"),
    "rotary": ({"rope": {"kind": "dinov3"}, "position": "none"}, "class token"),
    "hybrid": (
        {"stem": {"num_units": (1, 1), "width_factor": 0.5}, "patch_size": 2},
        "class token",
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_pass_gives_what_several_give(kind):
    """Outputs of the model, its class map, its rollout and distances."""
    fields, map_kind = MODELS[kind]
    model = tiny(**fields)
    height, width = model.arguments["image_size"]
    batch = images(height, width, batch=3)
    found = analysis.attention_summary(model, batch, batch_size=2)
    assert found.class_map_kind == map_kind
    if model.arguments["classes"]:
        assert_close(found.outputs, model.predict(batch, verbose=0))
    else:
        assert found.outputs is None
    if map_kind == "pooling":
        expected = analysis.pooling_attention(model, batch).mean(1)
    elif map_kind == "relevance":
        expected = analysis.relevance(model, batch)
    elif model.fields.distilled:
        maps = analysis.attention_maps(model, batch, -1)[0].mean(1)
        expected = found.grid.maps(maps[:, :2].mean(1))
    else:
        expected = analysis.class_attention(model, batch, -1)[0].mean(1)
    assert_close(found.class_map, expected)
    assert_close(found.rollout, analysis.rollout_map(model, batch))
    distances = analysis.attention_distance(analysis.iterate_attention(model, batch))
    assert_close(found.distances.mean(axis=0), distances)
    assert found.distances.shape == (3, *distances.shape)


def test_a_model_without_class_token_pooling_and_head_has_no_maps():
    model = tiny(classes=0, pooling=None, class_token=False)
    found = analysis.attention_summary(model, images())
    assert (found.class_map, found.rollout, found.outputs) == (None, None, None)
    assert found.class_map_kind == ""
    assert found.distances.shape == (2, 2, 4)


# The command.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with pictures of several sizes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, size in (("a.png", (40, 24, 3)), ("b.jpg", (130, 120, 3)), ("c.png", (8, 8))):
        Image.fromarray(rng.integers(0, 256, size).astype("uint8")).save(folder / name)
    return folder


def saved(folder, **fields):
    path = folder / "m.keras"
    tiny(image_size=16, **fields).save(path)
    return path


def run(*arguments):
    return main(["explain", *map(str, arguments)])


def test_a_page_of_images(folder, tmp_path, capsys):
    names = [f"kind {i}" for i in range(10)]
    path = saved(tmp_path, class_names=names)
    (tmp_path / "cut.png").write_bytes((folder / "a.png").read_bytes()[:90])
    output = tmp_path / "out"
    options = ("--output", output, "--top", 3)
    assert run(path, folder, tmp_path / "cut.png", *options) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"page  {output / 'index.html'}"
    assert f"keras-vit: error: {tmp_path / 'cut.png'}" in printed.err
    page = Page(output / "index.html")
    for prediction in predict(path, folder, top=3):
        assert prediction.image in page.text
        for row in prediction.classes:
            assert f"{row.name}{100 * row.probability:.1f} %" in page.text
    assert str(tmp_path / "cut.png") in page.text
    # Three pictures of each image, of which the first is in the page once.
    assert page.text.count("rollout") == 3
    assert page.text.count("class token") >= 3
    assert page.count("use") == 6
    assert page.count("image") == 9
    # Filters and positions; the distance is a drawing.
    assert page.count("img") == 2
    assert "on these 3 images" in page.text
    addresses = [a[key] for _, a in page.tags for key in ("src", "href") if key in a]
    assert all(re.match("data:image/(png|jpeg);base64,|#", a) for a in addresses)
    assert not re.search(r"url\(|@import|https?://|<script|<link", page.source)


def test_the_function_gives_the_arrays_of_the_page(folder, tmp_path):
    path = saved(tmp_path)
    found = explain(path, [folder / "a.png", folder / "no.png"], batch_size=1)
    first, second = found.images
    assert second.prediction.error == "there is no such file"
    assert second.picture is None
    classifier = load_classifier(path)
    pixels = load_images([folder / "a.png"], classifier.pipeline)
    probabilities = classifier.probabilities(pixels, verbose=0)[0]
    best = [row.index for row in first.prediction.classes]
    assert best == np.argsort(-probabilities)[:5].tolist()
    assert_close(
        np.array([r.probability for r in first.prediction.classes]), probabilities[best]
    )
    model = classifier.model
    assert_close(first.class_map, analysis.class_attention(model, pixels, -1)[0, 0].mean(0))
    assert_close(first.rollout, analysis.rollout_map(model, pixels)[0])
    expected = np.round((pixels[0] + 1) * 127.5).astype("uint8")
    np.testing.assert_array_equal(first.picture, expected)
    distances = analysis.attention_distance(analysis.iterate_attention(model, pixels))
    assert_close(found.pictures.distances, distances)


def test_json_and_what_is_at_the_folder(folder, tmp_path, capsys):
    path, output = saved(tmp_path), tmp_path / "out"
    assert run(path, folder / "a.png", "--output", output, "--json") == 0
    printed = capsys.readouterr()
    (line,) = map(json.loads, printed.out.splitlines())
    assert len(line["predictions"]) == 5
    assert printed.err.endswith(f"page  {output / 'index.html'}\n")
    before = (output / "index.html").read_text("utf-8")
    (output / "notes.txt").write_text("mine")
    for target, message in (
        (output, "There is something at"),
        (path, "is a file, and a folder is to be written"),
        (tmp_path / "no" / "out", "There is no folder"),
    ):
        assert run(path, folder / "b.jpg", "--output", target) == 2
        assert message in capsys.readouterr().err
    assert (output / "index.html").read_text("utf-8") == before
    assert run(path, folder / "b.jpg", "--output", output, "--overwrite") == 0
    assert "b.jpg" in (output / "index.html").read_text("utf-8")
    assert (output / "notes.txt").read_text() == "mine"
    assert run(path, folder / "b.jpg") == 2
    assert "Give `--output` FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["gap", "map without a head", "rotary", "hybrid"])
def test_the_page_says_what_it_shows(kind, folder, tmp_path):
    """The kind of the map, and a sentence for each picture that the model does not have."""
    sentences = {
        "gap": "Relevance of the patches for the most probable class",
        "map without a head": "Pooling head: its attention",
        "rotary": "adds no position embedding to its patches. It rotates",
        "hybrid": "This is a hybrid",
    }
    path = tmp_path / "m.keras"
    tiny(**MODELS[kind][0]).save(path)
    found = explain(path, folder)
    page = Page(found.write_page(tmp_path / "out"))
    assert sentences[kind] in page.text
    missing = kind in ("rotary", "hybrid")
    assert page.count("img") == 2 - missing
    assert len(found.pictures.remarks) == missing
    assert page.text.count("%") == (0 if kind == "map without a head" else 5 * 3)


@pytest.mark.one_backend
def test_an_image_that_is_the_only_one_and_cannot_be_read(tmp_path, capsys):
    path = saved(tmp_path)
    assert run(path, tmp_path / "no.png", "--output", tmp_path / "out") == 2
    text = Page(tmp_path / "out" / "index.html").text
    assert "there is no such file" in text
    assert "No image could be read." in text
    assert "Rollout" not in text


@pytest.mark.one_backend
def test_models_without_attention_are_refused(folder, tmp_path, capsys):
    path = tmp_path / "bit.keras"
    keras_vit.BiTResNet(32, num_units=(1, 1), width_factor=0.5, classes=2).save(path)
    assert run(path, folder, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "An explanation is that of a keras_vit.VisionTransformer" in error
    assert "BiTResNet" in error
    assert not (tmp_path / "out").exists()


# The page alone.


def write_page(folder, images_, **arrays):
    nothing = dict.fromkeys(("filters", "similarity", "distances"))
    remarks = dict.fromkeys(nothing, "None here.")
    fields = {"model": "ViT", "remarks": remarks}
    return Page(write_explanation(folder, images_, **{**nothing, **fields, **arrays}))


def look(seed=0, side=384, grid=24, kind="class token"):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (side, side, 3)).astype("uint8")
    return Look(picture, *rng.random((2, grid, grid)), kind)


@pytest.mark.one_backend
def test_names_are_text(tmp_path):
    evil = "<script>alert(1)</script>\" onerror='x' &amp; \u202egnp.exe\n\udcff\x00"
    images_ = [ExplainedImage(evil, look(), [(evil, 0.9), ("b", 0.1)])]
    images_ += [ExplainedImage(evil, None, error=evil)]
    remarks = dict.fromkeys(("filters", "similarity", "distances"), evil)
    page = write_page(tmp_path, images_, model=evil, remarks=remarks)
    assert page.count("script") == 0
    assert not any("onerror" in attributes for _, attributes in page.tags)
    shown = evil.replace("\udcff", "\ufffd").replace("\x00", "\ufffd")
    assert page.text.count(shown) == 4 + 3 + 2  # names, remarks, titles
    assert "unicode-bidi: isolate" in page.source


@pytest.mark.one_backend
@pytest.mark.parametrize("classes", [2, 1000])
def test_fifty_photographs_of_noise_are_below_five_megabytes(classes, tmp_path):
    """Nothing is harder to compress, of pictures, positions and filters."""
    rng = np.random.default_rng(0)
    named = [(f"class {i}", 1 / classes) for i in range(min(classes, 5))]
    page = write_page(
        tmp_path,
        [ExplainedImage(f"{i}.jpg", look(i), named) for i in range(50)],
        filters=rng.normal(size=(28, 14, 14, 3)),
        similarity=rng.uniform(-1, 1, (64, 64, 64, 64)).astype("float32"),
        distances=rng.random((40, 24)),
    )
    assert len(page.source) < 5_000_000
    assert page.count("circle") == 40 * 24 + 40  # heads and their means


# The report of a training.


@pytest.mark.one_backend
def test_the_report_shows_what_the_model_read_of_its_mistakes(tmp_path):
    result = evaluation(3)
    pictures = [np.full((60, 80, 3), 4 * i, "uint8") for i in range(60)]

    def images_of(indices):
        return [pictures[i] for i in indices]

    given = []

    def looks(shown):
        given.extend(shown)
        return [look(i, 32, 4, "pooling") for i in range(len(shown))]

    options = {"title": "T", "images": images_of, "num_mistakes": 4}
    page = Page(write_report(tmp_path, result, looks=looks, **options))
    np.testing.assert_array_equal(given, images_of(result.confident_mistakes(4)))
    assert page.count("img") == 4
    assert (page.count("image"), page.count("use")) == (4 * 3, 4)
    assert "Pooling head: its attention" in page.text
    page = Page(write_report(tmp_path, result, looks=lambda _: None, **options))
    assert (page.count("img"), page.count("image")) == (4, 0)
    assert "Rollout" not in page.text


@pytest.mark.parametrize("kind", ["token", "gap, two sides", "bit"])
def test_an_evaluation_has_maps_where_the_model_has_attention(kind, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for i in range(6):
        target = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype("uint8")).save(target)
    if kind == "bit":
        model = keras_vit.BiTResNet(32, num_units=(1, 1), width_factor=0.5, classes=2)
    else:
        model = tiny(**{**MODELS[kind][0], "classes": 2, "class_names": ("a", "b")})
    model.save(tmp_path / "m.keras")
    result = keras_vit.runs.evaluate(tmp_path / "m.keras", tmp_path / "data")
    wrong = 6 - result.evaluation.num_correct
    assert wrong
    page = Page(result.write_report(tmp_path / "page"))
    assert page.count("image") == (0 if kind == "bit" else 3 * wrong)
    assert page.count("img") == wrong
    if kind == "bit":
        return

    def fails(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr("keras_vit.runs.looks.attention_summary", fails)
    page = Page(result.write_report(tmp_path / "page"))
    assert (page.count("image"), page.count("img")) == (0, wrong)
