"""`keras-vit explain`: predictions with maps of what a model reads, on one page."""

import re

import numpy as np
import pytest
from helpers import assert_close, images, tiny
from PIL import Image
from test_report import Page

from keras_vit import analysis
from keras_vit.cli import main
from keras_vit.data import load_images
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
