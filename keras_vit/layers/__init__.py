"""The layers that Vision Transformers are built from, each usable alone."""

from keras_vit.layers.attention import SelfAttention
from keras_vit.layers.encoder import EncoderBlock
from keras_vit.layers.mlp import MLP
from keras_vit.layers.patches import PatchEmbedding
from keras_vit.layers.pooling import AttentionPooling, MeanPooling, TokenPooling
from keras_vit.layers.position import PositionEmbedding
from keras_vit.layers.regularization import DropPath, LayerScale
from keras_vit.layers.tokens import ClassToken, Registers

__all__ = [
    "MLP",
    "AttentionPooling",
    "ClassToken",
    "DropPath",
    "EncoderBlock",
    "LayerScale",
    "MeanPooling",
    "PatchEmbedding",
    "PositionEmbedding",
    "Registers",
    "SelfAttention",
    "TokenPooling",
]
