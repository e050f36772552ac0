"""The inside of a Vision Transformer, in arrays and pictures: attention, relevance."""

from keras_vit.analysis.attention import (
    AttentionMaps,
    BlockMaps,
    attention_maps,
    iterate_attention,
)
from keras_vit.analysis.components import embedding_filters, feature_colors
from keras_vit.analysis.distance import attention_distance
from keras_vit.analysis.grad_cam import grad_cam
from keras_vit.analysis.passes import TokenGrid, token_grid
from keras_vit.analysis.plots import (
    plot_distances,
    plot_filters,
    plot_maps,
    plot_positions,
)
from keras_vit.analysis.pooling import class_attention, pooling_attention
from keras_vit.analysis.positions import position_similarity
from keras_vit.analysis.relevance import relevance
from keras_vit.analysis.rollout import attention_rollout, rollout_map
from keras_vit.analysis.summary import AttentionSummary, attention_summary

__all__ = [
    "AttentionMaps",
    "AttentionSummary",
    "BlockMaps",
    "TokenGrid",
    "attention_distance",
    "attention_maps",
    "attention_rollout",
    "attention_summary",
    "class_attention",
    "embedding_filters",
    "feature_colors",
    "grad_cam",
    "iterate_attention",
    "plot_distances",
    "plot_filters",
    "plot_maps",
    "plot_positions",
    "pooling_attention",
    "position_similarity",
    "relevance",
    "rollout_map",
    "token_grid",
]
