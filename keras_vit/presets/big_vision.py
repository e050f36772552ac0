"""Checkpoints of BigVision (`gs://big_vision`, Apache-2.0): plain ViT-S/16, FlexiViT, and
the image towers of SigLIP and SigLIP 2.

Sources: `models/vit.py`, `models/proj/flexi/vit.py`, the configs, READMEs and SigLIP's
notebook of google-research/big_vision; FlexiViT's mirrors, crops and scores:
`vision_transformer.py` and `results-imagenet.csv` of huggingface/pytorch-image-models, as
recorded in November 2026. BigVision's GELU is the tanh approximation, its epsilon 1e-6.
"""

from keras_vit.presets.google import CLASSES_1K, CLASSES_21K, RESIZED, TIMM_RESULTS
from keras_vit.presets.preset import Preprocessing, Preset

BUCKET = "gs://big_vision"
# Positions are added before the class token, which has none of its own.
TOKEN_WITHOUT_POSITION = {"num_prefix_positions": 0}

# Epochs and top-1; the sizes of the three files are not published.
_S16 = [(300, 80.0), (150, 78.5), (90, 76.5)]

# FlexiViT: file, epochs, timm's name and its top-1 with patches of 16 pixels. Every file,
# the two baselines' too, holds a patch embedding of 32×32 pixels and 7×7 positions
# (big_vision's issue 31): for another patch size the first is resized by the
# pseudo-inverse of a bilinear resize, the second linearly with half-pixel centres.
_FLEXIVIT_1K = [
    ("ViTS16", "flexivit_s_i1k", 1200, "flexivit_small.1200ep_in1k", 82.592),
    ("ViTS16", "flexivit_s_i1k_600ep", 600, "flexivit_small.600ep_in1k", 82.392),
    ("ViTS16", "flexivit_s_i1k_300ep", 300, "flexivit_small.300ep_in1k", 82.170),
    ("ViTS16", "flexivit_s_i1k_90ep", 90, None, None),
    ("ViTB16", "flexivit_b_i1k", 1200, "flexivit_base.1200ep_in1k", 84.688),
    ("ViTB16", "flexivit_b_i1k_600ep", 600, "flexivit_base.600ep_in1k", 84.560),
    ("ViTB16", "flexivit_b_i1k_300ep", 300, "flexivit_base.300ep_in1k", 84.402),
    ("ViTB16", "flexivit_b_i1k_90ep", 90, None, None),
    ("ViTL16", "flexivit_l_i1k", 1200, "flexivit_large.1200ep_in1k", 85.644),
    ("ViTL16", "flexivit_l_i1k_600ep", 600, "flexivit_large.600ep_in1k", 85.530),
    ("ViTL16", "flexivit_l_i1k_300ep", 300, "flexivit_large.300ep_in1k", 85.282),
    ("ViTL16", "flexivit_l_i1k_90ep", 90, None, None),
]
_BASELINE = "flexivit_baseline_imagenet21k-300ep"
_FLEXIVIT_21K = [
    (
        "ViTB16",
        "flexivit_b_i21k_1000ep",
        "flexivit_imagenet21k-1000ep",
        "flexivit_base.1000ep_in21k",
    ),
    (
        "ViTB16",
        "flexivit_b_i21k_300ep",
        "flexivit_imagenet21k-300ep",
        "flexivit_base.300ep_in21k",
    ),
    ("ViTB16", "flexivit_b_i21k_90ep", "flexivit_imagenet21k-90ep", None),
    ("ViTB16", "vit_b16_i21k_300ep", _BASELINE, "flexivit_base.patch16_in21k"),
    # timm's copy has patches of 16 pixels, so it is no mirror.
    ("ViTB30", "vit_b30_i21k_300ep", _BASELINE, None),
]

# SigLIP: architecture, tag, file, resolution. The notebook resizes images to squares. At
# 384 pixels, patches of 14 pixels leave 6 pixels over, which the model never reads.
_SIGLIP = [
    ("ViTB16", "siglip-224", "webli_en_b16_224_63724782", 224),
    ("ViTB16", "siglip-256", "webli_en_b16_256_60500360", 256),
    ("ViTB16", "siglip-384", "webli_en_b16_384_68578854", 384),
    ("ViTB16", "siglip-512", "webli_en_b16_512_68580893", 512),
    ("ViTL16", "siglip-256", "webli_en_l16_256_60552751", 256),
    ("ViTL16", "siglip-384", "webli_en_l16_384_63634585", 384),
    ("ViTSo400m14", "siglip-224", "webli_en_so400m_224_57633886", 224),
    ("ViTSo400m14", "siglip-384", "webli_en_so400m_384_58765454", 378),
    ("ViTB16", "siglip_i18n-256", "webli_i18n_b16_256_66117334", 256),
    ("ViTSo400m16", "siglip_i18n-256", "webli_i18n_so400m_16_256_78061115", 256),
]

# SigLIP 2: architecture, nominal and true resolution, file, zero-shot top-1. The NaFlex
# checkpoints are left out: they are another model, which reads patches of images of any
# aspect ratio as one padded sequence, with positions resized for each image.
_SIGLIP2 = [
    ("ViTB16", 224, 224, "siglip2_b16_224", 78.2),
    ("ViTB16", 256, 256, "siglip2_b16_256", 79.1),
    ("ViTB16", 384, 384, "siglip2_b16_384", 80.6),
    ("ViTB16", 512, 512, "siglip2_b16_512", 81.2),
    ("ViTB32", 256, 256, "siglip2_b32_256", 74.0),
    ("ViTL16", 256, 256, "siglip2_l16_256", 82.5),
    ("ViTL16", 384, 384, "siglip2_l16_384", 83.1),
    ("ViTL16", 512, 512, "siglip2_l16_512", 83.5),
    ("ViTSo400m14", 224, 224, "siglip2_so400m14_224", 83.2),
    ("ViTSo400m14", 384, 378, "siglip2_so400m14_384", 84.1),
    ("ViTSo400m16", 256, 256, "siglip2_so400m16_256", 83.4),
    ("ViTSo400m16", 384, 384, "siglip2_so400m16_384", 84.1),
    ("ViTSo400m16", 512, 512, "siglip2_so400m16_512", 84.3),
    ("ViTgopt16", 256, 256, "siglip2_g-opt16_256", 84.5),
    ("ViTgopt16", 384, 384, "siglip2_g-opt16_384", 85.0),
]

_FLEXIVIT = {
    "family": "FlexiViT",
    "resolution": 240,
    "fields": TOKEN_WITHOUT_POSITION | {"position_interpolation": "bilinear"},
    "resized": True,
    "preprocessing": Preprocessing(crop_fraction=0.95, interpolation="bicubic"),
    "license": "Apache-2.0",
    "paper": "FlexiViT: One Model for All Patch Sizes (arXiv 2212.08013)",
}
_IMAGE_TOWER = {
    "classes": 0,
    "fields": {"pooling": "map"},
    "preprocessing": RESIZED,
    "license": "Apache-2.0",
}


def _with_mirror(file, timm):
    mirror = (f"hf://timm/{timm}",) if timm else ()
    return (f"{BUCKET}/flexivit/{file}.npz", *mirror)


PRESETS = [
    *(
        Preset(
            architecture="ViTS16",
            tag=f"bigvision_imagenet2012-{epochs}ep",
            family="BigVision",
            addresses=(f"{BUCKET}/vit_s16_i1k_{epochs}ep.npz",),
            resolution=224,
            classes=CLASSES_1K,
            fields={
                "pooling": "gap",
                "position": "sincos2d",
                "representation_size": 384,
            },
            preprocessing=Preprocessing(crop_fraction=0.875, interpolation="area"),
            license="Apache-2.0",
            paper="Better plain ViT baselines for ImageNet-1k (arXiv 2205.01580)",
            accuracy=accuracy,
            accuracy_source="arXiv 2205.01580",
        )
        for epochs, accuracy in _S16
    ),
    *(
        Preset(
            architecture=architecture,
            tag=f"flexivit_imagenet2012-{epochs}ep",
            addresses=_with_mirror(file, timm),
            classes=CLASSES_1K,
            accuracy=accuracy,
            accuracy_source=TIMM_RESULTS if accuracy else None,
            **_FLEXIVIT,
        )
        for architecture, file, epochs, timm, accuracy in _FLEXIVIT_1K
    ),
    *(
        Preset(
            architecture=architecture,
            tag=tag,
            addresses=_with_mirror(file, timm),
            classes=CLASSES_21K,
            **_FLEXIVIT,
        )
        for architecture, file, tag, timm in _FLEXIVIT_21K
    ),
    *(
        Preset(
            architecture=architecture,
            tag=tag,
            family="SigLIP",
            addresses=(f"{BUCKET}/siglip/{file}.npz:img",),
            resolution=resolution,
            paper="Sigmoid Loss for Language Image Pre-Training (arXiv 2303.15343)",
            **_IMAGE_TOWER,
        )
        for architecture, tag, file, resolution in _SIGLIP
    ),
    *(
        Preset(
            architecture=architecture,
            tag=f"siglip2-{nominal}",
            family="SigLIP 2",
            addresses=(f"{BUCKET}/siglip2/{file}.npz:img",),
            resolution=resolution,
            paper="SigLIP 2 (arXiv 2502.14786)",
            accuracy=accuracy,
            accuracy_source="zero-shot with its text tower, README_siglip2.md of "
            "big_vision",
            **_IMAGE_TOWER,
        )
        for architecture, nominal, resolution, file, accuracy in _SIGLIP2
    ),
]
