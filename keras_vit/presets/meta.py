"""Checkpoints of Meta: DeiT, DeiT-3, MAE, MoCo v3, DINO, I-JEPA, and DINOv2 with and
without registers.

Sources: READMEs of facebookresearch/deit, mae, moco-v3, dino and dinov2 (addresses, scores,
licenses); `vits.py` and `main_lincls.py` of moco-v3 (heads, crop); the documentation of
huggingface/transformers (addresses of I-JEPA); `models/vit.py` of
google-research/big_vision (its copies of DeiT-3); `deit.py`, `vision_transformer.py` and
`results-imagenet.csv` of huggingface/pytorch-image-models (mirrors, crops, licenses), as
recorded in November 2026. All use the exact GELU and an epsilon of 1e-6.
"""

from keras_vit.presets.big_vision import BUCKET, TOKEN_WITHOUT_POSITION
from keras_vit.presets.google import CLASSES_1K, TIMM_RESULTS
from keras_vit.presets.preset import Preprocessing, Preset

TIMM_FIELDS = {"gelu_approximate": False, "position_interpolation": "bicubic"}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_FILES = "https://dl.fbaipublicfiles.com"


def _imagenet(crop_fraction, interpolation="bicubic"):
    return Preprocessing(
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
    )


# Architecture, resolution, crop, timm's name, original file, top-1.
_DEIT = [
    ("ViTTi16", 224, 0.9, "deit_tiny_patch16_224", "a1311bcf", 72.196),
    ("ViTS16", 224, 0.9, "deit_small_patch16_224", "cd65a155", 79.862),
    ("ViTB16", 224, 0.9, "deit_base_patch16_224", "b5f2ef4d", 81.980),
    ("ViTB16", 384, 1.0, "deit_base_patch16_384", "8de9b5d1", 83.116),
]
# Of its README, which rounds.
_DEIT_DISTILLED = [
    ("ViTTi16", 224, 0.9, "deit_tiny_distilled_patch16_224", "b40b3cf7", 74.5),
    ("ViTS16", 224, 0.9, "deit_small_distilled_patch16_224", "649709d9", 81.2),
    ("ViTB16", 224, 0.9, "deit_base_distilled_patch16_224", "df68dfff", 83.4),
    ("ViTB16", 384, 1.0, "deit_base_distilled_patch16_384", "d0272ac0", 85.2),
]

# DeiT-3 as BigVision converted it, for images in [-1, 1] and without LayerScale:
# architecture, file, tag, top-1.
_IMAGENET21K = "deit3_imagenet21k+imagenet2012"
_DEIT3_BIG_VISION = [
    ("ViTS16", "small_224_21k", f"{_IMAGENET21K}-224", 83.1),
    ("ViTS16", "small_384_21k", f"{_IMAGENET21K}-384", 84.8),
    ("ViTB16", "base_224_21k", f"{_IMAGENET21K}-224", 85.7),
    ("ViTB16", "base_384_21k", f"{_IMAGENET21K}-384", 86.7),
    ("ViTL16", "large_224_21k", f"{_IMAGENET21K}-224", 87.0),
    ("ViTL16", "large_384_21k", f"{_IMAGENET21K}-384", 87.7),
    ("ViTS16", "small_224_1k", "deit3_imagenet2012-224", 81.4),
    ("ViTS16", "small_384_1k", "deit3_imagenet2012-384", 83.4),
    ("ViTB16", "base_224_1k", "deit3_imagenet2012-224", 83.8),
    ("ViTB16", "base_384_1k", "deit3_imagenet2012-384", 85.0),
    ("ViTL16", "large_224_1k", "deit3_imagenet2012-224", 84.9),
    ("ViTL16", "large_384_1k", "deit3_imagenet2012-384", 85.8),
]
# The two sizes that BigVision lacks, as they were published.
_DEIT3 = [
    (
        "ViTM16",
        f"{_IMAGENET21K}-224",
        "deit3_medium_patch16_224.fb_in22k_ft_in1k",
        "deit_3_medium_224_21k",
        84.5,
    ),
    (
        "ViTM16",
        "deit3_imagenet2012-224",
        "deit3_medium_patch16_224.fb_in1k",
        "deit_3_medium_224_1k",
        83.0,
    ),
    (
        "ViTH14",
        f"{_IMAGENET21K}-224",
        "deit3_huge_patch14_224.fb_in22k_ft_in1k",
        "deit_3_huge_224_21k_v1",
        87.2,
    ),
    (
        "ViTH14",
        "deit3_imagenet2012-224",
        "deit3_huge_patch14_224.fb_in1k",
        "deit_3_huge_224_1k",
        85.2,
    ),
]

# MAE's encoders: architecture, timm's name, original file, top-1 of a linear classifier.
# Its fine-tuned models are published only as pickles.
_MAE = [
    ("ViTB16", "vit_base_patch16_224.mae", "mae_pretrain_vit_base", 67.8),
    ("ViTL16", "vit_large_patch16_224.mae", "mae_pretrain_vit_large", 76.0),
    ("ViTH14", "vit_huge_patch14_224.mae", "mae_pretrain_vit_huge", 77.2),
]

# MoCo v3's encoders, and the same with linear classifiers of their frozen features:
# architecture, number of heads, name, top-1.
_MOCOV3 = [("ViTS16", 12, "vit-s-300ep", 73.2), ("ViTB16", None, "vit-b-300ep", 76.7)]

# DINOv2: architecture, name on the Hub, timm's, original file, top-1 of a linear
# classifier without registers and with them. timm adds the class token's position to the
# token where there are registers, so its files are mirrors only without.
_DINOV2 = [
    ("ViTS14", "small", "vit_small_patch14_dinov2", "dinov2_vits14", 81.1, 80.9),
    ("ViTB14", "base", "vit_base_patch14_dinov2", "dinov2_vitb14", 84.5, 84.6),
    ("ViTL14", "large", "vit_large_patch14_dinov2", "dinov2_vitl14", 86.3, 86.7),
    ("ViTgiant14", "giant", "vit_giant_patch14_dinov2", "dinov2_vitg14", 86.5, 87.1),
]

# DINO: architecture, timm's name, original file, top-1 of a linear classifier.
_DINO = [
    ("ViTS16", "vit_small_patch16_224", "dino_deitsmall16_pretrain", 77.0),
    ("ViTS8", "vit_small_patch8_224", "dino_deitsmall8_pretrain", 79.7),
    ("ViTB16", "vit_base_patch16_224", "dino_vitbase16_pretrain", 78.2),
    ("ViTB8", "vit_base_patch8_224", "dino_vitbase8_pretrain", 80.1),
]

# I-JEPA: architecture, name on the Hub, tag, resolution, crop.
_IJEPA = [
    ("ViTH14", "ijepa_vith14_1k", "ijepa_imagenet2012", 224, 0.9),
    ("ViTH16", "ijepa_vith16_1k", "ijepa_imagenet2012-448", 448, 1.0),
    ("ViTH14", "ijepa_vith14_22k", "ijepa_imagenet21k", 224, 0.9),
    ("ViTg16", "ijepa_vitg16_22k", "ijepa_imagenet21k", 224, 0.9),
]

_DEIT_PAPER = (
    "Training data-efficient image transformers & distillation through attention "
    "(arXiv 2012.12877)"
)
_DEIT3_STORY = {
    "family": "DeiT-3",
    "license": "Apache-2.0",
    "paper": "DeiT III: Revenge of the ViT (arXiv 2204.07118)",
    "accuracy_source": "README_revenge.md of facebookresearch/deit",
}
_DINOV2_STORY = {
    "family": "DINOv2",
    "resolution": 518,
    "classes": 0,
    "preprocessing": _imagenet(1.0),
    "license": "Apache-2.0",
    "accuracy_source": "linear classifier on frozen features, README of "
    "facebookresearch/dinov2",
}


def _dinov2_fields(architecture, **fields):
    if architecture == "ViTgiant14":
        fields["mlp"] = "swiglu"
    return {**TIMM_FIELDS, "layer_scale": 1.0, **fields}


PRESETS = [
    *(
        Preset(
            architecture=architecture,
            tag=f"{tag}-{resolution}",
            family="DeiT",
            addresses=(f"hf://timm/{name}.fb_in1k", f"{_FILES}/deit/{name}-{digest}.pth"),
            resolution=resolution,
            classes=CLASSES_1K,
            fields=fields,
            preprocessing=_imagenet(crop_fraction),
            license="Apache-2.0",
            paper=_DEIT_PAPER,
            accuracy=accuracy,
            accuracy_source=source,
        )
        for tag, fields, source, rows in (
            ("deit_imagenet2012", TIMM_FIELDS, TIMM_RESULTS, _DEIT),
            (
                "deit_distilled_imagenet2012",
                {**TIMM_FIELDS, "distilled": True},
                "README_deit.md of facebookresearch/deit",
                _DEIT_DISTILLED,
            ),
        )
        for architecture, resolution, crop_fraction, name, digest, accuracy in rows
    ),
    *(
        Preset(
            architecture=architecture,
            tag=tag,
            addresses=(f"{BUCKET}/zoo/deit3/bv_deit_3_{file}.npz",),
            resolution=int(tag[-3:]),
            classes=CLASSES_1K,
            # BigVision's own code computes the tanh GELU; DeiT-3 was trained with erf.
            fields={**TOKEN_WITHOUT_POSITION, "gelu_approximate": False},
            preprocessing=Preprocessing(crop_fraction=1.0, interpolation="bicubic"),
            accuracy=accuracy,
            **_DEIT3_STORY,
        )
        for architecture, file, tag, accuracy in _DEIT3_BIG_VISION
    ),
    *(
        Preset(
            architecture=architecture,
            tag=tag,
            addresses=(f"hf://timm/{timm}", f"{_FILES}/deit/{file}.pth"),
            resolution=224,
            classes=CLASSES_1K,
            fields={**TIMM_FIELDS, **TOKEN_WITHOUT_POSITION, "layer_scale": 1e-6},
            preprocessing=_imagenet(1.0),
            accuracy=accuracy,
            **_DEIT3_STORY,
        )
        for architecture, tag, timm, file, accuracy in _DEIT3
    ),
    *(
        Preset(
            architecture=architecture,
            tag="mae",
            family="MAE",
            addresses=(f"hf://timm/{timm}", f"{_FILES}/mae/pretrain/{file}.pth"),
            resolution=224,
            classes=0,
            fields=TIMM_FIELDS,
            preprocessing=_imagenet(0.9),
            license="CC-BY-NC-4.0",
            paper="Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377)",
            accuracy=accuracy,
            accuracy_source="linear classifier on frozen features, FINETUNE.md of "
            "facebookresearch/mae",
        )
        for architecture, timm, file, accuracy in _MAE
    ),
    *(
        Preset(
            architecture=architecture,
            tag=tag,
            family="MoCo v3",
            addresses=(f"{_FILES}/moco-v3/{name}/{part}{name}.pth.tar",),
            resolution=224,
            classes=classes,
            fields={**TIMM_FIELDS, **({"num_heads": num_heads} if num_heads else {})},
            preprocessing=_imagenet(0.875, "bilinear"),
            license="CC-BY-NC-4.0",
            paper="An Empirical Study of Training Self-Supervised Vision Transformers "
            "(arXiv 2104.02057)",
            accuracy=accuracy,
            accuracy_source="linear classifier on frozen features, CONFIG.md of "
            "facebookresearch/moco-v3",
        )
        for tag, part, classes in (
            ("mocov3", "", 0),
            ("mocov3_imagenet2012", "linear-", CLASSES_1K),
        )
        for architecture, num_heads, name, accuracy in _MOCOV3
    ),
    *(
        Preset(
            architecture=architecture,
            tag="dinov2",
            addresses=(
                f"hf://facebook/dinov2-{name}",
                f"hf://timm/{timm}.lvd142m",
                f"{_FILES}/dinov2/{file}/{file}_pretrain.pth",
            ),
            fields=_dinov2_fields(architecture),
            paper="DINOv2: Learning Robust Visual Features without Supervision "
            "(arXiv 2304.07193)",
            accuracy=accuracy,
            **_DINOV2_STORY,
        )
        for architecture, name, timm, file, accuracy, _ in _DINOV2
    ),
    *(
        Preset(
            architecture=architecture,
            tag="dinov2_registers",
            addresses=(
                f"hf://facebook/dinov2-with-registers-{name}",
                f"{_FILES}/dinov2/{file}/{file}_reg4_pretrain.pth",
            ),
            fields=_dinov2_fields(architecture, num_registers=4),
            paper="Vision Transformers Need Registers (arXiv 2309.16588)",
            accuracy=accuracy,
            **_DINOV2_STORY,
        )
        for architecture, name, _, file, _, accuracy in _DINOV2
    ),
    *(
        Preset(
            architecture=architecture,
            tag="dino",
            family="DINO",
            addresses=(f"hf://timm/{timm}.dino", f"{_FILES}/dino/{file}/{file}.pth"),
            resolution=224,
            classes=0,
            fields=TIMM_FIELDS,
            preprocessing=_imagenet(0.9),
            license="Apache-2.0",
            paper="Emerging Properties in Self-Supervised Vision Transformers "
            "(arXiv 2104.14294)",
            accuracy=accuracy,
            accuracy_source="linear classifier on frozen features, README of "
            "facebookresearch/dino",
        )
        for architecture, timm, file, accuracy in _DINO
    ),
    *(
        Preset(
            architecture=architecture,
            tag=tag,
            family="I-JEPA",
            addresses=(f"hf://facebook/{name}",),
            resolution=resolution,
            classes=0,
            fields={**TIMM_FIELDS, "pooling": "gap"},
            preprocessing=_imagenet(crop_fraction),
            license="CC-BY-NC-4.0",
            paper="Self-Supervised Learning from Images with a Joint-Embedding Predictive "
            "Architecture (arXiv 2301.08243)",
        )
        for architecture, name, tag, resolution, crop_fraction in _IJEPA
    ),
]
