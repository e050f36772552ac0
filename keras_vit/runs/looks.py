"""Maps of images for pages, from one pass: over each picture, as the model sees it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from keras_vit.analysis import AttentionSummary, attention_summary
from keras_vit.data import load_images
from keras_vit.data.pipeline import pixels_of
from keras_vit.log import log
from keras_vit.models import VisionTransformer
from keras_vit.report.looks import Look
from keras_vit.runs.classifier import Classifier


def looks_of(classifier: Classifier, images: Sequence[np.ndarray]) -> list[Look] | None:
    """Maps of what a classifier reads of some images; `None` if it has no attention.

    A page is worth more than its maps: if they cannot be computed, the log says why.

    Args:
        classifier: the model and the preparation of its images.
        images: uint8 (height, width, channels) of any sizes.
    """
    if not isinstance(classifier.model, VisionTransformer):
        return None
    # Values and opacity are those of the pixels by now.
    pipeline = replace(classifier.pipeline, value_range=None, alpha=None)
    try:
        pixels = load_images(images, pipeline)
        found = attention_summary(classifier.model, pixels)
    except Exception as error:  # such as memory, or attention in a compiled function
        log.warning("There are no maps of what the model reads: %s", error)
        return None
    return as_looks(found, pixels_of(pixels, pipeline))


def as_looks(found: AttentionSummary, pictures: Sequence[np.ndarray]) -> list[Look]:
    """The pictures that a model has seen, each with its maps.

    Args:
        found: of these images.
        pictures: uint8 (height, width, channels) of each, as the model sees it.
    """
    nothing = [None] * len(pictures)
    class_maps = nothing if found.class_map is None else found.class_map
    rollouts = nothing if found.rollout is None else found.rollout
    rows = zip(pictures, class_maps, rollouts, strict=True)
    return [Look(*row, found.class_map_kind) for row in rows]
