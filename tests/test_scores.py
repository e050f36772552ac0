"""Published scores of presets on ImageNet and the test sets of its classes."""

import csv
import re
from pathlib import Path

import pytest

import keras_vit
from keras_vit.presets import PRESETS, Preset, google, timm_scores
from keras_vit.presets.timm_scores import DATA_SETS

pytestmark = pytest.mark.one_backend

ROWS = {
    address.removeprefix("hf://timm/"): row
    for row in PRESETS.values()
    for address in row.addresses
    if address.startswith("hf://timm/")
}
B16 = PRESETS["ViTB16.augreg_timm_imagenet21k+imagenet2012"]


def table():
    with Path(timm_scores.__file__).with_suffix(".csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_row_of_timm_s_scores_is_of_a_preset_at_its_resolution():
    names = [row["model"] for row in table()]
    assert len(names) > 130
    assert names == sorted(set(names))
    for row in table():
        preset = ROWS[row["model"]]
        assert (preset.resolution, preset.classes) == (int(row["image_size"]), 1000)
        scores = {name: float(row[name]) for name in DATA_SETS if row[name]}
        found = {name: score.accuracy for name, score in preset.scores.items()}
        assert found == scores, preset.name


def test_scores_are_percentages_in_the_order_in_which_the_data_sets_are_hard():
    """ReaL corrects labels of ImageNet; each other test set is harder than ImageNet."""
    for row in table():
        scores = {name: float(row[name]) for name in DATA_SETS if row[name]}
        assert list(scores)[:2] == ["imagenet2012", "imagenet_real"], row
        assert all(0 < score < 100 for score in scores.values()), row
        first = scores["imagenet2012"]
        assert 1 < scores["imagenet_real"] - first < 8, row
        assert all(scores[n] < first for n in ("imagenet_a", "imagenet_sketch")), row
        if "imagenet_v2" in scores:  # about ten points lower, as its paper found
            assert 7 < first - scores["imagenet_v2"] < 14, row
            assert scores["imagenet_r"] > scores["imagenet_sketch"], row


def test_a_checkpoint_has_one_score_of_timm_s_on_imagenet():
    compared = 0
    for row in PRESETS.values():
        timm = row.scores.get("imagenet2012")
        if timm and row.accuracy_source == google.TIMM_RESULTS:
            assert row.accuracy == timm.accuracy, row.name
            compared += 1
        elif timm:  # from another source, with other crops
            assert abs(row.accuracy - timm.accuracy) < 0.6, row.name
    assert compared > 100


def test_scores_of_a_preset_name_their_sources():
    assert list(B16.scores) == list(DATA_SETS)
    assert B16.scores["imagenet_a"] == (63.027, "timm's results-imagenet-a.csv")
    assert B16.published("imagenet_real") == 89.967
    card = PRESETS["ViTM16.sbb_reg4_imagenet2012-256"]  # trained after V2's table
    assert (card.published("imagenet_v2"), card.published("imagenet_r")) == (None, None)
    assert card.published("imagenet_a") == 34.040
    with pytest.raises(
        ValueError, match="`data_set` must be one of 'imagenet2012', .*data_set='real'"
    ):
        B16.published("real")


def test_without_timm_s_the_accuracy_is_the_score_of_a_classifier():
    own = PRESETS["ViTB16.augreg_imagenet21k+imagenet2012"]  # other weights than timm's
    assert own.scores == {"imagenet2012": (own.accuracy, own.accuracy_source)}
    linear = PRESETS["ViTB14.dinov2"]
    assert linear.accuracy is not None
    assert linear.scores == {}
    assert linear.published("imagenet2012") is None


def test_no_score_of_another_resolution():
    facts = {"architecture": "ViTB16", "tag": "x", "family": "ViT", "classes": 1000}
    address = ("hf://timm/vit_base_patch16_384.augreg_in21k_ft_in1k",)
    assert Preset(**facts, addresses=address, resolution=384).scores == B16.scores
    for resolution in (224, (384, 384)):
        assert Preset(**facts, addresses=address, resolution=resolution).scores == {}


def test_a_description_shows_the_scores():
    text = str(keras_vit.describe(B16))
    assert re.search(r"ImageNet-1k top-1 +86\.006 %\nas stated by +timm's results-im", text)
    assert "by timm" not in text
    for line in (
        *("ImageNet-ReaL top-1 +89.967 %", "ImageNetV2 top-1 +76.49 %"),
        *("ImageNet-A top-1 +63.027 %", "ImageNet-R top-1 +60.183 %"),
        "ImageNet-Sketch top-1 +45.882 %\nas stated by +timm's tables",
    ):
        assert re.search(line, text)
    text = str(keras_vit.describe("ViTB16.imagenet21k+imagenet2012-224"))
    assert re.search(r"top-1 +81\.2 %\nas stated by +README of google-research", text)
    assert re.search(r"ImageNet-1k top-1 by timm +81\.786 %\nImageNet-ReaL", text)
    assert "ReaL" not in str(keras_vit.describe("ViTB14.dinov2"))


def test_the_table_of_the_scores_of_a_family():
    lines = keras_vit.list_presets("CLIP fine-tuned").scores().split("\n")
    assert re.split("  +", lines[0]) == [
        "name",
        *(title for title, _ in DATA_SETS.values()),
    ]
    assert len(lines) == 1 + 24  # and five with other classes
    assert lines[1].split() == [
        *("ViTB32.clip_laion2b+imagenet12k+imagenet2012", "83.3", "87.8", "72.5", "30.7"),
        *("57.1", "45.7"),
    ]
