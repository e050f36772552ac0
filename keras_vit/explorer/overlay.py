"""Maps over a picture, and the patch that was clicked."""

import math

import numpy as np

from keras_vit.explorer.view import View
from keras_vit.report.pictures import kind

# Pixels of the longer side, at least. The page never enlarges a picture: Gradio finds the
# clicked pixel only in one of its own size or smaller.
_SIDE = 640
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
_COLOR = (255, 150, 30)  # of the largest value
_DIM = 0.55  # brightness of the picture below
_STRENGTH = 0.88  # opacity of the largest value


def enlarged(picture: np.ndarray) -> np.ndarray:
    """A picture that is large enough to click its patches, uint8 (height, width, 3).

    Args:
        picture: uint8 array (height, width, 1 or 3).
    """
    from PIL import Image

    height, width = picture.shape[:2]
    factor, how = max(1, _SIDE / max(height, width)), Image.Resampling.BICUBIC
    if kind(picture) == "pixels":  # which are shown as squares
        factor, how = math.ceil(factor), Image.Resampling.NEAREST
    picture = np.broadcast_to(picture, (height, width, 3))
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, how))


def overlay(
    picture: np.ndarray,
    weights: np.ndarray,
    view: View,
    patch: tuple[int, int] | None = None,
) -> np.ndarray:
    """A grey picture on which each patch is coloured by its weight.

    The largest weight has the full colour, and zero none.

    Args:
        picture: uint8 array (height, width, 3).
        weights: (rows, columns), at least 0.
        view: the patches in the picture.
        patch: (row, column) of a patch to frame, or `None`.

    Returns:
        uint8 array (height, width, 3).
    """
    rows, columns = view.patch_indices(picture.shape[:2])
    opacity = np.pad(_STRENGTH * weights / max(weights.max(), 1e-12), (0, 1))
    opacity = opacity[rows][:, columns, None]  # at -1 the zeros that were padded
    grey = (picture @ np.float32(_LUMA))[..., None] * np.float32(_DIM)
    drawn = grey + opacity * (np.float32(_COLOR) - grey)
    drawn = np.round(drawn).astype("uint8")
    if patch is not None:
        _frame(drawn, np.flatnonzero(rows == patch[0]), np.flatnonzero(columns == patch[1]))
    return drawn


def _frame(drawn, rows, columns):
    """Draws a white line within a black one around rows and columns of pixels."""
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    for inset, color in ((-2, 0), (-1, 0), (0, 255), (1, 255)):
        first, last = (max(edge + inset, 0) for edge in (top, left))
        below, beyond = bottom - inset, right - inset
        inside = drawn[first:below, last:beyond]
        for edge in (inside[:1], inside[-1:], inside[:, :1], inside[:, -1:]):
            edge[...] = color
