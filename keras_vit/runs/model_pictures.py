"""The three pictures of a model in figure 7 of the ViT paper, each where it has one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from keras_vit import analysis
from keras_vit.analysis.components import most_components
from keras_vit.analysis.positions import adds_positions
from keras_vit.models import VisionTransformer
from keras_vit.models.fields import has_own_positions

_FILTERS = 28  # as in the figure


@dataclass(frozen=True, eq=False)
class ModelPictures:
    """Arrays of the figure (arXiv 2010.11929, figure 7).

    Attributes:
        filters: float32 (components, height, width, channels), see
            `analysis.embedding_filters`; `None` if they are no picture.
        similarity: float32 (rows, columns, rows, columns), see
            `analysis.position_similarity`; `None` if the model adds no positions.
        distances: float32 (blocks, heads), see `analysis.attention_distance`; `None`
            without an image.
        remarks: why an array is `None`, by its name.
    """

    filters: np.ndarray | None
    similarity: np.ndarray | None
    distances: np.ndarray | None
    remarks: dict[str, str]


def model_pictures(model: VisionTransformer) -> ModelPictures:
    """Computes the pictures of a model that need no image."""
    remarks = {
        "filters": _why_no_filters(model),
        "similarity": _why_no_similarity(model),
        "distances": "No image could be read.",
    }
    filters = similarity = None
    if not remarks["filters"]:
        kernel = model.get_layer("patch_embedding").kernel.shape
        number = min(_FILTERS, most_components(kernel))
        filters = analysis.embedding_filters(model, number)
    if not remarks["similarity"]:
        similarity = analysis.position_similarity(model)
    remarks = {name: text for name, text in remarks.items() if text}
    return ModelPictures(filters, similarity, None, remarks)


def with_distances(
    pictures: ModelPictures, by_image: Sequence[np.ndarray]
) -> ModelPictures:
    """Pictures of a model with the mean attention distance of images.

    Args:
        pictures: without distances.
        by_image: float32 (blocks, heads) of each image.
    """
    if not by_image:
        return pictures
    remarks = {name: text for name, text in pictures.remarks.items() if name != "distances"}
    return replace(pictures, distances=np.mean(by_image, axis=0), remarks=remarks)


def _why_no_filters(model):
    kernel = model.get_layer("patch_embedding").kernel.shape
    if model.arguments["stem"]:
        return (
            "This is a hybrid: its patches are places in the ResNet's feature map. Their "
            f"filters, of {kernel[2]:,} channels, are no pictures."
        )
    if kernel[2] not in (1, 3):
        return f"Filters of {kernel[2]} channels are no pictures."
    if most_components(kernel) < 1:
        return "A single filter has no principal components."
    return ""


def _why_no_similarity(model):
    if adds_positions(model):
        return ""
    fields = model.arguments
    if has_own_positions(model.fields):
        return (
            "Each block of this model adds positions of its own: there is no one picture."
        )
    if fields["rope"]:
        place = "It rotates queries and keys by them inside the attention (RoPE)."
    elif fields["position"] == "relative":
        place = "Its attention has a bias for each offset between two patches."
    elif fields["position"] == "relative_key":
        place = "Its queries attend to an embedding of each offset between two patches."
    else:
        place = f"It has position={fields['position']!r}."
    return f"This model adds no position embedding to its patches. {place}"
