"""Vision Transformers for Keras 3: *An Image is Worth 16x16 Words* as a model zoo."""

import keras_vit._before_keras  # noqa: F401, before anything imports Keras
from keras_vit import data, distribution, exporting, layers, planning, runs, training
from keras_vit._version import __version__
from keras_vit.models import BiTResNet, VisionTransformer
from keras_vit.weights.report import LoadReport
from keras_vit.zoo.constructors import (
    BiTR50x1,
    BiTR50x3,
    BiTR101x1,
    BiTR101x3,
    BiTR152x2,
    BiTR152x4,
    R26ViTB32,
    R26ViTS32,
    R50ViTB16,
    R50ViTL32,
    RViTTi16,
    ViT7B16,
    ViTB8,
    ViTB16,
    ViTB32,
    ViTG14,
    ViTg14,
    ViTH14,
    ViTH16plus,
    ViTL16,
    ViTL32,
    ViTS16,
    ViTS16plus,
    ViTS32,
    ViTSo400m14,
    ViTTi16,
)
from keras_vit.zoo.description import describe
from keras_vit.zoo.listing import list_presets
from keras_vit.zoo.predictions import decode_predictions
from keras_vit.zoo.preprocessing import preprocess_input
from keras_vit.zoo.pretrained import from_pretrained, load_weights, save_weights

__all__ = [
    "BiTR50x1",
    "BiTR50x3",
    "BiTR101x1",
    "BiTR101x3",
    "BiTR152x2",
    "BiTR152x4",
    "BiTResNet",
    "LoadReport",
    "R26ViTB32",
    "R26ViTS32",
    "R50ViTB16",
    "R50ViTL32",
    "RViTTi16",
    "ViT7B16",
    "ViTB8",
    "ViTB16",
    "ViTB32",
    "ViTG14",
    "ViTH14",
    "ViTH16plus",
    "ViTL16",
    "ViTL32",
    "ViTS16",
    "ViTS16plus",
    "ViTS32",
    "ViTSo400m14",
    "ViTTi16",
    "ViTg14",
    "VisionTransformer",
    "__version__",
    "data",
    "decode_predictions",
    "describe",
    "distribution",
    "exporting",
    "from_pretrained",
    "layers",
    "list_presets",
    "load_weights",
    "planning",
    "preprocess_input",
    "runs",
    "save_weights",
    "training",
]
