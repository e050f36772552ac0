"""Image towers of CLIP, with the projection into the embedding shared with texts; and
towers that timm fine-tuned as classifiers.

Sources: `vision_transformer.py` and `results-imagenet.csv` of
huggingface/pytorch-image-models (addresses, preprocessing, activations, licenses, scores);
OpenAI's `LICENSE`; the Hub's cards of LAION's models (license), as recorded in November
2026.
"""

from keras_vit.presets.google import CLASSES_1K, TIMM_RESULTS
from keras_vit.presets.meta import TIMM_FIELDS
from keras_vit.presets.preset import Preprocessing, Preset, timm_data, timm_fields

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLASSES_12K = 11821  # ImageNet-12k is timm's part of ImageNet-21k
_HALF = (0.5, 0.5, 0.5)

_CLASSIFIER = {**TIMM_FIELDS, "pre_norm": True, "layer_norm_epsilon": 1e-5}
_TOWER = {**_CLASSIFIER, "classifier_activation": None}
_QUICK_GELU = {"fields": {**_TOWER, "mlp": "quick_gelu"}}

_CLIP = {"family": "CLIP", "fields": _TOWER}
_OPENAI = {
    **_CLIP,
    **_QUICK_GELU,
    "license": "MIT",
    "paper": "Learning Transferable Visual Models From Natural Language Supervision "
    "(arXiv 2103.00020)",
}
_LAION2B = {**_CLIP, "license": "MIT", "paper": "LAION-5B (arXiv 2210.08402)"}
_LAION400M = {**_CLIP, "license": "MIT", "paper": "LAION-400M (arXiv 2111.02114)"}
_DATACOMP = {**_CLIP, "paper": "DataComp (arXiv 2304.14108)"}
_DFN = {
    **_CLIP,
    "family": "DFN",
    "license": "apple-ascl",
    "paper": "Data Filtering Networks (arXiv 2309.17425)",
}
_MOBILECLIP2 = {
    **_CLIP,
    "family": "MobileCLIP2",
    "license": "apple-amlr",
    "paper": "MobileCLIP2: Improving Multi-Modal Reinforced Training (arXiv 2508.20691)",
}
_METACLIP = {
    **_CLIP,
    "family": "MetaCLIP",
    "license": "CC-BY-NC-4.0",
    "paper": "Demystifying CLIP Data (arXiv 2309.16671)",
}
_ALTOGETHER = {
    **_METACLIP,
    "paper": "Altogether: Image Captioning via Re-aligning Alt-text (arXiv 2410.17251)",
}
_METACLIP2 = {
    **_METACLIP,
    "family": "MetaCLIP 2",
    "paper": "Meta CLIP 2: A Worldwide Scaling Recipe (arXiv 2507.22062)",
}
_TINYCLIP = {
    **_CLIP,
    "family": "TinyCLIP",
    "license": "MIT",
    "paper": "TinyCLIP: CLIP Distillation via Affinity Mimicking and Weight Inheritance "
    "(arXiv 2309.12314)",
}
_LAION400M_QUICK = _LAION400M | _QUICK_GELU
_DFN_QUICK = _DFN | _QUICK_GELU
_METACLIP_QUICK = _METACLIP | _QUICK_GELU
_METACLIP2_QUICK = _METACLIP2 | _QUICK_GELU

# timm's name, width of the embedding, crop, whether the whole image is squashed, story.
# timm itself computes the quick GELU only under other names, `…_clip_quickgelu_…`.
_ROWS = [
    ("vit_base_patch32_clip_224.openai", 512, 0.9, False, _OPENAI),
    ("vit_base_patch16_clip_224.openai", 512, 0.9, False, _OPENAI),
    ("vit_large_patch14_clip_224.openai", 768, 1.0, False, _OPENAI),
    ("vit_large_patch14_clip_336.openai", 768, 1.0, False, _OPENAI),
    ("vit_base_patch32_clip_224.laion2b", 512, 0.9, False, _LAION2B),
    ("vit_base_patch16_clip_224.laion2b", 512, 1.0, False, _LAION2B),
    ("vit_large_patch14_clip_224.laion2b", 768, 1.0, False, _LAION2B),
    ("vit_huge_patch14_clip_224.laion2b", 1024, 1.0, False, _LAION2B),
    ("vit_giant_patch14_clip_224.laion2b", 1024, 1.0, False, _LAION2B),
    ("vit_gigantic_patch14_clip_224.laion2b", 1280, 1.0, False, _LAION2B),
    ("vit_base_patch32_clip_224.laion400m_e32", 512, 0.9, False, _LAION400M_QUICK),
    ("vit_base_patch16_clip_224.laion400m_e32", 512, 1.0, False, _LAION400M),
    ("vit_base_patch16_plus_clip_240.laion400m_e32", 640, 1.0, False, _LAION400M),
    ("vit_large_patch14_clip_224.laion400m_e32", 768, 1.0, False, _LAION400M),
    ("vit_base_patch32_clip_224.datacompxl", 512, 1.0, False, _DATACOMP),
    ("vit_base_patch32_clip_256.datacompxl", 512, 1.0, False, _DATACOMP),
    ("vit_base_patch16_clip_224.datacompxl", 512, 1.0, False, _DATACOMP),
    ("vit_large_patch14_clip_224.datacompxl", 768, 1.0, False, _DATACOMP),
    ("vit_base_patch16_clip_224.dfn2b", 512, 1.0, False, _DFN),
    ("vit_large_patch14_clip_224.dfn2b", 768, 1.0, False, _DFN_QUICK),
    ("vit_large_patch14_clip_224.dfn2b_s39b", 768, 1.0, False, _DFN),
    ("vit_huge_patch14_clip_224.dfn5b", 1024, 1.0, False, _DFN_QUICK),
    ("vit_huge_patch14_clip_378.dfn5b", 1024, 1.0, False, _DFN_QUICK),
    ("vit_large_patch14_clip_224.apple_mclip2_dfndr2b", 768, 1.0, False, _MOBILECLIP2),
    ("vit_base_patch32_clip_224.metaclip_400m", 512, 1.0, False, _METACLIP_QUICK),
    ("vit_base_patch16_clip_224.metaclip_400m", 512, 1.0, False, _METACLIP_QUICK),
    ("vit_large_patch14_clip_224.metaclip_400m", 768, 1.0, False, _METACLIP_QUICK),
    ("vit_base_patch32_clip_224.metaclip_2pt5b", 512, 1.0, False, _METACLIP_QUICK),
    ("vit_base_patch16_clip_224.metaclip_2pt5b", 512, 1.0, False, _METACLIP_QUICK),
    ("vit_large_patch14_clip_224.metaclip_2pt5b", 768, 1.0, False, _METACLIP_QUICK),
    ("vit_huge_patch14_clip_224.metaclip_2pt5b", 1024, 1.0, False, _METACLIP_QUICK),
    ("vit_gigantic_patch14_clip_224.metaclip_2pt5b", 1280, 1.0, False, _METACLIP_QUICK),
    ("vit_huge_patch14_clip_224.metaclip_altogether", 1024, 1.0, False, _ALTOGETHER),
    ("vit_huge_patch14_clip_224.metaclip2_worldwide", 1024, 1.0, False, _METACLIP2_QUICK),
    ("vit_huge_patch14_clip_378.metaclip2_worldwide", 1024, 1.0, True, _METACLIP2),
    ("vit_gigantic_patch14_clip_224.metaclip2_worldwide", 1280, 1.0, False, _METACLIP2),
    ("vit_gigantic_patch14_clip_378.metaclip2_worldwide", 1280, 1.0, True, _METACLIP2),
    ("vit_xsmall_patch16_clip_224.tinyclip_yfcc15m", 512, 0.9, False, _TINYCLIP),
    ("vit_medium_patch32_clip_224.tinyclip_laion400m", 512, 0.9, False, _TINYCLIP),
    ("vit_medium_patch16_clip_224.tinyclip_yfcc15m", 512, 0.9, False, _TINYCLIP),
    ("vit_betwixt_patch32_clip_224.tinyclip_laion400m", 512, 0.9, False, _TINYCLIP),
]

# timm's name, crop, whether the whole image is squashed, top-1. OpenAI's, too, were
# fine-tuned with the exact GELU.
_FINETUNED = [
    ("vit_base_patch32_clip_224.laion2b_ft_in12k_in1k", 0.9, False, 83.306),
    ("vit_base_patch32_clip_384.laion2b_ft_in12k_in1k", 1.0, False, 85.410),
    ("vit_base_patch32_clip_448.laion2b_ft_in12k_in1k", 1.0, False, 85.800),
    ("vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", 0.95, False, 86.210),
    ("vit_base_patch16_clip_384.laion2b_ft_in12k_in1k", 1.0, True, 87.212),
    ("vit_large_patch14_clip_224.laion2b_ft_in12k_in1k", 1.0, False, 87.898),
    ("vit_large_patch14_clip_336.laion2b_ft_in12k_in1k", 1.0, True, 88.192),
    ("vit_huge_patch14_clip_224.laion2b_ft_in12k_in1k", 1.0, False, 88.278),
    ("vit_huge_patch14_clip_336.laion2b_ft_in12k_in1k", 1.0, True, 88.628),
    ("vit_base_patch32_clip_384.openai_ft_in12k_in1k", 0.95, True, 85.226),
    ("vit_base_patch16_clip_224.openai_ft_in12k_in1k", 0.95, False, 85.962),
    ("vit_base_patch16_clip_384.openai_ft_in12k_in1k", 0.95, True, 87.028),
    ("vit_large_patch14_clip_224.openai_ft_in12k_in1k", 1.0, False, 88.162),
    ("vit_large_patch14_clip_336.openai_ft_in12k_in1k", 1.0, True, 88.264),
    ("vit_base_patch32_clip_224.laion2b_ft_in1k", 0.9, False, 82.630),
    ("vit_base_patch16_clip_224.laion2b_ft_in1k", 1.0, False, 85.494),
    ("vit_base_patch16_clip_384.laion2b_ft_in1k", 1.0, True, 86.638),
    ("vit_large_patch14_clip_224.laion2b_ft_in1k", 1.0, False, 87.298),
    ("vit_large_patch14_clip_336.laion2b_ft_in1k", 1.0, True, 87.866),
    ("vit_huge_patch14_clip_224.laion2b_ft_in1k", 1.0, False, 87.624),
    ("vit_base_patch32_clip_224.openai_ft_in1k", 0.9, False, 81.946),
    ("vit_base_patch16_clip_224.openai_ft_in1k", 0.9, False, 85.286),
    ("vit_base_patch16_clip_384.openai_ft_in1k", 1.0, True, 86.218),
    ("vit_large_patch14_clip_224.openai_ft_in1k", 1.0, False, 87.860),
    ("vit_base_patch16_clip_224.laion2b_ft_in12k", 0.9, False, None),
    ("vit_large_patch14_clip_224.laion2b_ft_in12k", 1.0, False, None),
    ("vit_huge_patch14_clip_224.laion2b_ft_in12k", 1.0, False, None),
    ("vit_base_patch16_clip_224.openai_ft_in12k", 0.9, False, None),
    ("vit_large_patch14_clip_224.openai_ft_in12k", 1.0, False, None),
]


def _images(name, crop_fraction, squash):
    # Only this tower was trained on images in [-1, 1].
    in_half = name.startswith("vit_large") and ".laion2b" in name
    return Preprocessing(
        mean=_HALF if in_half else CLIP_MEAN,
        std=_HALF if in_half else CLIP_STD,
        crop_fraction=crop_fraction,
        interpolation="bicubic",
        squash=squash,
    )


def _tag(name, resolution):
    pretrained, _, finetuned = name.partition(".")[2].partition("_ft_")
    data = "+".join([pretrained, *timm_data(finetuned)])
    prefix = "" if "clip" in data else "clip_"
    return f"{prefix}{data}" + (f"-{resolution}" if resolution != 224 else "")


def _row(name, images, **fields):
    facts = timm_fields(name)
    return Preset(
        tag=_tag(name, facts["resolution"]),
        preprocessing=_images(name, *images),
        **facts,
        **fields,
    )


PRESETS = [
    *(_row(name, images, classes=width, **story) for name, width, *images, story in _ROWS),
    *(
        _row(
            name,
            images,
            family="CLIP fine-tuned",
            classes=CLASSES_1K if name.endswith("in1k") else CLASSES_12K,
            fields=_CLASSIFIER,
            license="Apache-2.0",
            paper=(_OPENAI if ".openai" in name else _LAION2B)["paper"],
            accuracy=accuracy,
            accuracy_source=accuracy and TIMM_RESULTS,
        )
        for name, *images, accuracy in _FINETUNED
    ),
]
