"""Image towers of CLIP, with the projection into the embedding shared with texts.

Sources: `vision_transformer.py` and `results-imagenet.csv` of
huggingface/pytorch-image-models (addresses, preprocessing, activations); OpenAI's
`LICENSE`; the Hub's cards of LAION's models (license), as recorded in November 2026. The
towers of the sizes g and G, and of other data sets, are left out.
"""

from keras_vit.presets.meta import TIMM_FIELDS
from keras_vit.presets.preset import Preprocessing, Preset

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)

_TOWER = {
    **TIMM_FIELDS,
    "pre_norm": True,
    "layer_norm_epsilon": 1e-5,
    "classifier_activation": None,
}
_CLIP = "Learning Transferable Visual Models From Natural Language Supervision"
_OPENAI = {
    "fields": {**_TOWER, "mlp": "quick_gelu"},
    "license": "MIT",
    "paper": f"{_CLIP} (arXiv 2103.00020)",
}
_LAION2B = {"fields": _TOWER, "license": "MIT", "paper": "LAION-5B (arXiv 2210.08402)"}
_DATACOMP = {"fields": _TOWER, "paper": "DataComp (arXiv 2304.14108)"}

# Architecture, data, timm's name, resolution, width of the embedding, crop, (mean,
# standard deviation), story.
_NORMS = (CLIP_MEAN, CLIP_STD)
_ROWS = [
    ("ViTB32", "openai", "vit_base_patch32_clip_224", 224, 512, 0.9, _NORMS, _OPENAI),
    ("ViTB16", "openai", "vit_base_patch16_clip_224", 224, 512, 0.9, _NORMS, _OPENAI),
    ("ViTL14", "openai", "vit_large_patch14_clip_224", 224, 768, 1.0, _NORMS, _OPENAI),
    ("ViTL14", "openai", "vit_large_patch14_clip_336", 336, 768, 1.0, _NORMS, _OPENAI),
    ("ViTB32", "laion2b", "vit_base_patch32_clip_224", 224, 512, 0.9, _NORMS, _LAION2B),
    ("ViTB16", "laion2b", "vit_base_patch16_clip_224", 224, 512, 1.0, _NORMS, _LAION2B),
    (
        "ViTL14",
        "laion2b",
        "vit_large_patch14_clip_224",
        224,
        768,
        1.0,
        (_HALF, _HALF),  # only this tower
        _LAION2B,
    ),
    ("ViTH14", "laion2b", "vit_huge_patch14_clip_224", 224, 1024, 1.0, _NORMS, _LAION2B),
    ("ViTB32", "datacompxl", "vit_base_patch32_clip_224", 224, 512, 1.0, _NORMS, _DATACOMP),
    ("ViTB32", "datacompxl", "vit_base_patch32_clip_256", 256, 512, 1.0, _NORMS, _DATACOMP),
    ("ViTB16", "datacompxl", "vit_base_patch16_clip_224", 224, 512, 1.0, _NORMS, _DATACOMP),
    (
        "ViTL14",
        "datacompxl",
        "vit_large_patch14_clip_224",
        224,
        768,
        1.0,
        _NORMS,
        _DATACOMP,
    ),
]

PRESETS = [
    Preset(
        architecture=architecture,
        tag=f"clip_{data}" + (f"-{resolution}" if resolution != 224 else ""),
        family="CLIP",
        addresses=(f"hf://timm/{timm}.{data}",),
        resolution=resolution,
        classes=width,
        preprocessing=Preprocessing(
            mean=norms[0], std=norms[1], crop_fraction=crop, interpolation="bicubic"
        ),
        **story,
    )
    for architecture, data, timm, resolution, width, crop, norms, story in _ROWS
]
