"""Checkpoints of BEiT and BEiT v2, fine-tuned on ImageNet, as timm holds them.

Sources: `beit.py` and `results-imagenet.csv` of huggingface/pytorch-image-models
(addresses, arguments, licenses, scores), as recorded in November 2026. All use the exact
GELU and an epsilon of 1e-6.
"""

from keras_vit.presets.google import CLASSES_1K, TIMM_RESULTS
from keras_vit.presets.meta import IMAGENET_MEAN, IMAGENET_STD
from keras_vit.presets.preset import Preprocessing, Preset, timm_data, timm_fields
from keras_vit.presets.rotary import CLASSES_22K

# timm's name, crop, top-1.
_ROWS = [
    ("beit_base_patch16_224.in22k_ft_in22k_in1k", 0.9, 85.244),
    ("beit_base_patch16_384.in22k_ft_in22k_in1k", 1.0, 86.816),
    ("beit_base_patch16_224.in22k_ft_in22k", 0.9, None),
    ("beit_large_patch16_224.in22k_ft_in22k_in1k", 0.9, 87.488),
    ("beit_large_patch16_384.in22k_ft_in22k_in1k", 1.0, 88.382),
    ("beit_large_patch16_512.in22k_ft_in22k_in1k", 1.0, 88.578),
    ("beit_large_patch16_224.in22k_ft_in22k", 0.9, None),
    ("beitv2_base_patch16_224.in1k_ft_in22k_in1k", 0.9, 86.494),
    ("beitv2_base_patch16_224.in1k_ft_in1k", 0.9, 85.596),
    ("beitv2_base_patch16_224.in1k_ft_in22k", 0.9, None),
    ("beitv2_large_patch16_224.in1k_ft_in22k_in1k", 0.95, 88.406),
    ("beitv2_large_patch16_224.in1k_ft_in1k", 0.95, 87.414),
    ("beitv2_large_patch16_224.in1k_ft_in22k", 0.95, None),
]


def _row(name, crop_fraction, accuracy):
    facts = timm_fields(name)
    version, tag = name.partition("_")[0], name.partition(".")[2]
    is_v2, is_small = version == "beitv2", name.startswith("beit_base")
    images = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} if is_v2 else {}
    return Preset(
        tag=f"{version}_{'+'.join(timm_data(tag))}-{facts['resolution']}",
        family="BEiT v2" if is_v2 else "BEiT",
        classes=CLASSES_1K if tag.endswith("in1k") else CLASSES_22K,
        fields={
            "gelu_approximate": False,
            "position": "relative",
            "qkv_bias": "qv",
            "layer_scale": 0.1 if is_small else 1e-5,
            "pooling": "gap",
            "class_token": True,
            "fc_norm": True,
        },
        preprocessing=Preprocessing(
            crop_fraction=crop_fraction, interpolation="bicubic", **images
        ),
        license="Apache-2.0",
        paper="BEiT v2: Masked Image Modeling with Vector-Quantized Visual Tokenizers "
        "(arXiv 2208.06366)"
        if is_v2
        else "BEiT: BERT Pre-Training of Image Transformers (arXiv 2106.08254)",
        accuracy=accuracy,
        accuracy_source=accuracy and TIMM_RESULTS,
        **facts,
    )


PRESETS = [_row(*row) for row in _ROWS]
