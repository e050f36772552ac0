"""Pictures as `data:` addresses, which the page itself holds."""

import base64
import io

import numpy as np

_LONGEST_SIDE = 256  # pixels of a picture of an example
_SMALLEST_SIDE = 96  # smaller pictures show their pixels as squares
_MOST_CELLS = 250  # along a side of a heat map
_RIGHT, _WRONG = (0, 114, 178), (213, 94, 0)  # Okabe and Ito's blue and vermilion


def kind(image: np.ndarray) -> str:
    """The class of a picture in the style sheet: `"pixels"` if it is small."""
    return "pixels" if max(image.shape[:2]) < _SMALLEST_SIDE else "photograph"


def photograph(image: np.ndarray) -> str:
    """The address of a picture, shrunk to 256 pixels if it is larger.

    Args:
        image: uint8 array (height, width, channels).
    """
    from PIL import Image

    image = np.asarray(image)
    image = image[..., 0] if image.shape[-1] == 1 else image[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(image))
    if kind(image) == "pixels":
        return _address(picture, "PNG")
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return _address(picture, "JPEG", quality=85)


def heat_map(confusion: np.ndarray) -> tuple[str, int]:
    """Draws a confusion matrix; the colour is the share of the true class.

    Empty cells are transparent, for any background.

    Args:
        confusion: int array (true classes, predicted classes).

    Returns:
        The picture's address, and the number of classes along a side of a cell.
    """
    from PIL import Image

    per_cell = -(-len(confusion) // _MOST_CELLS)
    counts = _summed(confusion, per_cell)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture = np.empty((*shares.shape, 4), "uint8")
    picture[..., :3] = _WRONG
    picture[np.diag_indices(len(shares))] = (*_RIGHT, 0)
    # The root makes rare mistakes visible.
    picture[..., 3] = np.round(255 * np.sqrt(shares))
    enlarged = np.kron(picture, np.ones((_enlargement(len(shares)),) * 2 + (1,), "uint8"))
    return _address(Image.fromarray(enlarged), "PNG"), per_cell


def _summed(matrix, per_cell):
    """Sums over square blocks."""
    missing = -len(matrix) % per_cell
    matrix = np.pad(matrix, (0, missing))
    cells = len(matrix) // per_cell
    return matrix.reshape(cells, per_cell, cells, per_cell).sum(axis=(1, 3))


def _enlargement(cells):
    """Pixels along a side of a cell: single pixels vanish when a browser shrinks it."""
    return max(1, round(1200 / cells))


def _address(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{data}"
