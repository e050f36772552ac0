"""Scores of the classes, from tokens on their way through a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_vit.models import VisionTransformer
from keras_vit.models.encoding import head_inputs, head_logits
from keras_vit.types import Tensor
from keras_vit.weight_paths import HEADS


def check_heads(model: VisionTransformer) -> None:
    """Checks that a model has a head, of which gradients can be taken.

    Raises:
        ValueError: if it has none, or it is quantized.
    """
    if reason := why_no_gradients(model):
        raise ValueError(reason)


def why_no_gradients(model: VisionTransformer) -> str:
    """The reason why no gradients can be taken of a model's head; `""` if they can."""
    heads = [layer for layer in model.layers if layer.name in HEADS]
    if not heads:
        return (
            "The relevance for a class needs a head. Received: a model with classes=0. "
            "Build it with one: keras_vit.from_pretrained(source) with its own classes."
        )
    if modes := [head.quantization_mode for head in heads if head.quantization_mode]:
        return (
            "Gradients need a head that is not quantized. Received: a model quantized in "
            f"{modes[0]!r}. Use the model from before `quantize`."
        )
    return ""


def class_scores(
    model: VisionTransformer, tokens: Tensor, sizes: Tensor | None = None
) -> Tensor:
    """The logits, before the activation of the head.

    Args:
        model: a model with a head.
        tokens: (batch, tokens, hidden_dim), what the pooling reads, every token.
        sizes: int (batch, tokens), how many patches each stands for, or `None`.

    Returns:
        (batch, classes); with `distilled` the mean of both heads.
    """
    scores = [head_logits(*each) for each in head_inputs(model, tokens, sizes)]
    return sum(scores) / len(scores)


def class_numbers(
    classes: int | Sequence[int] | None, num_images: int, num_classes: int
) -> np.ndarray | None:
    """The class of each image, int (batch,), or `None` for the one with the best score.

    Raises:
        ValueError: if there is no such class, or not one for each image.
    """
    if classes is None:
        return None
    given = np.asarray(classes)
    is_fitting = given.shape in ((), (num_images,)) and given.dtype.kind in "iu"
    if not is_fitting or given.min() < 0 or given.max() >= num_classes:
        raise ValueError(
            f"`classes` must be a number from 0 to {num_classes - 1}, or one for each of "
            f"the {num_images} images, or None. Received: classes={classes}"
        )
    return np.broadcast_to(given, (num_images,))


def chosen_score(scores: Tensor, classes: Any) -> Tensor:
    """The sum over the images of the score of one class each.

    Args:
        scores: (batch, classes).
        classes: int (batch,).
    """
    chosen = ops.one_hot(classes, scores.shape[-1], dtype=scores.dtype)
    return ops.sum(scores * chosen)


def best_classes(scores: Tensor) -> np.ndarray:
    """The class with the best score of each image, int (batch,)."""
    return ops.convert_to_numpy(scores).argmax(axis=-1)
