"""Google's checkpoints of the ViT paper as Hugging Face publishes them (Apache-2.0).

Sources: the converters and configurations of huggingface/transformers and keras-hub, and
the models' cards, as recorded in November 2026. They compute with the exact GELU and an
epsilon of 1e-12. The pre-trained ones have no head, whose weights were zero, but the tanh
layer before it, which transformers calls the pooler.
"""

from keras_vit.presets.google import CLASSES_1K, RESIZED
from keras_vit.presets.meta import TIMM_FIELDS
from keras_vit.presets.preset import Preset

_FIELDS = {**TIMM_FIELDS, "layer_norm_epsilon": 1e-12}
_STORY = {
    "family": "Hugging Face",
    "preprocessing": RESIZED,
    "license": "Apache-2.0",
    "paper": "An Image is Worth 16x16 Words (arXiv 2010.11929)",
}

_FINETUNED = [
    ("ViTB16", 384, "google/vit-base-patch16-384"),
    ("ViTB16", 224, "google/vit-base-patch16-224"),
    ("ViTB32", 384, "google/vit-base-patch32-384"),
    ("ViTL16", 384, "google/vit-large-patch16-384"),
    ("ViTL16", 224, "google/vit-large-patch16-224"),
    ("ViTL32", 384, "google/vit-large-patch32-384"),
]
_PRETRAINED = [
    ("ViTB16", 768, "google/vit-base-patch16-224-in21k"),
    ("ViTB32", 768, "google/vit-base-patch32-224-in21k"),
    ("ViTL16", 1024, "google/vit-large-patch16-224-in21k"),
    ("ViTL32", 1024, "google/vit-large-patch32-224-in21k"),
    ("ViTH14", 1280, "google/vit-huge-patch14-224-in21k"),
]

PRESETS = [
    *(
        Preset(
            architecture=architecture,
            tag="hf_imagenet21k+imagenet2012" + ("-224" if resolution == 224 else ""),
            addresses=(f"hf://{name}",),
            resolution=resolution,
            classes=CLASSES_1K,
            fields=_FIELDS,
            **_STORY,
        )
        for architecture, resolution, name in _FINETUNED
    ),
    *(
        Preset(
            architecture=architecture,
            tag="hf_imagenet21k",
            addresses=(f"hf://{name}",),
            resolution=224,
            classes=0,
            fields={**_FIELDS, "representation_size": representation_size},
            **_STORY,
        )
        for architecture, representation_size, name in _PRETRAINED
    ),
]
