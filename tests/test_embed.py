"""`keras-vit embed`: vectors of images in files, and the images that are most alike."""

import csv
import json
import os
import re
import sys

import keras
import numpy as np
import pytest
from helpers import assert_close, tiny
from PIL import Image

import keras_vit
from keras_vit.cli import main
from keras_vit.runs import Embeddings, Neighbor, embed, load_embedder

NAMES = ["a.png", "b.jpg", 'c,"quoted".png', "d <b>.png", "é ü.png", "f.png", "g.png"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved model of images of 16 × 16 pixels, and its path."""
    path = tmp_path_factory.mktemp("model") / "m.keras"
    model = tiny(image_size=16, classes=3, representation_size=8)
    model.save(path)
    return model, path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of seven pictures, of which the last is a copy of the first."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in NAMES[:-1]:
        pixels = rng.integers(0, 256, (20, 24, 3)).astype("uint8")
        Image.fromarray(pixels).save(folder / name)
    (folder / "g.png").write_bytes((folder / "a.png").read_bytes())
    return folder


def expected(model, folder, layer="pooling", names=NAMES):
    model, path = model
    pipeline = load_embedder(path).pipeline
    images = keras_vit.data.load_images([folder / name for name in names], pipeline)
    layer = keras.Model(model.input, model.get_layer(layer).output)
    return layer.predict(images, batch_size=4, verbose=0)


def cosines(vectors, query):
    """By the definition, in float64."""
    vectors, query = vectors.astype("float64"), query.astype("float64")
    lengths = np.sqrt((vectors**2).sum(1)) * np.sqrt((query**2).sum())
    return (vectors * query).sum(1) / lengths


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_vectors_are_those_of_the_model_in_the_order_of_the_names(model, folder):
    found = embed(model[1], folder, batch_size=3)
    assert found.images == tuple(os.path.join(folder, name) for name in sorted(NAMES))
    assert found.failed == ()
    assert found.vectors.dtype == np.float32
    assert_close(found.vectors, expected(model, folder, names=sorted(NAMES)))
    found = embed(model[1], [folder / n for n in NAMES], layer="pre_logits", normalize=True)
    vectors = expected(model, folder, "pre_logits")
    assert_close(found.vectors, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_images_that_cannot_be_read_are_named_and_the_others_follow(
    model, folder, tmp_path, capsys
):
    (tmp_path / "cut.png").write_bytes((folder / "a.png").read_bytes()[:90])
    given = [tmp_path / "no.png", folder / "b.jpg", tmp_path / "cut.png", folder / "f.png"]
    output = tmp_path / "out.npz"
    assert run("embed", model[1], *given, "--output", output, "--batch-size", 1) == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("keras-vit")]
    assert [e.split(": ")[2] for e in errors] == [str(given[0]), str(given[2])]
    assert "there is no such file" in errors[0]
    with np.load(output) as file:
        assert file["images"].tolist() == [str(given[1]), str(given[3])]
        assert_close(file["vectors"], expected(model, folder, names=["b.jpg", "f.png"]))
    # None at all.
    found = embed(model[1], [given[0], given[2]])
    assert (found.images, found.vectors.shape) == ((), (0, 48))
    assert len(found.failed) == 2
    assert found.nearest(np.ones(48)) == []
    assert run("embed", model[1], given[0], "--output", tmp_path / "none.npz") == 2
    assert not (tmp_path / "none.npz").exists()


def read_npz(path):
    with np.load(path) as file:
        return file["images"].tolist(), file["vectors"]


def read_csv(path):
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", *map(str, range(len(header) - 1))]
    return [row[0] for row in rows], np.array([row[1:] for row in rows]).astype("float32")


def read_parquet(path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(path)
    vectors = table["vector"].combine_chunks()
    assert table.column_names == ["image", "vector"]
    return table["image"].to_pylist(), vectors.flatten().to_numpy().reshape(len(table), -1)


READERS = {".npz": read_npz, ".csv": read_csv, ".parquet": read_parquet}


@pytest.mark.one_backend
@pytest.mark.parametrize("ending", READERS)
def test_files_are_read_back_equal(ending, model, folder, tmp_path, capsys):
    path = tmp_path / f"features{ending}"
    assert run("embed", model[1], folder, "--output", path) == 0
    assert capsys.readouterr().out == f"7 images, a vector of 48 numbers each: {path}\n"
    names, vectors = READERS[ending](path)
    found = embed(model[1], folder)
    assert tuple(names) == found.images
    np.testing.assert_array_equal(vectors, found.vectors)
    assert os.listdir(tmp_path) == [path.name]
    # Any float32, more rows than are written at a time, a file in place of another.
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**32, (40_000, 2), "uint32").view("float32")
    numbers = np.where(np.isfinite(numbers), numbers, 0).astype("float32")
    many = Embeddings(tuple(f"{i}.png" for i in range(len(numbers))), numbers)
    with pytest.raises(ValueError, match="There is something at"):
        many.save(path)
    many.save(path, overwrite=True)
    names, vectors = READERS[ending](path)
    assert tuple(names) == many.images
    np.testing.assert_array_equal(vectors.view("uint32"), numbers.view("uint32"))


@pytest.mark.one_backend
def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"\xff.png")
    found = Embeddings((name, "new\nline"), np.eye(2, dtype="float32"))
    for ending in (".npz", ".csv"):
        found.save(tmp_path / f"f{ending}")
        assert READERS[ending](tmp_path / f"f{ending}")[0] == [name, "new\nline"]
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match="is no text. Write a .npz or .csv"):
        found.save(tmp_path / "f.parquet")
    assert not (tmp_path / "f.parquet").exists()


def test_the_nearest_are_those_of_numpy(model, folder, capsys):
    query, names = folder / "a.png", sorted(NAMES)
    vectors = expected(model, folder, names=names)
    similarities = cosines(vectors, expected(model, folder, names=["a.png"])[0])
    order = np.argsort(-similarities, kind="stable")
    assert {names[i] for i in order[:2]} == {"a.png", "g.png"}  # its copy is as near
    for options in ((), ("--normalize",)):
        assert run("embed", model[1], folder, "--nearest", query, "--json", *options) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(lines) == 7
        # Where two are equal but for rounding, either may come first.
        for line, i in zip(lines, order, strict=True):
            own = similarities[names.index(os.path.basename(line["image"]))]
            assert own == pytest.approx(similarities[i], abs=1e-6)
            assert line["similarity"] == pytest.approx(own, abs=1e-5)
    assert run("embed", model[1], folder, "--nearest", query, "--top", 2) == 0
    rows = [line.rsplit("  ", 1) for line in capsys.readouterr().out.splitlines()]
    assert [similarity for _, similarity in rows] == ["1.0000", "1.0000"]


@pytest.mark.one_backend
def test_ties_and_zeros_keep_the_order(monkeypatch):
    monkeypatch.setattr("keras_vit.runs.embedding.BLOCK", 2)
    vectors = np.array([[0, 0], [3, 4], [6, 8], [-1, 0], [4, 3]], "float32")
    found = Embeddings(tuple("abcde"), vectors).nearest([0.3, 0.4], top=9)
    assert [one.image for one in found] == ["b", "c", "e", "a", "d"]
    assert [one.similarity for one in found] == pytest.approx([1, 1, 0.96, 0, -0.6])
    assert found[3] == Neighbor("a", 0.0)


@pytest.mark.one_backend
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_cosines_do_not_depend_on_the_scale(scale):
    """The squares of these numbers are no float32."""
    vectors = np.array([[3, 4], [-4, 3], [4, 3]], "float32") * np.float32(scale)
    found = Embeddings(tuple("abc"), vectors).nearest(vectors[0], top=3)
    assert [one.image for one in found] == ["a", "c", "b"]
    np.testing.assert_allclose([one.similarity for one in found], [1, 0.96, 0], atol=1e-6)


@pytest.mark.one_backend
@pytest.mark.parametrize("vector", [[1.0], [1.0, np.nan], [[1.0, 2.0]], [1.0, 2.0, 3.0]])
def test_a_vector_to_compare_is_like_the_others(vector):
    with pytest.raises(ValueError, match="`vector` must be 2 finite numbers"):
        Embeddings(("a",), np.ones((1, 2), "float32")).nearest(vector)


@pytest.mark.one_backend
def test_one_page_shows_the_nearest(model, folder, tmp_path, capsys):
    path, query = tmp_path / "page.html", folder / "d <b>.png"
    given = ("embed", model[1], folder, "--nearest", query, "--top", 4, "--page", path)
    assert run(*given) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"page  {path}"
    page = path.read_text("utf-8")
    assert len(re.findall(r'<img class="pixels" src="data:image/png;base64,', page)) == 5
    assert "<b>1.000</b>" in page
    assert not re.search(r"url\(|@import|https?://|<script|<link", page)
    assert "d &lt;b&gt;.png" in page
    assert "d <b>.png" not in page
    assert run(*given) == 2  # it is there
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "query.png").write_bytes(query.read_bytes())
    assert run(*(alone if a is query else a for a in given), "--overwrite") == 0
    page = path.read_text("utf-8")  # of the image in the folder
    assert "query.png" in page
    assert page.count("<img") == 5


@pytest.mark.one_backend
def test_vectors_that_overflow_are_refused(model, folder):
    embedder = load_embedder(model[1])
    weight = embedder.model.get_layer("encoder_norm").gamma
    weight.assign(np.full(weight.shape, np.inf))
    with pytest.raises(ValueError, match="`vectors` must be finite numbers"):
        embedder.embed(folder)


@pytest.mark.one_backend
@pytest.mark.skipif(os.name != "posix", reason="no such names on Windows")
def test_hostile_names_stay_text_on_the_page(model, folder, tmp_path):
    evil = "<script>alert(1)<_script> 'onerror=x' \"&amp; \udcff\x01.png"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / evil).write_bytes((folder / "a.png").read_bytes())
    embedder = load_embedder(model[1])
    image = str(tmp_path / "in" / evil)
    (one,) = embedder.embed(image).nearest(np.ones(48))
    gone = Neighbor(str(tmp_path / "gone <i>.png"), 0.5)
    embedder.write_page(tmp_path / "p.html", image, [one, gone])
    page = (tmp_path / "p.html").read_text("utf-8")
    assert "<script" not in page
    assert (
        "&lt;script&gt;alert(1)&lt;_script&gt; &#x27;onerror=x&#x27; &quot;&amp;amp;"
        in page
    )
    assert "\x01" not in page
    assert page.count("<img") == 2
    assert "cannot be read any more" in page
    assert "gone &lt;i&gt;.png" in page


@pytest.mark.one_backend
def test_what_cannot_be_done_is_told_before_the_model_is_loaded(
    folder, tmp_path, monkeypatch, capsys
):
    there = tmp_path / "there.npz"
    there.write_bytes(b"")

    def fails(*arguments):
        assert run("embed", "no such model", folder, *arguments) == 2
        error = capsys.readouterr().err
        assert "\n" not in error.rstrip("\n")
        return error

    assert "Give `--output` FILE" in fails()
    assert "Give `--nearest` IMAGE" in fails(
        "--page", tmp_path / "p.html", "--output", "x.csv"
    )
    assert "must end in .parquet, .npz, .csv" in fails("--output", "x.html")
    assert "There is something at" in fails("--output", there)
    assert "There is no folder" in fails("--output", tmp_path / "no" / "x.csv")
    page = ("--nearest", "x.png", "--page", tmp_path, "--overwrite")
    assert "a file is to be written" in fails(*page)
    same = tmp_path / "x.csv"
    assert "must be two files" in fails(
        "--nearest", "x.png", "--page", same, "--output", f"{tmp_path}/./x.csv"
    )
    assert "`--top` must be a positive" in fails("--nearest", "x.png", "--top", 0)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install 'keras-vit[embed]'" in fails("--output", tmp_path / "x.parquet")
    assert "no such model" in fails("--output", tmp_path / "x.csv")


@pytest.mark.one_backend
def test_mistakes_of_a_query_or_a_layer(model, folder, tmp_path, capsys):
    def fails(*arguments):
        assert run("embed", model[1], folder, *arguments) == 2
        return capsys.readouterr().err

    assert "no.png: there is no such file" in fails("--nearest", tmp_path / "no.png")
    assert "takes one image" in fails("--nearest", folder)
    assert "one vector" in fails("--layer", "block_0", "--output", tmp_path / "x.csv")
    assert "must be 'pooled' or one of" in fails("--layer", "x", "--nearest", "a.png")
    assert os.listdir(tmp_path) == []
