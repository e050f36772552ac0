"""Models, built from `keras_vit.layers`."""

from keras_vit.models.bit import BiTResNet
from keras_vit.models.efficientnet import EfficientNet
from keras_vit.models.images import ImageModel
from keras_vit.models.vision_transformer import VisionTransformer

__all__ = ["BiTResNet", "EfficientNet", "ImageModel", "VisionTransformer"]
