"""The inside of a Vision Transformer as arrays: attention, for any built model."""

from keras_vit.analysis.attention import (
    AttentionMaps,
    BlockMaps,
    attention_maps,
    iterate_attention,
)
from keras_vit.analysis.passes import TokenGrid, token_grid

__all__ = [
    "AttentionMaps",
    "BlockMaps",
    "TokenGrid",
    "attention_maps",
    "iterate_attention",
    "token_grid",
]
