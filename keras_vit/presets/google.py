"""Checkpoints of the ViT paper and of SAM (`gs://vit_models`, Apache-2.0).

Sources: README, notebooks and `input_pipeline.py` of google-research/vision_transformer;
mirrors and their scores: `vision_transformer.py`, `vision_transformer_hybrid.py` and
`results-imagenet.csv` of huggingface/pytorch-image-models (timm), as recorded in November
2026.
"""

from keras_vit.presets.preset import GIB, MIB, Preprocessing, Preset

BUCKET = "gs://vit_models"
CLASSES_21K, CLASSES_1K = 21843, 1000
TIMM_RESULTS = "timm's results-imagenet.csv"
# The evaluation of the paper's code resizes the whole image to a square.
RESIZED = Preprocessing(crop_fraction=1.0, interpolation="bilinear", squash=True)

_VIT = {
    "license": "Apache-2.0",
    "paper": "An Image is Worth 16x16 Words (arXiv 2010.11929)",
    "preprocessing": RESIZED,
}
_SAM = {
    "license": "Apache-2.0",
    "paper": "When Vision Transformers Outperform ResNets without Pre-training or "
    "Strong Data Augmentations (arXiv 2106.01548)",
    "preprocessing": RESIZED,
}

# Architecture, file, representation size, size of the file.
_IMAGENET21K = [
    ("ViTB8", "ViT-B_8", 768, 393.72 * MIB),
    ("ViTB16", "ViT-B_16", 768, 393.69 * MIB),
    ("ViTB32", "ViT-B_32", 768, 400.01 * MIB),
    ("ViTL16", "ViT-L_16", 1024, 1.22 * GIB),
    ("ViTL32", "ViT-L_32", 1024, 1.23 * GIB),
    ("ViTH14", "ViT-H_14", 1280, 2.46 * GIB),
    ("R26ViTB32", "R26+ViT-B_32", 768, 450.23 * MIB),
    ("R50ViTB16", "R50+ViT-B_16", 768, 439.85 * MIB),
    ("R50ViTL32", "R50+ViT-L_32", 1024, 1.31 * GIB),
]

# Architecture, file, size of the file, timm's name of the same weights, its top-1.
_FINETUNED = [
    ("ViTB8", "ViT-B_8", 334.78 * MIB, None, None),
    ("ViTB16", "ViT-B_16", 331.4 * MIB, "vit_base_patch16_384", 84.208),
    ("ViTB32", "ViT-B_32", 336.89 * MIB, None, None),
    ("ViTL16", "ViT-L_16", 1.14 * GIB, None, None),
    ("ViTL32", "ViT-L_32", 1.14 * GIB, "vit_large_patch32_384", 81.506),
    ("R50ViTB16", "R50+ViT-B_16", 377.57 * MIB, "vit_base_r50_s16_384", 84.994),
]

# The README states the expected accuracy of these two.
_FINETUNED_224 = [
    ("ViTB16", "ViT-B_16-224", 330.29 * MIB, "vit_base_patch16_224", 81.2),
    ("ViTL16", "ViT-L_16-224", 1.13 * GIB, None, 82.7),
]

# Three times 4 bytes for each parameter of ViT-S_16: the file most likely holds the
# optimizer's state too.
_SAM_FILES = [
    ("ViTS16", "ViT-S_16", 252.57 * MIB, None, None),
    ("ViTB16", "ViT-B_16", 330.3 * MIB, "vit_base_patch16_224", 80.242),
    ("ViTB32", "ViT-B_32", 336.61 * MIB, "vit_base_patch32_224", 73.706),
    ("ViTL16", "ViT-L_16", 1.13 * GIB, None, None),
    ("ViTL32", "ViT-L_32", 1.14 * GIB, None, None),
]


def _addresses(folder, file, timm, tag):
    mirror = (f"hf://timm/{timm}.{tag}",) if timm else ()
    return (f"{BUCKET}/{folder}/{file}.npz", *mirror)


PRESETS = [
    *(
        Preset(
            architecture=architecture,
            tag="imagenet21k+imagenet2012",
            family="ViT",
            addresses=_addresses(
                "imagenet21k+imagenet2012", file, timm, "orig_in21k_ft_in1k"
            ),
            resolution=384,
            classes=CLASSES_1K,
            accuracy=accuracy,
            accuracy_source=TIMM_RESULTS if accuracy else None,
            size_bytes=round(size),
            **_VIT,
        )
        for architecture, file, size, timm, accuracy in _FINETUNED
    ),
    *(
        Preset(
            architecture=architecture,
            tag="imagenet21k+imagenet2012-224",
            family="ViT",
            addresses=_addresses(
                "imagenet21k+imagenet2012", file, timm, "orig_in21k_ft_in1k"
            ),
            resolution=224,
            classes=CLASSES_1K,
            accuracy=accuracy,
            accuracy_source="README of google-research/vision_transformer",
            size_bytes=round(size),
            **_VIT,
        )
        for architecture, file, size, timm, accuracy in _FINETUNED_224
    ),
    *(
        Preset(
            architecture=architecture,
            tag="imagenet21k",
            family="ViT",
            addresses=_addresses("imagenet21k", file, None, None),
            resolution=224,
            classes=CLASSES_21K,
            fields={"representation_size": representation_size},
            size_bytes=round(size),
            **_VIT,
        )
        for architecture, file, representation_size, size in _IMAGENET21K
    ),
    *(
        Preset(
            architecture=architecture,
            tag="sam_imagenet2012",
            family="SAM",
            addresses=_addresses("sam", file, timm, "sam_in1k"),
            resolution=224,
            classes=CLASSES_1K,
            accuracy=accuracy,
            accuracy_source=TIMM_RESULTS if accuracy else None,
            size_bytes=round(size),
            **_SAM,
        )
        for architecture, file, size, timm, accuracy in _SAM_FILES
    ),
]
