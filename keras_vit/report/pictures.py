"""Pictures as `data:` addresses, which the page itself holds."""

import base64
import io

import numpy as np

from keras_vit.resize import resize_grid

_LONGEST_SIDE = 256  # pixels of a picture of an example
_SMALLEST_SIDE = 96  # smaller pictures show their pixels as squares
_MOST_CELLS = 250  # along a side of a heat map
_SHADE_SIDE = 96  # pixels of a dark layer, at most where a map has fewer places
_DARKEST = 0.88  # opacity of it: the picture is recognised where nothing is read
_FILTERS_IN_A_ROW, _TILE_SIDE = 7, 48
_SHEET_SIDE = 480  # pixels of the tiles in a row, at most where a tile has fewer
_GREY, _FAINT = 128, 28  # zero, and its opacity
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


def shade(one: np.ndarray) -> str:
    """The address of a dark layer over a picture, the darker the smaller a map is there.

    It is transparent where the map has its largest value. A page stretches it over the
    picture.

    Args:
        one: float array (rows, columns), not negative.
    """
    from PIL import Image

    factor = max(1, _SHADE_SIDE // max(one.shape))
    size = tuple(factor * n for n in one.shape)
    # Enlarged here: browsers fade the edges of small pictures.
    enlarged = resize_grid(np.float64(one)[..., None], size, "bilinear")[..., 0]
    largest = enlarged.max()
    share = np.clip(enlarged / (largest if largest > 0 else 1), 0, 1)
    layer = np.zeros((*size, 2), "uint8")  # black, and its opacity
    layer[..., 1] = np.round(255 * _DARKEST * (1 - share))
    return _address(Image.fromarray(layer), "PNG")


def filter_sheet(filters: np.ndarray) -> str:
    """The address of filters side by side, each on its own scale, zero as grey.

    Args:
        filters: float array (components, height, width, channels) of one or three channels.
    """
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    shades = 127.5 + 127.5 * filters / np.where(largest > 0, largest, 1)
    tiles = np.full((*filters.shape[:3], 4), 255, "uint8")
    tiles[..., :3] = np.round(shades)
    factor = max(1, _TILE_SIDE // max(filters.shape[1:3]))
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    return _sheet(tiles, _FILTERS_IN_A_ROW)


def position_sheet(similarity: np.ndarray) -> tuple[str, int]:
    """Draws how similar all positions are to those of some patches.

    Blue is 1, vermilion -1; zero a faint grey, for any background.

    Args:
        similarity: float array (rows, columns, rows, columns), from -1 to 1.

    Returns:
        The picture's address, and n if every n-th patch has a tile, by row and column.
    """
    rows, columns = similarity.shape[:2]
    step = max(1, -(-(max(rows, columns) ** 2) // _SHEET_SIDE))
    some = similarity[step // 2 :: step, step // 2 :: step]
    share = np.clip(np.abs(some), 0, 1)[..., None]
    color = np.where(some[..., None] < 0, _WRONG, _RIGHT)
    tiles = np.empty((*some.shape, 4), "uint8")
    tiles[..., :3] = np.round(share * color + (1 - share) * _GREY)
    tiles[..., 3:] = np.round(255 * share + (1 - share) * _FAINT)
    tiles = tiles.reshape(-1, rows, columns, 4)
    factor = max(1, _SHEET_SIDE // (some.shape[1] * columns))
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    return _sheet(tiles, some.shape[1]), step


def _sheet(tiles, columns):
    """The address of tiles (number, height, width, 4) with transparent gaps."""
    from PIL import Image

    number, height, width, _ = tiles.shape
    gap = max(1, width // 8)
    rows, columns = -(-number // columns), min(columns, number)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap)
    sheet = np.zeros((*shape, 4), "uint8")
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return _address(Image.fromarray(sheet), "PNG")


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
