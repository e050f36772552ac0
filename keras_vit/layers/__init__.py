"""The layers that Vision Transformers and BiT are built from, each usable alone."""

from keras_vit.layers.attention import SelfAttention
from keras_vit.layers.encoder import EncoderBlock
from keras_vit.layers.layer_positions import LayerPositions
from keras_vit.layers.mlp import MLP
from keras_vit.layers.normalization import (
    GroupNormalization,
    LayerNormalization,
    RMSNormalization,
)
from keras_vit.layers.patches import PatchEmbedding
from keras_vit.layers.pooling import (
    AttentionPooling,
    MeanPooling,
    QueryPooling,
    TokenMeanPooling,
    TokenPooling,
)
from keras_vit.layers.position import PositionEmbedding
from keras_vit.layers.regularization import DropPath, LayerScale
from keras_vit.layers.relative import RelativePositionBias
from keras_vit.layers.relative_keys import RelativeKeys
from keras_vit.layers.resnet import BottleneckUnit, PreActivationUnit, ResNetRoot
from keras_vit.layers.rotary import RotaryEmbedding
from keras_vit.layers.standardized_conv import StandardizedConv2D
from keras_vit.layers.tokens import ClassToken, Registers

__all__ = [
    "MLP",
    "AttentionPooling",
    "BottleneckUnit",
    "ClassToken",
    "DropPath",
    "EncoderBlock",
    "GroupNormalization",
    "LayerNormalization",
    "LayerPositions",
    "LayerScale",
    "MeanPooling",
    "PatchEmbedding",
    "PositionEmbedding",
    "PreActivationUnit",
    "QueryPooling",
    "RMSNormalization",
    "Registers",
    "RelativeKeys",
    "RelativePositionBias",
    "ResNetRoot",
    "RotaryEmbedding",
    "SelfAttention",
    "StandardizedConv2D",
    "TokenMeanPooling",
    "TokenPooling",
]
