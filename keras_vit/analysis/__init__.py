"""The inside of a Vision Transformer as arrays: attention, for any built model."""

from keras_vit.analysis.attention import (
    AttentionMaps,
    BlockMaps,
    attention_maps,
    iterate_attention,
)
from keras_vit.analysis.distance import attention_distance
from keras_vit.analysis.passes import TokenGrid, token_grid
from keras_vit.analysis.pooling import class_attention, pooling_attention
from keras_vit.analysis.rollout import attention_rollout, rollout_map

__all__ = [
    "AttentionMaps",
    "BlockMaps",
    "TokenGrid",
    "attention_distance",
    "attention_maps",
    "attention_rollout",
    "class_attention",
    "iterate_attention",
    "pooling_attention",
    "rollout_map",
    "token_grid",
]
