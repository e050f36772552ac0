"""Models, built from `keras_vit.layers`."""

from keras_vit.models.vision_transformer import VisionTransformer

__all__ = ["VisionTransformer"]
