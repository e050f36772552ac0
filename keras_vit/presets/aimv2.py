"""Checkpoints of Apple's AIMv2, in transformers' layout.

Sources: README of apple/ml-aim (sizes, scores, addresses); `aim/v2/torch/models.py` there
(widths, heads); the licenses and layouts of the repositories on the Hub, as recorded in
November 2026. The models with positions for any size ("native") are not built here, and
those with a text tower ("lit") are left out.
"""

from keras_vit.presets.clip import CLIP_MEAN, CLIP_STD
from keras_vit.presets.meta import TIMM_FIELDS
from keras_vit.presets.preset import Preprocessing, Preset

# Architecture, name of the size; top-1 at 224, 336 and 448 pixels.
_SIZES = [
    ("ViTAIML14", "large", (86.6, 87.6, 87.9)),
    ("ViTAIMH14", "huge", (87.5, 88.2, 88.6)),
    ("ViTAIM1B14", "1B", (88.1, 88.7, 89.0)),
    ("ViTAIM3B14", "3B", (88.5, 89.2, 89.5)),
]
# Architecture, end of the address, tag, resolution, top-1.
_ROWS = [
    *(
        (architecture, f"{size}-patch14-{resolution}", "aimv2", resolution, accuracy)
        for architecture, size, scores in _SIZES
        for resolution, accuracy in zip((224, 336, 448), scores, strict=True)
    ),
    *(
        ("ViTAIML14", f"large-patch14-{side}-distilled", "aimv2_distilled", side, None)
        for side in (224, 336)
    ),
]

PRESETS = [
    Preset(
        architecture=architecture,
        tag=f"{tag}-{resolution}",
        family="AIMv2",
        addresses=(f"hf://apple/aimv2-{name}",),
        resolution=resolution,
        classes=0,
        fields={
            **TIMM_FIELDS,
            "pooling": "gap",
            "norm": "rms",
            "layer_norm_epsilon": 1e-5,
            "patch_norm": True,
            **dict.fromkeys(("qkv_bias", "projection_bias", "mlp_bias"), False),
        },
        preprocessing=Preprocessing(mean=CLIP_MEAN, std=CLIP_STD),
        license="apple-amlr",
        paper="Multimodal Autoregressive Pre-training of Large Vision Encoders "
        "(arXiv 2411.14402)",
        accuracy=accuracy,
        accuracy_source=accuracy
        and "attentive probe on frozen features, README of apple/ml-aim",
    )
    for architecture, name, tag, resolution, accuracy in _ROWS
]
