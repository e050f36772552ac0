"""The rows of published checkpoints, AugReg's names, and the tables to read."""

import copy
import inspect
import math
import random
import re

import keras
import numpy as np
import pytest
from helpers import array

import keras_vit
from keras_vit.layers.rotary import checked_rope
from keras_vit.models.sizes import (
    BITS,
    HYBRIDS,
    architecture_fields,
    count_parameters,
    image_size_of,
)
from keras_vit.presets import (
    PRESETS,
    Preset,
    aimv2,
    augreg,
    augreg_preset,
    beit,
    big_vision,
    bit,
    clip,
    efficientnet,
    find_preset,
    google,
    hugging_face,
    is_augreg_name,
    is_vtab_name,
    meta,
    parse_augreg,
    rotary,
    timm,
    vtab_preset,
)
from keras_vit.presets.preset import PERMISSIVE
from keras_vit.weights.layouts import timm_eva_names

pytestmark = pytest.mark.one_backend

ROWS = list(PRESETS.values())
RESTRICTED = (
    *("CC-BY-NC-4.0", "apple-ascl", "apple-amlr", "dinov3-license"),
    "fair-noncommercial-research-license",
)
UNNAMED = ("BiT", "FlexiViT", "Noisy Student")  # timm's names say no patch of theirs
FAMILIES = {
    *("ViT", "SAM", "AugReg", "BigVision", "FlexiViT", "SigLIP", "SigLIP 2"),
    *("DeiT", "DeiT-3", "MAE", "MoCo v3", "DINO", "I-JEPA", "DINOv2"),
    *("CLIP", "CLIP fine-tuned"),
    *("DFN", "MobileCLIP2", "MetaCLIP", "MetaCLIP 2", "TinyCLIP", "Hugging Face", "timm"),
    *("EVA", "EVA-02", "MIIL", "TIPSv2", "BiT", "Noisy Student"),
    *("AIMv2", "DINOv3", "EUPE", "Perception Encoder", "RoPE-ViT", "BEiT", "BEiT v2"),
}
PRETRAINED = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
FINETUNED = f"{PRETRAINED}--imagenet2012-steps_20k-lr_0.03-res_384"
VTAB = "BiT-M-R50x1-run0-caltech101"
# As the README of google-research/big_transfer spells them.
VTAB_TASKS = """
    caltech101 diabetic_retinopathy dtd oxford_flowers102 oxford_iiit_pet resisc45 sun397
    cifar100 eurosat patch_camelyon smallnorb-elevation svhn dsprites-orientation
    smallnorb-azimuth clevr-distance clevr-count dmlab kitti-distance dsprites-xpos
"""
# Of these, timm, keras-hub or DINOv2's README tell the number to two decimals or better.
PARAMETERS = {
    "ViTB16.augreg_imagenet21k+imagenet2012": 86_859_496,
    "ViTB16.mae": 85_798_656,
    "ViTH14.mae": 630_764_800,
    "ViTSo400m14.siglip-384": 428_225_600,
    # The file holds 1,136,486,912: a mask token of 1536 more.
    "ViTgiant14.dinov2_registers": 1_136_485_376,
}
# In millions, to two decimals: timm's results-imagenet.csv, and for "sbb" the model card of
# vit_mediumd_patch16_reg4_gap_384.
MILLIONS = {
    "ViTB32.clip_laion2b+imagenet12k+imagenet2012-448": 88.34,
    "ViTB16.clip_openai+imagenet2012-384": 86.86,
    "ViTL14.clip_openai+imagenet12k+imagenet2012-336": 304.53,
    "ViTH14.clip_laion2b+imagenet12k+imagenet2012-336": 632.46,
    "ViTL14.eva_imagenet21k+imagenet2012-196": 304.14,
    "ViTL14.eva_imagenet21k+imagenet21k+imagenet2012-336": 304.53,
    "ViTB16.miil_imagenet21k+imagenet2012": 86.54,
    "ViTB16.sw_rpn_imagenet2012": 86.54,
    "ViTM16.sw_imagenet12k+imagenet2012-256": 38.86,
    "ViTM16.sw_imagenet12k+imagenet2012-384": 39.03,
    "ViTwee16.sbb_reg1_imagenet2012-256": 13.42,
    "ViTlittle16.sbb_reg4_imagenet2012-256": 22.52,
    "ViTM16.sbb_reg4_imagenet2012-256": 38.88,
    "ViTmediumd16.sbb2_e200_reg4_imagenet12k+imagenet2012-256": 64.11,
    "ViTbetwixt16.sbb_reg1_imagenet2012-256": 60.40,
    "ViTB16.beit_imagenet21k+imagenet21k+imagenet2012-384": 86.74,
    "ViTL16.beit_imagenet21k+imagenet21k+imagenet2012-512": 305.67,
    "ViTB16.beitv2_imagenet2012+imagenet2012-224": 86.53,
    "ViTg14.eva_clip+imagenet2012-224": 1012.56,
    "ViTg14.eva_merged30m+imagenet21k+imagenet2012-560": 1014.45,
    "ViTS14.eva02_imagenet21k+imagenet2012-336": 22.13,
    "ViTB14.eva02_imagenet21k+imagenet2012-448": 87.12,
    "ViTL14.eva02_merged38m+imagenet21k+imagenet2012-448": 305.08,
    "RViTTi16.augreg_imagenet21k+imagenet2012": 6.36,
    "RViTTi16.augreg_imagenet21k+imagenet2012-224": 6.34,
    "R26ViTS32.augreg_imagenet21k+imagenet2012": 36.47,
    "R26ViTS32.augreg_imagenet21k+imagenet2012-224": 36.43,
    "R50ViTB16.imagenet21k+imagenet2012": 98.95,
    "R50ViTL32.augreg_imagenet21k+imagenet2012": 329.09,
    "R50ViTL32.augreg_imagenet21k+imagenet2012-224": 328.99,
    "BiTR50x1.imagenet21k+imagenet2012": 25.55,
    "BiTR50x3.imagenet21k+imagenet2012": 217.32,
    "BiTR101x1.imagenet21k+imagenet2012": 44.54,
    "BiTR101x3.imagenet21k+imagenet2012": 387.93,
    "BiTR152x2.imagenet21k+imagenet2012": 236.34,
    "BiTR152x4.imagenet21k+imagenet2012": 936.53,
}


# The first row of each architecture, and of each config.
ARCHITECTURES = {row.architecture: row for row in reversed(ROWS)}
CONFIGS = {  # without images and classes, which change no other layer
    repr(sorted((row.config() | {"image_size": 0, "classes": 0}).items())): row
    for row in reversed(ROWS)
}


def model_class(config):
    if "num_blocks" in config:
        return keras_vit.EfficientNet
    return keras_vit.BiTResNet if "num_units" in config else keras_vit.VisionTransformer


def parameters_of_a_model(config):
    """Without network, and without memory for weights."""
    try:
        with keras.StatelessScope(initialize_variables=False):
            model = model_class(config)(**config)
            return sum(math.prod(weight.shape) for weight in model.trainable_weights)
    finally:
        # Keras would give these weights memory together with those of a later `fit`.
        keras.utils.clear_session()


@pytest.mark.parametrize("row", ARCHITECTURES.values(), ids=lambda row: row.name)
def test_a_row_alone_builds_its_model(row):
    config = row.config()
    if row.parameters > 1e9:  # which take memory and time; their blocks are all alike
        config["num_layers"] = 2
    assert parameters_of_a_model(config) == count_parameters(**config)


@pytest.mark.parametrize("row", CONFIGS.values(), ids=lambda row: row.name)
def test_every_row_builds_a_model_of_one_block(row):
    """And of one unit a stage; the others take the time and are the architecture's."""
    config = row.config()
    stages = next((name for name in ("num_units", "num_blocks") if name in config), None)
    if stages:
        config[stages] = (1,) * len(config[stages])
    else:
        config["num_layers"] = 1
    if stem := config.get("stem"):
        config["stem"] = stem | {"num_units": (1,) * len(stem["num_units"])}
    assert parameters_of_a_model(config) == count_parameters(**config)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_that_others_state(name):
    assert PRESETS[name].parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", MILLIONS)
def test_millions_of_parameters_that_timm_states(name):
    assert round(PRESETS[name].parameters / 1e6, 2) == MILLIONS[name]


@pytest.mark.parametrize(
    ("size", "num_layers", "width", "mlp_dim", "billions"),
    [
        ("L", 24, 1024, 2816, 0.3),
        ("H", 24, 1536, 4096, 0.6),
        ("1B", 24, 2048, 5632, 1.2),
        ("3B", 24, 3072, 8192, 2.7),
    ],
)
def test_parameters_of_aimv2(size, num_layers, width, mlp_dim, billions):
    """By hand, and the billions of its README, which rounds down."""
    block = (4 * width + 3 * mlp_dim + 2) * width  # attention, gated MLP, two RMS norms
    for resolution in (224, 336, 448):
        row = PRESETS[f"ViTAIM{size}14.aimv2-{resolution}"]
        patches = 14 * 14 * 3 + 1 + 1 + (resolution // 14) ** 2  # bias, norm, positions
        assert row.parameters == width * patches + num_layers * block + width
        assert math.floor(row.parameters / 1e8) / 10 == billions


def test_parameters_of_arguments_that_no_preset_has():
    config = {
        **{"image_size": (32, 48), "patch_size": 8, "hidden_dim": 48, "num_layers": 2},
        **{"num_heads": 4, "mlp_dim": 96, "classes": 5},
    }
    for fields in (
        {"qkv_bias": False, "qk_norm": True},
        {"pooling": None, "num_registers": 3, "classes": 0},
        {"pooling": "gap", "class_token": True, "fc_norm": True, "position": "none"},
        {"pre_norm": True, "patch_bias": True, "mlp": "swiglu", "pooling": "map"},
    ):
        model = keras_vit.VisionTransformer(**{**config, **fields})
        assert count_parameters(**{**config, **fields}) == model.count_params()


def test_names_are_unique_and_well_formed():
    modules = (
        augreg,
        google,
        big_vision,
        meta,
        clip,
        hugging_face,
        timm,
        rotary,
        beit,
        bit,
    )
    modules += (efficientnet, aimv2)
    assert sum(len(module.PRESETS) for module in modules) == len(PRESETS)
    for name, row in PRESETS.items():
        assert name == row.name == f"{row.architecture}.{row.tag}"
        assert re.fullmatch(r"[a-z0-9_+]+(-\d+(ep)?)?", row.tag), row.tag
        assert architecture_fields(row.architecture)
    assert {row.family for row in ROWS} == FAMILIES


def test_addresses_are_unique_and_well_formed():
    addresses = [address for row in ROWS for address in row.addresses]
    assert len(set(addresses)) == len(addresses)
    patterns = (
        r"gs://(vit_models|big_vision|bit_models)/[\w./+-]+\.npz(:img)?",
        r"https://dl\.fbaipublicfiles\.com/[\w./-]+\.pth(\.tar)?",
        r"hf://[\w-]+/[\w.-]+",
    )
    for address in addresses:
        assert any(re.fullmatch(pattern, address) for pattern in patterns), address
    assert not any(row.address.endswith(".pth") for row in ROWS)
    assert PRESETS["ViTL16.imagenet21k"].address == (
        "gs://vit_models/imagenet21k/ViT-L_16.npz"
    )
    assert PRESETS["R50ViTB16.imagenet21k+imagenet2012"].addresses == (
        "gs://vit_models/imagenet21k+imagenet2012/R50+ViT-B_16.npz",
        "hf://timm/vit_base_r50_s16_384.orig_in21k_ft_in1k",
    )
    assert PRESETS["BiTR152x4.imagenet2012"].address == ("gs://bit_models/BiT-S-R152x4.npz")


def test_resolutions_are_multiples_of_the_patch():
    for row in ROWS:
        fields = architecture_fields(row.architecture)
        patch_size = fields.get("patch_size")
        if patch_size:  # BiT has none
            token, _ = image_size_of((1, 1), patch_size, fields.get("stem"))
            assert row.resolution % token == 0, row.name
        stated = re.search(r"-(\d+)$", row.tag)
        # At a nominal 384 pixels, patches of 14 read 378.
        if stated and patch_size != 14:
            assert row.resolution == int(stated[1]), row.name


def test_rows_are_what_timm_s_names_say():
    """Patch and resolution, the width of the pre-trained towers, and the kind of pooling."""
    compared = 0
    for row in ROWS:
        if row.family in UNNAMED or not row.address.startswith("hf://timm/"):
            continue
        name, _, tag = row.address.removeprefix("hf://timm/").partition(".")
        patch, resolution = re.search(r"_patch(\d+)_(?:.*_)?(\d{3})?", name).groups()
        config = row.config()
        assert config["patch_size"] == int(patch), row.name
        assert resolution is None or row.resolution == int(resolution), row.name
        if row in rotary.PRESETS:
            stated = checked_rope(timm_eva_names.rope_of(name, {}))
            assert checked_rope(config.get("rope")) == stated, row.name
        else:
            has_gap = any(part in name for part in ("_gap_", "_rpn_", "eva", "beit"))
            assert has_gap == (config.get("pooling") == "gap")
            assert ("_rpn_" in name) == config.get("norm_after", False), row.name
            registers = re.search(r"_reg(\d)", name)
            assert config.get("num_registers", 0) == int(registers[1] if registers else 0)
            assert ("_clip_" in name) == config.get("pre_norm", False), row.name
        classes = {"in1k": 1000, "in12k": 11821}.get(tag.rpartition("_")[2], row.classes)
        assert row.classes == classes, row.name
        compared += 1
    assert compared > 100


def test_sizes_of_files_are_those_of_their_parameters():
    """4 bytes each and a small archive overhead, within the rounding of the listing."""
    rows = [row for row in ROWS if row.size_bytes]
    assert len(rows) > 20
    for row in rows:
        # That file has the optimizer's state too.
        copies = 3 if row.name == "ViTS16.sam_imagenet2012" else 1
        # AugReg's listing is of whole MiB, some of them rounded up; the other one of
        # hundredths of MiB, or of GiB.
        rounding = 0.005 if row.size_bytes < 2**30 else 5.2
        rounding = 0.6 if row.family == "AugReg" else rounding
        difference = (row.size_bytes - copies * 4 * row.parameters) / 2**20
        assert -rounding <= difference <= rounding + 0.1 * copies, row.name


def test_preprocessing_and_scores_are_plausible():
    for row in ROWS:
        steps = row.preprocessing
        assert len(steps.mean) == len(steps.std) == 3
        assert steps.crop_fraction is None or 0.8 <= steps.crop_fraction <= 1
        assert steps.interpolation in ("bilinear", "bicubic", "area", None)
        assert row.license in (*PERMISSIVE, *RESTRICTED, None)
        assert row.is_restricted == (row.license in RESTRICTED)
        assert re.search(r"\(arXiv \d{4}\.\d{5}\)$", row.paper)
        if row.accuracy is not None:
            assert 60 < row.accuracy < 91
            assert row.accuracy_source


def test_fields_are_arguments_that_differ_from_their_defaults():
    for row in ROWS:
        defaults = inspect.signature(model_class(row.config())).parameters
        for name, value in row.fields.items():
            assert value != defaults[name].default, (row.name, name)


def test_hybrids_and_bit_are_classifiers_of_imagenet_by_default():
    rows = {row.architecture: row for row in reversed(ROWS)}
    for architecture in [*HYBRIDS, *BITS]:
        expected = 21843 if architecture == "R26ViTB32" else 1000  # its only file
        assert rows[architecture].classes == expected


def test_a_row_cannot_be_changed():
    row = PRESETS["ViTB16.mae"]
    with pytest.raises(AttributeError):
        row.tag = "other"
    with pytest.raises(TypeError):
        row.fields["pooling"] = "gap"
    assert len({row, row}) == 1


@pytest.mark.parametrize(
    "name",
    [
        *("B16", "ViTX16", "ViTB", "ViTB_16", "ViTSo150m2_", "ViT16"),
        *("R50ViTB32", "RViTB16", "BiTR50x2", "BiT"),
    ],
)
def test_an_architecture_is_a_size_and_a_patch_or_a_resnet(name):
    with pytest.raises(
        ValueError,
        match=f"R50ViTL32, BiTR50x1.*Received: '{name}'. Sizes: Ti, Xs",
    ):
        architecture_fields(name)


def test_a_recipe_is_what_a_name_says():
    recipe = parse_augreg(f"gs://vit_models/augreg/{FINETUNED}.npz")
    assert recipe == augreg.AugRegRecipe(
        file=FINETUNED,
        architecture="ViTB16",
        dataset="i21k",
        epochs=300,
        learning_rate=0.001,
        augmentation="medium1",
        weight_decay=0.1,
        dropout=0.0,
        stochastic_depth=0.0,
        task="imagenet2012",
        steps=20_000,
        finetuning_learning_rate=0.03,
        resolution=384,
    )
    recipe = parse_augreg(PRETRAINED)
    assert (recipe.task, recipe.steps, recipe.resolution) == (None, None, 224)


@pytest.mark.parametrize(
    "row", [r for r in ROWS if "/augreg/" in r.address], ids=lambda row: row.name
)
def test_names_of_augreg_rows_are_read_as_the_rows(row):
    recipe = parse_augreg(row.address)
    assert (recipe.architecture, recipe.resolution) == (row.architecture, row.resolution)
    assert augreg_preset(recipe.file) is row


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("Ti_16-i1k-300ep-lr_0.001-aug_none-wd_0.03-do_0.1-sd_0.1", ("ViTTi16", 224, 1000)),
        (PRETRAINED.replace("300ep", "30ep"), ("ViTB16", 224, 21843)),
        (f"{PRETRAINED}--cifar100-steps_10k-lr_0.001-res_224", ("ViTB16", 224, 100)),
        (f"{PRETRAINED}--cifar10-steps_2k-lr_0.01-res_384", ("ViTB16", 384, 10)),
        (f"{PRETRAINED}--oxford_iiit_pet-steps_0k-lr_0.003-res_384", ("ViTB16", 384, 37)),
        (f"{PRETRAINED}--pets37-steps_0k-lr_0.003-res_224", ("ViTB16", 224, 37)),
        (f"{PRETRAINED}--resisc45-steps_2k-lr_0.03-res_224", ("ViTB16", 224, 45)),
        (f"{PRETRAINED}--kitti-steps_0k-lr_0.03-res_224", ("ViTB16", 224, 4)),
        (PRETRAINED.replace("B_16", "R_Ti_16"), ("RViTTi16", 224, 21843)),
        (PRETRAINED.replace("B_16", "R26_S_32"), ("R26ViTS32", 224, 21843)),
        (FINETUNED.replace("B_16", "R50_L_32"), ("R50ViTL32", 384, 1000)),
    ],
)
def test_any_augreg_file_has_a_row(file, expected):
    for name in (
        file,
        f"{file}.npz",
        f"augreg/{file}",
        f"gs://vit_models/augreg/{file}.npz",
    ):
        assert is_augreg_name(name)
        row = augreg_preset(name)
        assert row.addresses == (f"gs://vit_models/augreg/{file}.npz",)
        assert (row.architecture, row.resolution, row.classes) == expected
    assert row.name == f"{row.architecture}.{file}"
    assert row.accuracy is None


@pytest.mark.parametrize("hybrid", ["R50_B_16", "R_S_16", "R26_Ti_32", "R50_L_16"])
def test_an_unknown_augreg_hybrid(hybrid):
    name = PRETRAINED.replace("B_16", hybrid)
    assert is_augreg_name(name)
    with pytest.raises(
        ValueError,
        match=f"Unknown hybrid '{hybrid}' in '{name}'.*are R_Ti_16, R26_S_32, R50_L_32",
    ):
        parse_augreg(name)


def test_an_unknown_augreg_task():
    with pytest.raises(ValueError, match=r"Unknown task 'birds'.*Known: i1k.*augreg/B_16"):
        augreg_preset(f"{PRETRAINED}--birds-steps_1k-lr_0.01-res_224")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "B_16",
        "ViT-B_16",
        PRETRAINED.replace("aug_medium1", "aug_mild1"),
        PRETRAINED.replace("-wd_0.1", ""),
        PRETRAINED.replace("i21k", "jft"),
        PRETRAINED.replace("lr_0.001", "lr_x"),
        PRETRAINED.replace("B_16", "H_14"),
        f"{PRETRAINED}.npy",
        f"{PRETRAINED}--",
        FINETUNED.removesuffix("-res_384"),
        FINETUNED.replace("steps_20k", "steps_20"),
        f"{FINETUNED} ",
        f"{FINETUNED}--{FINETUNED}",
    ],
)
def test_malformed_augreg_names(name):
    with pytest.raises(ValueError, match="Not the name of an AugReg.*Expected {model}_"):
        parse_augreg(name)


def test_random_changes_of_an_augreg_name_are_read_or_refused():
    """Never another error, and never another reading of what was not changed."""
    rng = random.Random(0)
    for _ in range(2000):
        position = rng.randrange(len(FINETUNED) + 1)
        letter = rng.choice(["", "-", "_", "0", "9", ".", "/", "k", "R", " ", "é"])
        name = FINETUNED[:position] + letter + FINETUNED[position + 1 :]
        try:
            recipe = parse_augreg(name)
        except ValueError:
            continue
        assert recipe.file == name.rsplit("/", 1)[-1]
        assert is_augreg_name(name)


@pytest.mark.parametrize(
    "text", ["ViTB16.augreg_imagenet21k", "imagenet21k", "B_16.npz", "augreg/", "hf://a/b"]
)
def test_other_texts_are_no_augreg_names(text):
    assert not is_augreg_name(text)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (VTAB, ("BiTR50x1", 480, 102)),
        ("BiT-M-R101x1-run1-cifar100", ("BiTR101x1", 128, 100)),
        ("BiT-M-R50x3-run2-dsprites-xpos", ("BiTR50x3", 128, 16)),
        ("BiT-M-R101x3-run0-smallnorb-azimuth", ("BiTR101x3", 480, 18)),
        ("BiT-M-R152x4-run1-kitti-distance", ("BiTR152x4", 480, 4)),
        ("BiT-M-R50x1-run2-diabetic_retinopathy", ("BiTR50x1", 480, 5)),
    ],
)
def test_any_vtab_file_of_bit_has_a_row(file, expected):
    address = f"gs://bit_models/vtab/{file}.npz"
    for name in (file, f"{file}.npz", f"vtab/{file}", address):
        assert is_vtab_name(name)
        row = find_preset(name)
        assert row.addresses == (address,)
        assert (row.architecture, row.resolution, row.classes) == expected
    assert row == vtab_preset(file)
    assert (row.name, row.family) == (f"{row.architecture}.{file}", "BiT")
    assert row.accuracy is None
    assert f"{row.parameters:,}" in str(keras_vit.describe(file))


def test_every_vtab_file_of_bit_has_a_row():
    rows = [
        vtab_preset(f"BiT-M-{resnet}-run{run}-{task}")
        for resnet in ("R50x1", "R101x1", "R50x3", "R101x3", "R152x4")
        for run in range(3)
        for task in VTAB_TASKS.split()
    ]
    assert len({row.address for row in rows}) == 285
    assert {row.resolution for row in rows} == {128, 480}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (VTAB.replace("caltech101", "birds"), "Unknown task 'birds'.*of: caltech101, cif"),
        (VTAB.replace("R50x1", "R152x2"), "Unknown ResNet 'R152x2'.*of: R50x1, R101x1"),
        (VTAB.replace("run0", "run3"), "Unknown run '3'.*of: 0, 1, 2"),
        (VTAB.removesuffix("-caltech101"), "Not the name of a VTAB.*such as '"),
        (VTAB.replace("run0", "runA"), "Not the name of a VTAB.*Expected BiT-M-{ResNet}"),
        (f"{VTAB} ", "Not the name of a VTAB"),
        (f"{VTAB}.h5", "Not the name of a VTAB"),
    ],
)
def test_malformed_vtab_names(name, message):
    assert is_vtab_name(name)
    with pytest.raises(ValueError, match=message):
        find_preset(name)


@pytest.mark.parametrize("text", ["BiT-M-R50x1", "BiTR50x1.imagenet21k", "vtab/", "run0"])
def test_other_texts_are_no_vtab_names(text):
    assert not is_vtab_name(text)


def test_the_list_of_presets_is_a_sequence_and_a_table():
    presets = keras_vit.list_presets()
    assert list(presets) == ROWS
    assert (len(presets), presets[0], presets[-1]) == (len(ROWS), ROWS[0], ROWS[-1])
    assert ROWS[3] in presets
    lines = str(presets[:5]).split("\n")
    assert len(lines) == 6
    assert lines[0].split() == [
        *("name", "parameters", "resolution", "classes", "family", "license", "MiB"),
        "top-1",
    ]
    # Aligned columns: what is numbers ends where its header ends.
    for header in ("parameters", "resolution", "classes", "MiB", "top-1"):
        end = lines[0].index(header) + len(header)
        assert all(
            line[end - 1] != " " and line[end : end + 1] in ("", " ") for line in lines
        )


def test_the_list_of_a_family():
    dinov2 = keras_vit.list_presets("dinov2")
    assert len(dinov2) == 8
    assert {preset.family for preset in dinov2} == {"DINOv2"}
    line = str(dinov2).split("\n")[1]
    assert line.split() == [
        *("ViTS14.dinov2", "22,056,192", "518", "×", "518", "0", "DINOv2", "Apache-2.0"),
        *("-", "81.1"),
    ]
    with pytest.raises(
        ValueError, match="Unknown `family`: 'ResNet'. Families: 'AugReg', 'ViT'"
    ):
        keras_vit.list_presets("ResNet")


def test_a_description_has_everything_of_a_row():
    row = PRESETS["ViTB16.augreg_timm_imagenet21k+imagenet2012"]
    for preset in (row.name, row, row.address, row.address.rsplit("/", 1)[-1]):
        description = keras_vit.describe(preset)
        assert description.preset is row
        text = str(description)
        for value in (
            *(row.name, row.family, row.paper, row.license, *row.addresses),
            *("86,859,496", "86.006 %", row.accuracy_source, "bicubic"),
            *("(0.5, 0.5, 0.5)", "hidden_dim", "3072", "medium1", "recipe: steps"),
        ):
            assert value in text
        keys = [re.split("  +", line)[0] for line in text.split("\n")]
        assert {"paper", "address", "mirror", "size of the file"} <= set(keys)
    assert re.search(r"size of the file +unknown", text)
    assert description.recipe.weight_decay == 0.1
    assert (description.resolution, description.parameters) == (384, 86_859_496)
    assert copy.deepcopy(description).name == row.name
    with pytest.raises(AttributeError):
        description.nothing  # noqa: B018


def test_descriptions_of_every_row_and_of_a_name_without_one():
    for row in ROWS:
        assert keras_vit.describe(row).recipe is None or row.family == "AugReg"
        assert row.name in str(keras_vit.describe(row.name))
    text = str(keras_vit.describe(f"{PRETRAINED}--cifar100-steps_10k-lr_0.001-res_224"))
    assert re.search(r"recipe: task +cifar100", text)
    assert re.search(r"ImageNet-1k top-1 +unknown", text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B16.mae", "Unknown preset 'ViT-B16.mae'. Near it: ViTB16.mae.*list_presets"),
        ("none", "Unknown preset 'none'. Expected a name"),
        (PRETRAINED[:-4], "Not the name of an AugReg"),
    ],
)
def test_unknown_presets_are_not_described(name, message):
    with pytest.raises(ValueError, match=message):
        keras_vit.describe(name)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    "name", ["ViTB16.clip_openai", "ViTB14.dinov2", "ViTB16.imagenet21k", None]
)
def test_preprocess_input_takes_the_preset_s_mean_and_deviation(name, data_format):
    mean, std = np.full(3, 0.5), np.full(3, 0.5)
    if name:
        steps = PRESETS[name].preprocessing
        mean, std = np.array(steps.mean), np.array(steps.std)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype("uint8")
    expected = (pixels / 255 - mean) / std
    for images, result in ((pixels, expected), (pixels[0], expected[0])):
        if data_format == "channels_first":
            images, result = np.moveaxis(images, -1, -3), np.moveaxis(result, -1, -3)
        before = images.copy()
        for given in (
            images,
            images.astype("float32"),
            keras.ops.convert_to_tensor(images),
        ):
            output = keras_vit.preprocess_input(given, name, data_format=data_format)
            assert keras.backend.standardize_dtype(output.dtype) == "float32"
            assert isinstance(output, np.ndarray) == isinstance(given, np.ndarray)
            np.testing.assert_allclose(array(output), result, atol=1e-6)
        np.testing.assert_array_equal(images, before)


def test_preprocess_input_refuses_other_channels():
    with pytest.raises(
        ValueError, match=r"3 channels. Received.*\(2, 3, 8, 8\).*8 channels"
    ):
        keras_vit.preprocess_input(np.zeros((2, 3, 8, 8)), "ViTB14.dinov2")
    file = keras_vit.preprocess_input(np.zeros((1, 8, 8, 3)), FINETUNED)
    assert file.max() == -1
    # With one value for all channels their number does not matter.
    assert (
        keras_vit.preprocess_input(np.zeros((8, 8, 13)), "ViTB16.imagenet21k").min() == -1
    )


def test_presets_carry_unknown_facts_as_none():
    row = Preset(
        architecture="ViTB16",
        tag="x",
        family="ViT",
        addresses=("a",),
        resolution=(32, 64),
        classes=0,
    )
    assert (row.license, row.paper, row.accuracy, row.size_bytes) == (None,) * 4
    assert row.preprocessing.crop_fraction is None
    text = str(keras_vit.describe(row))
    assert re.search(r"license +unknown", text)
    assert re.search(r"resize +unknown", text)
    assert "(32, 64)" in text
    assert "32 × 64" in str(keras_vit.zoo.listing.PresetList([row]))


def test_the_old_spelling_of_license_works_with_a_warning():
    facts = {"architecture": "ViTB16", "tag": "x", "family": "ViT", "addresses": ("a",)}
    facts |= {"resolution": 32, "classes": 0}
    with pytest.warns(FutureWarning, match="`licence` is now called `license`") as warned:
        row = Preset(**facts, licence="MIT")
    assert warned[0].filename == __file__
    assert row == Preset(**facts, license="MIT")
    for thing in (row, keras_vit.describe(row)):
        with pytest.warns(FutureWarning, match="`license`"):
            assert thing.licence == "MIT"
