"""Vision Transformers for Keras 3: *An Image is Worth 16x16 Words* as a model zoo."""

from keras_vit import layers
from keras_vit._version import __version__
from keras_vit.catalogue import describe, list_presets
from keras_vit.imagenet import decode_predictions, preprocess_input
from keras_vit.models import VisionTransformer
from keras_vit.weights.report import LoadReport
from keras_vit.zoo import (
    ViTB8,
    ViTB16,
    ViTB32,
    ViTG14,
    ViTg14,
    ViTH14,
    ViTL16,
    ViTL32,
    ViTS16,
    ViTS32,
    ViTSo400m14,
    ViTTi16,
    from_pretrained,
    load_weights,
    save_weights,
)

__all__ = [
    "LoadReport",
    "ViTB8",
    "ViTB16",
    "ViTB32",
    "ViTG14",
    "ViTH14",
    "ViTL16",
    "ViTL32",
    "ViTS16",
    "ViTS32",
    "ViTSo400m14",
    "ViTTi16",
    "ViTg14",
    "VisionTransformer",
    "__version__",
    "decode_predictions",
    "describe",
    "from_pretrained",
    "layers",
    "list_presets",
    "load_weights",
    "preprocess_input",
    "save_weights",
]
