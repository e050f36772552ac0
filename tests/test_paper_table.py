"""The paper's table from end to end, with a tiny model and data sets written here."""

import json

import numpy as np
import pytest
from helpers import tiny
from prepared_tfds import serialized, write_prepared

from benchmarks.paper import __main__ as paper
from benchmarks.paper.cells import UNTRAINED, Cell, Setting
from benchmarks.paper.few_shot import FewShotCell
from benchmarks.paper.rows import COLUMNS, MODELS, REAL, Column, FewShotModel, Model
from benchmarks.paper.table import markdown, measured
from keras_vit.evaluation.imagenet import wordnet_ids

pytestmark = pytest.mark.one_backend
SIDE = 8
RECIPE = {"steps": 2, "warmup_steps": 1, "batch_size": 4, "image_size": SIDE}
TRIAL = Column("imagenet2012", "ImageNet", "imagenet2012")
CIFAR = Column("cifar10", "CIFAR-10", "cifar10", {}, 20, (SIDE, SIDE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, and ImageNet, ReaL and CIFAR-10 in small."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("paper")
    tiny(image_size=SIDE, num_layers=1, classes=0).save(folder / "vit.keras")
    rng = np.random.default_rng(0)

    def write(name, splits, names, real=False):
        classes = tfds.features.ClassLabel(names=names)
        fields = {"label": classes}
        if real:
            several = tfds.features.Sequence(classes)
            fields = {"original_label": classes, "real_label": several}
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(), **fields})

        def record(number):
            label = number % len(names)
            values = {"label": label}
            if real:
                values = {"original_label": label, "real_label": [label, 3]}
            image = rng.integers(0, 256, (SIDE, SIDE, 3), "uint8")
            return serialized(features, {"image": image, **values})

        shards = {split: [list(map(record, range(n)))] for split, n in splits.items()}
        version = str(tfds.builder(name, data_dir=folder / "tfds").info.version)
        write_prepared(folder / "tfds", name, features, shards, version)

    ids = wordnet_ids()
    write("imagenet2012", {"train": 1000, "validation": 20}, ids)
    write("imagenet2012_real", {"validation": 12}, ids, real=True)
    names = [str(i) for i in range(10)]
    write("cifar10", {"train": 100, "test": 30}, names)
    return folder


@pytest.fixture
def setting(folder, tmp_path):
    options = {"dtype": "float32", "strategy": "none"}
    data_dir = str(folder / "tfds")
    return Setting(tmp_path / "out", data_dir, (0, 1), options, RECIPE)


@pytest.fixture
def model(folder):
    source = str(folder / "vit.keras")
    return Model("ViT", "noise", source, {"cifar10": 50.0, REAL: 90.0}, core_days=10)


def test_a_table_is_measured_once(setting, model, capsys, monkeypatch):
    splits = {"train": "train", "validation": "validation", "test": "validation"}
    imagenet = Column("imagenet2012", "ImageNet", "imagenet2012", {"splits": splits})
    columns = (imagenet, Column(REAL, "ImageNet-ReaL"), CIFAR)
    monkeypatch.setattr("benchmarks.paper.cells.COLUMNS", columns)
    unpublished = Model("ViT-H/14", "JFT-300M", published={"cifar10": 99.5}, core_days=2500)
    rows = paper.grid(setting, (model, unpublished), columns)
    assert rows[0][1].missing() == "needs the runs of ImageNet"
    assert list(paper.run(rows, ())) == []
    for cell in rows[0]:
        files = [cell.folder(seed) / "results.json" for seed in (0, 1)]
        read = [100 * json.loads(file.read_text())["accuracy"] for file in files]
        assert cell.accuracies() == read
        assert len(read) == 2
    table = paper.write(rows, (), setting.output)
    first, second = rows[0][2].accuracies()
    mean, deviation = (first + second) / 2, abs(first - second) / 2**0.5
    assert f"{mean:.2f} ± {deviation:.2f} [50.00, {mean - 50:+.2f}]" in table
    assert "(1) [99.50]" in table
    assert "(1) weights are not published" in table
    assert (setting.output / "compute.png").stat().st_size > 10_000
    kept = json.loads((setting.output / "table.json").read_text())
    assert [cell["accuracies"] for cell in kept[:3]] == [c.accuracies() for c in rows[0]]

    def never(*args, **options):
        raise AssertionError("measured twice")

    for name in ("fine_tune", "evaluate_imagenet"):
        monkeypatch.setattr(f"keras_vit.runs.{name}", never)
    assert list(paper.run(rows, ())) == []


def test_a_cell_that_fails_does_not_end_the_others(setting, model):
    broken = Model("broken", "noise", str(setting.output / "nothing.keras"))
    one = Setting(setting.output, setting.data_dir, (0,), setting.options, RECIPE)
    rows = paper.grid(one, (broken, model), (CIFAR,))
    failures = list(paper.run(rows, ()))
    assert len(failures) == 1
    assert failures[0].startswith("broken (noise), CIFAR-10, seed 0: ")
    assert len(rows[1][0].accuracies()) == 1
    assert "not run yet" in markdown(rows)
    two = paper.grid(setting, (model,), (CIFAR,))[0][0]
    assert "(1 of 2 to run)" in measured(two)


def test_few_shot_by_pre_training(setting, folder):
    shot = FewShotModel("ViT", "noise", 1000, str(folder / "vit.keras"))
    cell = FewShotCell(shot, setting, data="cifar10", split="test", shots=2)
    assert cell.point() is None
    cell.run()
    point = cell.point()
    row = json.loads(cell.path.read_text())["results"][0]
    assert len(row["accuracy_by_seed"]) == 2
    assert point.accuracy == pytest.approx(np.mean(row["accuracy_by_seed"]))
    assert (row["shots"], point.half_width >= 0) == (2, True)
    paper.write(paper.grid(setting, MODELS[:1], COLUMNS[:1]), [cell], setting.output)
    assert (setting.output / "few_shot.png").stat().st_size > 10_000


def test_dry_run_of_the_paper(tmp_path, capsys):
    arguments = [str(tmp_path / "out"), "--data-dir", str(tmp_path), "--dry-run"]
    assert paper.main(arguments) == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert "ViT-H/14 (JFT-300M), ImageNet\n  weights are not published\n" in printed
    assert "data not prepared: tfds build cifar100" in printed
    flowers = (
        "finetune oxford_flowers102 --weights ViTL16.imagenet21k --recipe vit --seed 2"
    )
    assert flowers in printed
    assert "--imagenet imagenet_real" in printed
    assert "the paper does not fine-tune this network" in printed


def test_compute_of_a_cell(tmp_path):
    """Three seeds of 500 steps of 512 images of 384 pixels, by hand for L/16.

    23 whole blocks; of the last one keys and values of all tokens, the rest of one token.
    """
    tokens, width = 24 * 24 + 1, 1024
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    last = tokens * 2 * width**2 + 10 * width**2 + 2 * tokens * width
    image = 24 * 24 * 768 * width + 23 * block + last
    model = next(m for m in MODELS if m.preset == "ViTL16.imagenet21k")
    column = next(column for column in COLUMNS if column.name == "oxford_flowers102")
    cell = Cell(model, column, Setting(tmp_path))
    expected = 3 * 500 * 512 * 3 * 2 * image / 1e18
    assert cell.exaflops() == pytest.approx(expected, rel=1e-3)


def test_commands_are_commands(tmp_path):
    """Every printed command is one that the command line takes."""
    import shlex

    from keras_vit.cli import _parser

    for cells in paper.grid(Setting(tmp_path / "a b", "/data")):
        for cell in cells:
            if cell.model.preset is not None and cell.missing() != UNTRAINED:
                program, *words = shlex.split(cell.command(0))
                if program == "python":
                    assert words[:2] == ["-m", "benchmarks.paper"]
                    paper._parser().parse_args(words[2:])
                else:
                    assert program == "keras-vit"
                    _parser().parse_args(words)
    for model in paper.FEW_SHOT_MODELS:
        _, *words = shlex.split(FewShotCell(model, Setting(tmp_path)).command())
        _parser().parse_args(words)
