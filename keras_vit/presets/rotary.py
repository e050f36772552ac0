"""Checkpoints with rotary positions, and EVA's giants: DINOv3 and EUPE, EVA-02, Perception
Encoder, RoPE-ViT, and timm's own.

Sources: `eva.py` and `results-imagenet.csv` of huggingface/pytorch-image-models (addresses,
arguments, licenses, scores), as recorded in November 2026; names of Meta's repositories on
the Hub. All use the exact GELU.
"""

import re

from keras_vit.presets.clip import CLIP_MEAN, CLIP_STD
from keras_vit.presets.google import CLASSES_1K, TIMM_RESULTS
from keras_vit.presets.meta import IMAGENET_MEAN, IMAGENET_STD, TIMM_FIELDS
from keras_vit.presets.preset import Preprocessing, Preset, timm_data, timm_fields

CLASSES_22K = 21841

_DINOV3_FIELDS = {
    "gelu_approximate": False,
    "position": "none",
    "rope": "dinov3",
    "num_registers": 4,
    "layer_scale": 1e-5,
    "qkv_bias": "qv",
    "layer_norm_epsilon": 1e-5,
}
_SATELLITE = {"mean": (0.430, 0.411, 0.296), "std": (0.213, 0.156, 0.143)}

# Architecture, timm's name, name on the Hub, data.
_DINOV3 = [
    ("ViTS16", "vit_small_patch16_dinov3_qkvb", "vits16", "lvd1689m"),
    ("ViTS16plus", "vit_small_plus_patch16_dinov3_qkvb", "vits16plus", "lvd1689m"),
    ("ViTB16", "vit_base_patch16_dinov3_qkvb", "vitb16", "lvd1689m"),
    ("ViTL16", "vit_large_patch16_dinov3_qkvb", "vitl16", "lvd1689m"),
    ("ViTL16", "vit_large_patch16_dinov3_qkvb", "vitl16", "sat493m"),
    ("ViTH16plus", "vit_huge_plus_patch16_dinov3_qkvb", "vith16plus", "lvd1689m"),
    ("ViT7B16", "vit_7b_patch16_dinov3", "vit7b16", "lvd1689m"),
    ("ViT7B16", "vit_7b_patch16_dinov3", "vit7b16", "sat493m"),
]
# EUPE's distilled models: architecture, timm's name.
_EUPE = [
    ("ViTTi16", "vit_tiny_patch16_dinov3_qkvb"),
    ("ViTS16", "vit_small_patch16_dinov3_qkvb"),
    ("ViTB16", "vit_base_patch16_dinov3_qkvb"),
]

_EVA_GRID = {"kind": "cat", "reference_grid": (16, 16)}
# Widths of the MLPs, two thirds of the size's own.
_EVA02_MLP = {"ViTTi14": 512, "ViTS14": 1024, "ViTB14": 2048, "ViTL14": 2730}
# timm's name, top-1. All that are fine-tuned on "in22k" last evaluate the whole image.
_EVA = [
    ("eva_giant_patch14_224.clip_ft_in1k", 88.886),
    ("eva_giant_patch14_336.clip_ft_in1k", 89.462),
    ("eva_giant_patch14_336.m30m_ft_in22k_in1k", 89.570),
    ("eva_giant_patch14_560.m30m_ft_in22k_in1k", 89.796),
    ("eva02_tiny_patch14_224.mim_in22k", None),
    ("eva02_tiny_patch14_336.mim_in22k_ft_in1k", 80.672),
    ("eva02_small_patch14_224.mim_in22k", None),
    ("eva02_small_patch14_336.mim_in22k_ft_in1k", 85.760),
    ("eva02_base_patch14_224.mim_in22k", None),
    ("eva02_base_patch14_448.mim_in22k_ft_in22k", None),
    ("eva02_base_patch14_448.mim_in22k_ft_in22k_in1k", 88.682),
    ("eva02_base_patch14_448.mim_in22k_ft_in1k", 88.266),
    ("eva02_large_patch14_224.mim_in22k", None),
    ("eva02_large_patch14_224.mim_m38m", None),
    ("eva02_large_patch14_448.mim_in22k_ft_in22k", None),
    ("eva02_large_patch14_448.mim_m38m_ft_in22k", None),
    ("eva02_large_patch14_448.mim_in22k_ft_in22k_in1k", 89.966),
    ("eva02_large_patch14_448.mim_m38m_ft_in22k_in1k", 90.054),
    ("eva02_large_patch14_448.mim_in22k_ft_in1k", 89.632),
    ("eva02_large_patch14_448.mim_m38m_ft_in1k", 89.554),
]

# Perception Encoder: timm's name, classes (width of the embedding).
_PE = [
    ("vit_pe_core_tiny_patch16_384.fb", 512),
    ("vit_pe_core_small_patch16_384.fb", 512),
    ("vit_pe_core_base_patch16_224.fb", 1024),
    ("vit_pe_core_large_patch14_336.fb", 1024),
    ("vit_pe_core_gigantic_patch14_448.fb", 1280),
    ("vit_pe_lang_large_patch14_448.fb", 0),
    ("vit_pe_lang_large_patch14_448.fb_tiling", 0),
    ("vit_pe_lang_gigantic_patch14_448.fb", 0),
    ("vit_pe_lang_gigantic_patch14_448.fb_tiling", 0),
    ("vit_pe_spatial_tiny_patch16_512.fb", 0),
    ("vit_pe_spatial_small_patch16_512.fb", 0),
    ("vit_pe_spatial_base_patch16_512.fb", 0),
    ("vit_pe_spatial_large_patch14_448.fb", 0),
    ("vit_pe_spatial_gigantic_patch14_448.fb", 0),
]

_ROPE_VIT = [
    f"vit_{size}_patch16_rope{kind}_224.naver_in1k"
    for kind in ("", "_mixed", "_ape", "_mixed_ape")
    for size in ("small", "base", "large")
]
_AXIAL = {"kind": "cat", "indexing": "xy", "temperature": 100.0}

# timm's own: its name, top-1.
_OWN = [
    ("vit_medium_patch16_rope_reg1_gap_256.sbb_in1k", 83.812),
    ("vit_mediumd_patch16_rope_reg1_gap_256.sbb_in1k", 84.322),
    ("vit_betwixt_patch16_rope_reg4_gap_256.sbb_in1k", 83.910),
    ("vit_base_patch16_rope_reg1_gap_256.sbb_in1k", 83.890),
]


def _imagenet(crop_fraction, **others):
    images = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, **others}
    return Preprocessing(crop_fraction=crop_fraction, interpolation="bicubic", **images)


def _dinov3_row(architecture, timm, hub, data):
    return Preset(
        architecture=architecture,
        tag="dinov3" if data == "lvd1689m" else "dinov3_sat493m",
        family="DINOv3",
        addresses=(
            f"hf://timm/{timm}.{data}",
            f"hf://facebook/dinov3-{hub}-pretrain-{data}",
        ),
        resolution=256,
        classes=0,
        fields={**_DINOV3_FIELDS, "qkv_bias": "qv" if "qkvb" in timm else False},
        preprocessing=_imagenet(1.0, **(_SATELLITE if data == "sat493m" else {})),
        license="dinov3-license",
        paper="DINOv3 (arXiv 2508.10104)",
    )


def _eva_row(name, accuracy):
    facts = timm_fields(name)
    is_eva02, tag = name.startswith("eva02"), name.partition(".")[2]
    start = re.match(r"(?:mim_)?(?:in22k|m38m|m30m|clip)", tag)[0]
    data = "+".join(["", *timm_data(tag.removeprefix(start))])
    fields = {
        **TIMM_FIELDS,
        "pooling": "gap",
        "class_token": True,
        "fc_norm": True,
        "qkv_bias": "qv",
    }
    if is_eva02:
        fields |= {"rope": _EVA_GRID, "mlp": "swiglu"}
        fields["mlp_dim"] = _EVA02_MLP[facts["architecture"]]
        if facts["architecture"] in ("ViTB14", "ViTL14"):
            fields["mlp_sub_norm"] = True
    is_giant_of_imagenet21k = tag.startswith("m30m")
    names = {"clip": "clip", "m30m": "merged30m", "mim_m38m": "merged38m"}
    source = names.get(start, "imagenet21k")
    is_last_of_22k = "ft_in22k" in tag
    classes = CLASSES_1K if tag.endswith("in1k") else CLASSES_22K * is_last_of_22k
    return Preset(
        tag=f"{'eva02' if is_eva02 else 'eva'}_{source}{data}-{facts['resolution']}",
        family="EVA-02" if is_eva02 else "EVA",
        classes=classes,
        fields=fields,
        preprocessing=Preprocessing(
            mean=IMAGENET_MEAN if is_giant_of_imagenet21k else CLIP_MEAN,
            std=IMAGENET_STD if is_giant_of_imagenet21k else CLIP_STD,
            crop_fraction=0.9 if facts["resolution"] == 224 else 1.0,
            interpolation="bicubic",
            squash=is_last_of_22k or (facts["resolution"] == 336 and not is_eva02),
        ),
        license="MIT",
        paper="EVA-02: A Visual Representation for Neon Genesis (arXiv 2303.11331)"
        if is_eva02
        else "EVA: Exploring the Limits of Masked Visual Representation Learning at Scale "
        "(arXiv 2211.07636)",
        accuracy=accuracy,
        accuracy_source=accuracy and TIMM_RESULTS,
        **facts,
    )


def _pe_row(name, classes):
    kind, size, patch, resolution, tiling = re.fullmatch(
        r"vit_pe_(\w+?)_(\w+)_patch(\d+)_(\d+)\.fb(_tiling)?", name
    ).groups()
    facts = timm_fields(name.replace(f"pe_{kind}_", ""))
    is_giant = size == "gigantic"
    if is_giant:
        facts["architecture"] = "ViTPEG14"
    side = int(resolution) // int(patch)
    fields = {
        **TIMM_FIELDS,
        "pre_norm": True,
        "layer_norm_epsilon": 1e-5,
        "rope": {
            "kind": "cat",
            "indexing": "xy",
            "reference_grid": (side, side),
            "offset": float(not is_giant),
        },
        "pooling": "map" if kind == "core" else "gap",
        "class_token": not is_giant,
    }
    if kind == "core":
        fields |= {"pooling_num_heads": 8}
        # The largest has no prefix, and its pooling another MLP than its blocks.
        fields |= {"pooling_mlp_dim": 6144} if is_giant else {"pooling_prefix": True}
    else:
        fields["final_norm"] = False
        if kind == "lang" or is_giant:
            fields["layer_scale"] = 0.1
    if kind == "lang":
        fields["num_layers"] = 47 if is_giant else 23
    return Preset(
        **facts | {"addresses": (f"hf://timm/{name}",)},
        tag=f"pe_{kind}{tiling or ''}-{resolution}",
        family="Perception Encoder",
        classes=classes,
        fields=fields,
        preprocessing=Preprocessing(crop_fraction=1.0, interpolation="bicubic"),
        license="Apache-2.0",
        paper="Perception Encoder (arXiv 2504.13181)",
    )


def _rope_vit_row(name):
    kind = re.search(r"rope(\w*)_224", name)[1]
    fields = {
        "gelu_approximate": False,
        "rope": "mixed" if "mixed" in kind else _AXIAL,
        "layer_scale": 1e-5,
    }
    if "ape" in kind:
        fields |= {"position_interpolation": "bicubic", "num_prefix_positions": 0}
    else:
        fields["position"] = "none"
    return Preset(
        **timm_fields(name),
        tag=f"rope{kind}_imagenet2012",
        family="RoPE-ViT",
        classes=CLASSES_1K,
        fields=fields,
        preprocessing=_imagenet(0.9),
        license="Apache-2.0",
        paper="Rotary Position Embedding for Vision Transformer (arXiv 2403.13298)",
    )


def _own_row(name, accuracy):
    registers = int(re.search(r"_reg(\d)", name)[1])
    fields = {
        "gelu_approximate": False,
        "position": "none",
        "rope": _EVA_GRID,
        "num_registers": registers,
        "pooling": "gap",
        "fc_norm": True,
        "layer_scale": 1e-5,
        "qkv_bias": False if "mediumd" in name else "qv",
    }
    images = {"mean": CLIP_MEAN, "std": CLIP_STD} if "betwixt" in name else {}
    return Preset(
        **timm_fields(name),
        tag=f"sbb_rope_reg{registers}_imagenet2012-256",
        family="timm",
        classes=CLASSES_1K,
        fields=fields,
        preprocessing=Preprocessing(crop_fraction=0.95, interpolation="bicubic", **images),
        license="MIT",
        paper="Rotary Position Embedding for Vision Transformer (arXiv 2403.13298)",
        accuracy=accuracy,
        accuracy_source=TIMM_RESULTS,
    )


PRESETS = [
    *(_dinov3_row(*row) for row in _DINOV3),
    *(
        Preset(
            architecture=architecture,
            tag="eupe",
            family="EUPE",
            addresses=(f"hf://timm/{name}.eupe_lvd1689m",),
            resolution=256,
            classes=0,
            fields=_DINOV3_FIELDS,
            preprocessing=_imagenet(1.0),
            license="fair-noncommercial-research-license",
            paper="Efficient Universal Perception Encoder (arXiv 2603.22387)",
        )
        for architecture, name in _EUPE
    ),
    *(_eva_row(*row) for row in _EVA),
    *(_pe_row(*row) for row in _PE),
    *map(_rope_vit_row, _ROPE_VIT),
    *(_own_row(*row) for row in _OWN),
]
