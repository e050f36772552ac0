"""Outlines and strokes: curves (points, 2) that become fields of pixels.

A point is (row, column), in pixels: the corner above on the left is (0, 0).
"""

import functools

import numpy as np

from keras_vit.data.formula.draws import Draws, cosine, sine

_PART = 256  # of a pixel
ROWS = 2  # lines of a filled outline in each row of pixels


def moved(
    curve: np.ndarray, size: int, turn: int, scale: float, shear: float, center: np.ndarray
) -> np.ndarray:
    """Turns, scales, shears and shifts a curve, and returns it in pixels.

    Args:
        curve: float64 (points, 2), of about -1 to 1.
        size: pixels of a side.
        turn: steps of `draws.TURN`.
        scale: half of the side that a curve of -1 to 1 fills.
        shear: columns to move for each row.
        center: its place, from -1 to 1 as well.
    """
    rows, columns = curve[:, 0], curve[:, 1] + shear * curve[:, 0]
    half = size / 2
    s, c = sine(turn) * scale, cosine(turn) * scale
    turned = np.stack([c * rows + s * columns, c * columns - s * rows], axis=1)
    return (turned + center + 1) * half


def closed(corners: np.ndarray) -> np.ndarray:
    """Returns a curve with its first point once more at the end."""
    return np.concatenate([corners, corners[:1]])


def smooth(corners: np.ndarray, steps: int) -> np.ndarray:
    """Quadratic B-spline through the middles of a polygon's sides, from end to end.

    Args:
        corners: float64 (corners, 2), three or more.
        steps: points of each of its parts.

    Returns:
        float64 ((corners - 2) * steps + 1, 2).
    """
    middles = (corners[1:] + corners[:-1]) / 2
    start, end = middles[:-1, None], middles[1:, None]  # (parts, 1, 2)
    t = (np.arange(steps) / steps)[:, None]
    u = 1 - t
    points = u * u * start + 2 * (t * u) * corners[1:-1, None] + t * t * end
    return np.concatenate([points.reshape(-1, 2), middles[-1:]])


def straight(corners: np.ndarray, steps: int) -> np.ndarray:
    """Points at equal distances on each side of a polygon, from end to end."""
    t = (np.arange(steps) / steps)[:, None]
    points = corners[:-1, None] + t * (corners[1:] - corners[:-1])[:, None]
    return np.concatenate([points.reshape(-1, 2), corners[-1:]])


def stroke(points: np.ndarray, size: int, width: float) -> np.ndarray:
    """Draws the line along points, which must be nearer to each other than a pixel.

    Args:
        points: float64 (points, 2).
        size: pixels of a side.
        width: of the line, in pixels; between two pixels it is up to one wider.

    Returns:
        int32 (size, size) from 0 to 256.
    """
    places = np.floor((points - 0.5) * _PART).astype("int64")
    places = places[((places >= 0) & (places < (size - 1) * _PART)).all(axis=1)]
    whole, part = places // _PART, places % _PART
    index = whole[:, 0] * size + whole[:, 1]
    (down, right), (up, left) = part.T, (_PART - part).T
    indices = [index, index + 1, index + size, index + size + 1]
    shares = [up * left, up * right, down * left, down * right]
    hits = np.bincount(np.concatenate(indices), np.concatenate(shares), size * size)
    hits = np.minimum(hits.reshape(size, size), _PART * _PART) * 2.0**-8
    hits = np.floor(hits)
    pen = _pen(size, max(round(width * 4), 2))
    dark = (pen @ hits @ pen) * 2.0**-16  # near 1/width on the line, times 256
    return np.clip(dark * width * 2 - 128, 0, 256).astype("int32")


@functools.lru_cache(256)
def _pen(size, quarters):
    """Band matrix (size, size) of whole numbers that blurs by quarters of a pixel."""
    distance = np.abs(np.arange(size)[:, None] - np.arange(size)) * 4
    weights = np.maximum(quarters / 2 + 2 - distance, 0)
    return np.rint(np.minimum(weights, 4) * 256 / quarters)


def filled(corners: np.ndarray, size: int) -> np.ndarray:
    """Fills a polygon, whose winding numbers are 0 and 1 or 0 and -1.

    Args:
        corners: float64 (corners, 2).
        size: pixels of a side.

    Returns:
        int32 (size, size) from 0 to 256.
    """
    lines = (np.arange(size * ROWS) + 0.5) / ROWS
    (y0, x0), (y1, x1) = corners.T, np.roll(corners, -1, axis=0).T
    sign = np.where(y1 > y0, 1, -1)
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    side, line = np.nonzero((lines >= low[:, None]) & (lines < high[:, None]))
    slope = (x1 - x0)[side] / (y1 - y0)[side]
    crossings = x0[side] + (lines[line] - y0[side]) * slope
    places = np.floor(np.clip(crossings, 0, size) * _PART).astype("int64")
    whole, part = places // _PART, places % _PART
    # From a crossing on to the right the polygon begins or ends.
    index = line // ROWS * (size + 2) + whole
    weights = np.concatenate([(_PART - part) * sign[side], part * sign[side]])
    edges = np.bincount(np.concatenate([index, index + 1]), weights, size * (size + 2))
    inside = np.cumsum(edges.reshape(size, size + 2), axis=1)[:, :size]
    return np.minimum(np.abs(inside) / ROWS, _PART).astype("int32")


def ring(count: int) -> np.ndarray:
    """Points at equal angles on the circle of radius 1, float64 (count, 2)."""
    steps = np.arange(count) * 4096 // count
    return np.stack([sine(steps), cosine(steps)], axis=1)


def somewhere(draws: Draws, room: float) -> np.ndarray:
    """Draws a place (2,), at most so far from the middle."""
    return np.array([draws.real(-room, room), draws.real(-room, room)])
