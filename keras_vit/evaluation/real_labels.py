"""ImageNet-ReaL: accuracy where an image has several right labels."""

import operator
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.evaluation.checks import check_finite


def real_accuracy(predictions: ArrayLike, labels: Sequence[Iterable[int]]) -> float:
    """Share of the images whose prediction is among their right labels.

    Images without a right label are left out.

    Source: Beyer et al., *Are we done with ImageNet?* (arXiv 2006.07159), section 4. Its
    file `real.json` is such a list of labels, in the order of the names of the validation
    images.

    Args:
        predictions: int array (images,), classes; or float array (images, classes), scores
            of which the largest is the prediction.
        labels: for each image its right labels, none or several.

    Raises:
        ValueError: if there is not one prediction for each image, the predictions are
            neither classes nor finite scores, a label is no class, or no image has one.

    Example:

    >>> keras_vit.evaluation.real_accuracy([0, 1, 2], [[0, 5], [4], []])
    0.5
    """
    predictions = np.asarray(predictions)
    is_known = (predictions.ndim == 2 and predictions.size > 0) or (
        predictions.ndim == 1 and predictions.dtype.kind in "iu"
    )
    if not is_known or len(predictions) != len(labels):
        raise ValueError(
            "Predictions must be whole numbers (images,) or scores (images, classes), one "
            f"for each of the images that have a list of labels. Received: shape "
            f"{predictions.shape}, type {predictions.dtype}, and {len(labels)} lists"
        )
    if predictions.ndim == 2:
        check_finite(predictions, "predictions")
        predictions = predictions.argmax(axis=1)
    pairs = zip(predictions.tolist(), map(_classes, labels), strict=True)
    correct = [prediction in right for prediction, right in pairs if right]
    if not correct:
        raise ValueError(
            f"At least one image must have a label. Received: {len(labels)} empty lists"
        )
    return sum(correct) / len(correct)


def _classes(labels) -> set[int]:
    """The right labels of an image."""
    try:
        return {operator.index(label) for label in labels}
    except TypeError:
        raise ValueError(
            "The right labels of an image must be a list of classes, whole numbers. "
            f"Received: {labels!r}"
        ) from None
