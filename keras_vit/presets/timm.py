"""Checkpoints that timm trained, fine-tuned or converted: its own sizes from wee to
So150m2, a base size with norms after the branches, EVA-Large, SigLIP as a classifier,
MIIL's ImageNet-21k, and TIPSv2.

Sources: `vision_transformer.py`, `results-imagenet.csv` and `README.md` of
huggingface/pytorch-image-models, and its model card of
vit_mediumd_patch16_reg4_gap_384.sbb2_e200_in12k_ft_in1k, as recorded in November 2026. All
use the exact GELU and an epsilon of 1e-6. Its models with rotary or relative positions and
with parallel blocks are left out.
"""

import re

from keras_vit.presets.big_vision import TOKEN_WITHOUT_POSITION
from keras_vit.presets.clip import CLASSES_12K, CLIP_MEAN, CLIP_STD
from keras_vit.presets.google import CLASSES_1K, TIMM_RESULTS
from keras_vit.presets.meta import TIMM_FIELDS
from keras_vit.presets.preset import Preprocessing, Preset, timm_data, timm_fields

_CARD = "model card of timm's vit_mediumd_patch16_reg4_gap_384"
_README = "README of timm"

# timm's name, crop, top-1, its source. "sbb": *Searching for better baselines*.
_OWN = [
    ("vit_medium_patch16_gap_240.sw_in12k", 0.95, None, None),
    ("vit_medium_patch16_gap_256.sw_in12k_ft_in1k", 0.95, 84.450, TIMM_RESULTS),
    ("vit_medium_patch16_gap_384.sw_in12k_ft_in1k", 0.95, 85.554, TIMM_RESULTS),
    ("vit_wee_patch16_reg1_gap_256.sbb_in1k", 0.95, 80.258, _CARD),
    ("vit_little_patch16_reg1_gap_256.sbb_in12k_ft_in1k", 0.95, 83.774, _CARD),
    ("vit_little_patch16_reg1_gap_256.sbb_in12k", 0.95, None, None),
    ("vit_little_patch16_reg4_gap_256.sbb_in1k", 0.95, 82.514, _CARD),
    ("vit_medium_patch16_reg1_gap_256.sbb_in1k", 0.95, 83.462, _CARD),
    ("vit_medium_patch16_reg4_gap_256.sbb_in12k_ft_in1k", 0.95, 84.930, _CARD),
    ("vit_medium_patch16_reg4_gap_256.sbb_in1k", 0.95, 83.470, _CARD),
    ("vit_medium_patch16_reg4_gap_256.sbb_in12k", 0.95, None, None),
    ("vit_mediumd_patch16_reg4_gap_256.sbb2_e200_in12k_ft_in1k", 0.95, 86.608, _CARD),
    ("vit_mediumd_patch16_reg4_gap_256.sbb_in12k_ft_in1k", 0.95, 86.202, _CARD),
    ("vit_mediumd_patch16_reg4_gap_256.sbb2_e200_in12k", 0.95, None, None),
    ("vit_mediumd_patch16_reg4_gap_256.sbb_in12k", 0.95, None, None),
    ("vit_mediumd_patch16_reg4_gap_384.sbb2_e200_in12k_ft_in1k", 1.0, 87.438, _CARD),
    ("vit_betwixt_patch16_reg1_gap_256.sbb_in1k", 0.95, 83.628, _CARD),
    ("vit_betwixt_patch16_reg4_gap_256.sbb2_e200_in12k_ft_in1k", 0.95, 85.734, _CARD),
    ("vit_betwixt_patch16_reg4_gap_256.sbb_in12k_ft_in1k", 0.95, 85.418, _CARD),
    ("vit_betwixt_patch16_reg4_gap_256.sbb_in1k", 0.95, 83.706, _CARD),
    ("vit_betwixt_patch16_reg4_gap_256.sbb2_e200_in12k", 0.95, None, None),
    ("vit_betwixt_patch16_reg4_gap_256.sbb_in12k", 0.95, None, None),
    ("vit_betwixt_patch16_reg4_gap_384.sbb2_e200_in12k_ft_in1k", 1.0, 86.594, _CARD),
    ("vit_so150m_patch16_reg4_gap_256.sbb_e250_in12k_ft_in1k", 0.95, 86.7, _README),
    ("vit_so150m_patch16_reg4_gap_256.sbb_e250_in12k", 0.95, None, None),
    ("vit_so150m_patch16_reg4_gap_384.sbb_e250_in12k_ft_in1k", 1.0, 87.4, _README),
    ("vit_so150m2_patch16_reg1_gap_256.sbb_e200_in12k_ft_in1k", 1.0, 87.3, _README),
    ("vit_so150m2_patch16_reg1_gap_256.sbb_e200_in12k", 1.0, None, None),
    ("vit_so150m2_patch16_reg1_gap_384.sbb_e200_in12k_ft_in1k", 1.0, 87.9, _README),
    ("vit_so150m2_patch16_reg1_gap_448.sbb_e200_in12k_ft_in1k", 1.0, 88.1, _README),
]
# These two evaluate the whole image, squashed.
_SQUASHED = ("vit_medium_patch16_gap_384", "vit_so150m2_patch16_reg1_gap_448")

# The base size with its norms after attention and MLP ("residual post-norm").
_POST_NORM = "vit_base_patch16_rpn_224.sw_in1k"

# EVA-Large, pre-trained by masked images alone: timm's name, top-1.
_EVA = [
    ("eva_large_patch14_196.in22k_ft_in22k_in1k", 88.596),
    ("eva_large_patch14_336.in22k_ft_in22k_in1k", 89.250),
    ("eva_large_patch14_196.in22k_ft_in1k", 87.956),
    ("eva_large_patch14_336.in22k_ft_in1k", 88.690),
]

# SigLIP fine-tuned: timm's name, tag, pooling, top-1.
_SIGLIP = [
    ("vit_so400m_patch14_siglip_378.webli_ft_in1k", "siglip", "map", 89.42),
    ("vit_so400m_patch14_siglip_gap_378.webli_ft_in1k", "siglip_gap", "gap", 89.03),
]

# MIIL: timm's tag, classes, top-1. It merged rare classes of ImageNet-21k.
_MIIL = [("in21k", 11221, None), ("in21k_ft_in1k", CLASSES_1K, 84.272)]

# TIPSv2: architecture, timm's name of the size.
_TIPS = [
    ("ViTB14", "base"),
    ("ViTL14", "large"),
    ("ViTSo400m14", "so400m"),
    ("ViTgiant14", "giant"),
]


def _own_fields(name):
    size, registers = re.match(r"vit_([a-z0-9]+)_patch16_(?:reg(\d))?", name).groups()
    fields = {**TIMM_FIELDS, "pooling": "gap"}
    if size != "so150m":
        fields["layer_scale"] = 1e-5 if registers else 1e-6
    if size != "so150m" and registers:
        fields["fc_norm"] = True
    if size == "so150m2" or not registers:
        fields["qkv_bias"] = False
    if registers:
        fields["num_registers"] = int(registers)
    if size.startswith("so150m"):  # their registers have positions
        fields["num_prefix_positions"] = int(registers)
    return fields


def _own_tag(name, resolution):
    recipe = re.search(r"\.((?:sw|sbb2?)(?:_e\d+)?)_", name)[1]
    registers = re.search(r"_reg\d", name)
    data = "+".join(timm_data(name.partition(".")[2]))
    return f"{recipe}{registers[0] if registers else ''}_{data}-{resolution}"


def _own_row(name, crop_fraction, accuracy, source):
    facts = timm_fields(name)
    return Preset(
        tag=_own_tag(name, facts["resolution"]),
        family="timm",
        classes=CLASSES_1K if name.endswith("in1k") else CLASSES_12K,
        fields=_own_fields(name),
        preprocessing=Preprocessing(
            crop_fraction=crop_fraction,
            interpolation="bicubic",
            squash=name.startswith(_SQUASHED),
        ),
        license="Apache-2.0",
        paper="Vision Transformers Need Registers (arXiv 2309.16588)"
        if "_reg" in name
        else "An Image is Worth 16x16 Words (arXiv 2010.11929)",
        accuracy=accuracy,
        accuracy_source=source,
        **facts,
    )


def _eva_row(name, accuracy):
    facts = timm_fields(name)
    data = "+".join(timm_data(name.partition(".")[2]))
    return Preset(
        tag=f"eva_{data}-{facts['resolution']}",
        family="EVA",
        classes=CLASSES_1K,
        fields={**TIMM_FIELDS, "pooling": "gap", "class_token": True, "fc_norm": True},
        preprocessing=Preprocessing(
            mean=CLIP_MEAN,
            std=CLIP_STD,
            crop_fraction=1.0,
            interpolation="bicubic",
            squash=facts["resolution"] == 336,
        ),
        license="MIT",
        paper="EVA: Exploring the Limits of Masked Visual Representation Learning at Scale "
        "(arXiv 2211.07636)",
        accuracy=accuracy,
        accuracy_source=TIMM_RESULTS,
        **facts,
    )


PRESETS = [
    *(_own_row(*row) for row in _OWN),
    Preset(
        tag="sw_rpn_imagenet2012",
        family="timm",
        classes=CLASSES_1K,
        fields={
            **TIMM_FIELDS,
            **{"pooling": "gap", "fc_norm": True, "qkv_bias": False, "norm_after": True},
        },
        preprocessing=Preprocessing(crop_fraction=0.9, interpolation="bicubic"),
        license="Apache-2.0",
        paper="An Image is Worth 16x16 Words (arXiv 2010.11929)",
        accuracy=82.216,
        accuracy_source=TIMM_RESULTS,
        **timm_fields(_POST_NORM),
    ),
    *(_eva_row(*row) for row in _EVA),
    *(
        Preset(
            tag=f"{tag}+imagenet2012-378",
            family="SigLIP",
            classes=CLASSES_1K,
            fields={**TIMM_FIELDS, "pooling": pooling},
            preprocessing=Preprocessing(
                crop_fraction=1.0, interpolation="bicubic", squash=True
            ),
            license="Apache-2.0",
            paper="Sigmoid Loss for Language Image Pre-Training (arXiv 2303.15343)",
            accuracy=accuracy,
            accuracy_source=_README,
            **timm_fields(name),
        )
        for name, tag, pooling, accuracy in _SIGLIP
    ),
    *(
        Preset(
            architecture="ViTB16",
            tag=f"miil_{'+'.join(timm_data(tag))}",
            family="MIIL",
            addresses=(f"hf://timm/vit_base_patch16_224_miil.{tag}",),
            resolution=224,
            classes=classes,
            fields={**TIMM_FIELDS, "qkv_bias": False},
            preprocessing=Preprocessing(
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
                crop_fraction=0.875,
                interpolation="bilinear",
            ),
            license="Apache-2.0",
            paper="ImageNet-21K Pretraining for the Masses (arXiv 2104.10972)",
            accuracy=accuracy,
            accuracy_source=accuracy and TIMM_RESULTS,
        )
        for tag, classes, accuracy in _MIIL
    ),
    *(
        Preset(
            architecture=architecture,
            tag="tipsv2",
            family="TIPSv2",
            addresses=(f"hf://timm/vit_{size}_patch14_reg1_tipsv2.webli",),
            resolution=448,
            classes=0,
            fields={
                **TIMM_FIELDS,
                **TOKEN_WITHOUT_POSITION,
                "layer_scale": 1.0,
                "num_registers": 1,
                **({"mlp": "swiglu"} if size == "giant" else {}),
            },
            preprocessing=Preprocessing(
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
                crop_fraction=1.0,
                interpolation="bicubic",
            ),
            license="Apache-2.0",
            paper="TIPSv2: Advancing Vision-Language Pretraining with Enhanced Patch-Text "
            "Alignment (arXiv 2604.12012)",
        )
        for architecture, size in _TIPS
    ),
]
