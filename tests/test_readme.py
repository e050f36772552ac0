"""The README: its tables and lists are those of the code, and its Python runs in order as it
stands, with tiny models and data."""

import functools
import inspect
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit.zoo.constructors import CONSTRUCTORS

pytestmark = pytest.mark.one_backend

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
# What takes a network, several devices or too long, and what stands for it here.
SUBSTITUTES = {
    '"oxford_flowers102", data_dir="/data/tfds"': '"photos"',
    '"fully_sharded"': '"auto"',
    "base_learning_rate=0.003\n": "base_learning_rate=0.003, batch_size=4\n",
    '"ViTB16.augreg_imagenet21k+imagenet2012", merged': '"ViT-B_16.npz", merged',
    '"hf://facebook/dinov2-with-registers-base"': '"ViT-B_16.npz"',
    "keras_vit.distribution.initialize()": "pass",
}


def names_in(text):
    return re.findall(r"`([^`]+)`", text)


def test_table_of_constructors():
    """Name, parameters, the default of `weights`, and the number of other tags."""
    table = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| (.+) \|$", TEXT, re.M)
    expected = []
    for name in keras_vit.__all__:
        constructor = getattr(keras_vit, name)
        is_function = inspect.isfunction(constructor)
        parameters = inspect.signature(constructor).parameters if is_function else {}
        if "include_top" not in parameters:
            continue
        default = parameters["weights"].default
        tags = [p.tag for p in keras_vit.list_presets() if p.architecture == name]
        weights = f"`{default}`" if tags else "none"
        weights += f" and {len(tags) - 1} more" if len(tags) > 1 else ""
        expected.append((name, f"{keras_vit.describe(name).parameters:,}", weights))
    assert sorted(table) == sorted(expected)


def test_table_of_families():
    """Every family of presets with its number of rows; tags that are written out exist."""
    _, _, rest = TEXT.partition("| family | rows | tags |\n|---|---|---|\n")
    table = re.findall(r"^\| ([^|]+) \| (\d+) \| (.+) \|$", rest.partition("\n\n")[0], re.M)
    listed = []
    for families, rows, tags in table:
        families = families.split(", ")
        presets = [p for p in keras_vit.list_presets() if p.family in families]
        assert len(presets) == int(rows), families
        for tag in names_in(tags):
            assert any(tag.strip("…") in preset.tag for preset in presets), tag
        listed += families
    assert sorted(listed) == sorted({p.family for p in keras_vit.list_presets()})


def test_list_of_layers():
    paragraph = re.search(r"public too \(`keras_vit\.layers`\):(.*?)\n\n", TEXT, re.S)[1]
    assert sorted(names_in(paragraph)) == sorted(keras_vit.layers.__all__)


def tiny(weights=None, input_shape=(224, 224, 3), classes=1000, **fields):
    """A model of as many blocks as B/16, with any weights."""
    fields = {"image_size": input_shape[:2], **fields}
    sizes = {"hidden_dim": 16, "num_layers": 12, "num_heads": 2, "mlp_dim": 16}
    return keras_vit.VisionTransformer(
        patch_size=16,
        classes=classes,
        **{"classifier_activation": "softmax", **sizes, **fields},
    )


def picture(path, color):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(color).integers(0, 256, (40, 48, 3), "uint8")
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the README names."""
    for i in range(12):
        for name in ("flowers", "photos"):
            picture(tmp_path / name / ("daisy", "tulip")[i % 2] / f"{i}.png", i)
    rows = [
        f"flowers/{n}/{i}.png,{n}" for i in range(4) for n in [("daisy", "tulip")[i % 2]]
    ]
    (tmp_path / "photos.csv").write_text("\n".join(["path,label", *rows]))
    picture(tmp_path / "new.jpg", 99)
    keras_vit.save_weights(tiny(), tmp_path / "ViT-B_16.npz", layout="google")
    (tmp_path / "runs" / "flowers").mkdir(parents=True)
    tiny(classes=2).save(tmp_path / "runs" / "flowers" / "best.keras")
    names = {str(i): [f"n{i:08d}", f"class_{i}"] for i in range(1000)}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "imagenet_class_index.json").write_text(json.dumps(names))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_VIT_OFFLINE", "1")
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())  # which a block sets
    return tmp_path


@pytest.fixture
def short(monkeypatch):
    """Constructors of tiny models, and trainings of a step."""
    for name in ("ViTTi16", "ViTB16", "ViTL16", "ViTH14"):
        monkeypatch.setattr(keras_vit, name, tiny)
        monkeypatch.setitem(CONSTRUCTORS, name, tiny)  # from which `runs` takes them
    fit = keras.Model.fit

    @functools.wraps(fit)
    def of_one_step(self, *arguments, **options):
        if "steps_per_epoch" in options:
            options |= {"steps_per_epoch": 1, "epochs": 1}
        return fit(self, *arguments, **{**options, "verbose": 0})

    monkeypatch.setattr(keras.Model, "fit", of_one_step)


def test_every_block_runs_after_those_before_it(folder, short):
    text, names = "\n".join(BLOCKS), {}
    assert [part for part in SUBSTITUTES if part not in text] == []
    for block in BLOCKS:
        if "exporting.export" in block and keras.backend.backend() != "torch":
            continue
        for part, ours in SUBSTITUTES.items():
            block = block.replace(part, ours)
        try:
            exec(compile(block, "README.md", "exec"), names)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}\nin the block\n{block}")
