"""Principal components, and the pictures made of them: filters, and patch features."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit import arguments
from keras_vit.analysis.passes import (
    batches,
    final_tokens,
    token_grid,
    transformer,
)
from keras_vit.data.wording import listed
from keras_vit.models.encoding import embedding


def embedding_filters(model: keras.Model, components: int = 28) -> np.ndarray:
    """The principal components of the patch embedding's filters.

    Source: ViT (arXiv 2010.11929), figure 7 (left). Each of the `hidden_dim` filters is one
    sample; the components are directions of the filters around their mean.

    Args:
        model: a `VisionTransformer`; the filters of a hybrid are of the ResNet's features.
        components: int, number of components, in falling order of their variance.

    Returns:
        float32 array (components, height, width, channels), each of length 1 and, as the
        sign of a component is free, with a positive largest number.

    Raises:
        ValueError: if the filters have not as many components.
    """
    model = transformer(model, "A patch embedding")
    arguments.positive(components, "components")
    kernel = ops.convert_to_numpy(model.get_layer("patch_embedding").kernel)
    filters = np.float64(kernel).reshape(-1, kernel.shape[-1]).T  # (hidden_dim, pixels)
    most = most_components(kernel.shape)
    if components > most:
        raise ValueError(
            f"`components` must be at most {most}: there are {len(filters)} filters of "
            f"{filters.shape[1]} numbers. Received: components={components}"
        )
    _, found = principal_components(filters, components)
    return found.reshape(components, *kernel.shape[:3]).astype("float32")


def most_components(kernel_shape: Sequence[int]) -> int:
    """Number of components that filters (height, width, channels, filters) have."""
    *pixels, filters = kernel_shape
    return min(filters - 1, math.prod(pixels))


def feature_colors(
    model: keras.Model,
    images: Any,
    *,
    foreground: str | np.ndarray | None = None,
    threshold: float = 0.0,
    batch_size: int = 8,
) -> np.ndarray:
    """Patch features as colours: the three first principal components over all images.

    Source: DINOv2 (arXiv 2304.07193), figure 1. The components are those of the patches of
    all images together, so that like parts have like colours in each. Each component is one
    channel, from its least value, 0, to its largest, 1.

    Args:
        model: a `VisionTransformer`.
        images: array (batch, height, width, channels), as the model takes them.
        foreground: which patches to colour: `None` for all, a bool array (batch, rows,
            columns), or `"first"` for those whose first component of all patches is above
            a threshold. The colours are then the components of these patches alone, and
            the others are black. The sign of the first component is that in which the
            patches along the images' edges are below the others.
        threshold: float, with `foreground="first"`, in standard deviations from the mean.
        batch_size: int, number of images that pass the model at a time.

    Returns:
        float32 array (batch, rows, columns, 3), from 0 to 1.

    Raises:
        ValueError: if the model is no `VisionTransformer`, fewer than four patches are in
            the foreground, or a feature is NaN or infinity.
    """
    features = patch_features(model, images, batch_size)
    is_finite = np.isfinite(features).all(axis=(1, 2, 3))
    if not is_finite.all():
        raise ValueError(
            "Patch features must be finite. Received: NaN or infinity for the images "
            f"{listed(map(str, np.flatnonzero(~is_finite)))}. Their pixels are not finite, "
            "or the model overflows in float16: compute in float32 or bfloat16."
        )
    if foreground is None:
        is_shown = np.ones(features.shape[:3], bool)
    elif isinstance(foreground, str):
        arguments.one_of(foreground, ("first",), "foreground")
        is_shown = _in_foreground(features, threshold)
    else:
        is_shown = _checked_mask(foreground, features.shape[:3])
    shown = features[is_shown]  # (patches, hidden_dim)
    if len(shown) < 4:
        raise ValueError(
            "Three components need four patches. Received: a foreground of "
            f"{len(shown)} patches. Choose another, or pass more images."
        )
    mean, components = principal_components(shown, 3)
    values = (shown - mean) @ components.T
    low, high = values.min(axis=0), values.max(axis=0)
    colors = np.zeros((*is_shown.shape, 3), "float32")
    colors[is_shown] = (values - low) / np.where(high > low, high - low, 1)
    return colors


def patch_features(model: keras.Model, images: Any, batch_size: int = 8) -> np.ndarray:
    """The patch tokens that a model's pooling reads, after its final norm.

    Merged tokens stand at each of their places.

    Returns:
        float64 array (batch, rows, columns, hidden_dim).
    """
    model = transformer(model, "Patch features")
    embed, grid = embedding(model), token_grid(model, images)
    found = []
    for some in batches(images, batch_size):
        tokens, _, places = final_tokens(model, embed, images[some], grid)
        tokens = ops.convert_to_numpy(ops.cast(tokens, "float32"))
        found.append(places.take(tokens, axis=1)[:, grid.num_prefix :])
    features = np.concatenate(found).astype("float64")
    return features.reshape(-1, grid.rows, grid.columns, features.shape[-1])


def principal_components(samples: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The directions in which samples differ most.

    Args:
        samples: float64 array (samples, width), more than `number`.
        number: int, how many directions.

    Returns:
        The mean (width,), and the directions (number, width) in falling order of the
        variance, each of length 1 and with a positive largest number.
    """
    mean = samples.mean(axis=0)
    centred = samples - mean
    # The smaller one of the two matrices with the same eigenvalues.
    if len(centred) >= centred.shape[1]:
        _, vectors = np.linalg.eigh(centred.T @ centred)
        found = vectors[:, ::-1][:, :number].T
    else:
        _, vectors = np.linalg.eigh(centred @ centred.T)
        found = vectors[:, ::-1][:, :number].T @ centred
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found = found / np.where(lengths > 0, lengths, 1)
    largest = np.abs(found).argmax(axis=1)[:, None]
    return mean, found * np.sign(np.take_along_axis(found, largest, axis=1))


def _in_foreground(features, threshold):
    """The patches whose first component is above a threshold, (batch, rows, columns)."""
    mean, component = principal_components(features.reshape(-1, features.shape[-1]), 1)
    values = (features - mean) @ component[0]  # (batch, rows, columns)
    is_inside = np.zeros(values.shape[1:], bool)
    is_inside[1:-1, 1:-1] = True
    if not is_inside.any():
        raise ValueError(
            "foreground='first' tells the foreground from the edges of the images, and "
            "needs three rows and columns of patches. Received: images of "
            f"{values.shape[1]} x {values.shape[2]} patches. Pass a mask as `foreground`."
        )
    if values[:, is_inside].mean() < values[:, ~is_inside].mean():
        values = -values
    return values > threshold * values.std()


def _checked_mask(mask, shape):
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != shape:
        raise ValueError(
            f"`foreground` must be None, 'first' or a bool array {shape} (batch, rows, "
            f"columns). Received: an array {mask.shape} of {mask.dtype}"
        )
    return mask
