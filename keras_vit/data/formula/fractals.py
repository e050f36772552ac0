"""Fractals: attractors of iterated function systems, and Julia sets by escape time.

Sources: FractalDB (arXiv 2101.08515), whose classes are systems and whose images of a class
have one parameter changed, are turned and mirrored. The systems are drawn by their singular
values, as in *Improving Fractal Pre-training* (Anderson and Farrell, arXiv 2110.03091),
which needs no search for those that fill the image.
"""

import math

import numpy as np

from keras_vit.data.formula import canvas
from keras_vit.data.formula.draws import Draws, cosine, sine

_GRID = 2**-20  # to which points are rounded, so that products of matrices are exact
_COARSE = 2**-12  # to which the systems are
# Number of maps → how often each is applied to all points.
_DEPTHS = {2: 13, 3: 9, 4: 7, 5: 6, 6: 5}
_FILLED = 0.12  # least share of a coarse grid that an attractor must meet
_ITERATIONS = 24


# Iterated function systems.


def system(draws: Draws) -> np.ndarray:
    """Draws a system of affine maps whose attractor fills some of the image.

    Returns:
        float64 (maps, 2, 3), the matrix and the shift of each map.
    """
    while True:
        maps = _maps(draws)
        place = _places(attractor(maps), 32, 1.0, 0, False)
        if len(np.unique(place)) >= _FILLED * 32**2:
            return maps


def _maps(draws):
    number = draws.choice(tuple(_DEPTHS))
    while True:
        large = draws.reals(0.3, 1.0, number)
        small = large * draws.reals(0.1, 1.0, number)
        # The sum that makes good fractals, by Anderson and Farrell, section 3.2.
        total = draws.real((5 + number) / 2, (6 + number) / 2)
        sums = math.fsum(large + 2 * small)
        large, small = large * (total / sums), small * (total / sums)
        if large.max() <= 0.95:
            break
    turns = [[draws.below(4096) for _ in range(number)] for _ in range(2)]
    (s, c), (t, d) = ((sine(np.array(x)), cosine(np.array(x))) for x in turns)
    flip = np.array([1 - 2 * draws.below(2) for _ in range(number)])
    first = np.stack([c * large, -s * small * flip, s * large, c * small * flip], axis=1)
    maps = np.empty((number, 2, 3))
    for row in range(2):
        a, b = first[:, 2 * row], first[:, 2 * row + 1]
        maps[:, row, 0], maps[:, row, 1] = a * d + b * t, b * d - a * t
    maps[:, :, 2] = draws.reals(-1, 1, number, 2)
    return np.rint(maps / _COARSE) * _COARSE


def attractor(maps: np.ndarray) -> np.ndarray:
    """Points of the attractor of a system, float64 (2, points), by the last map.

    The maps are applied to all points, again and again: `maps` to the power of the depth.
    """
    points = np.zeros((2, 1))
    for _ in range(12):  # near the attractor, by one map
        points = _rounded(maps[0, :, :2] @ points + maps[0, :, 2:])
    for _ in range(_DEPTHS[len(maps)]):
        moved = maps[:, :, :2] @ points + maps[:, :, 2:]  # (maps, 2, points)
        points = _rounded(moved.transpose(1, 0, 2).reshape(2, -1))
    return points


def _rounded(points):
    return np.rint(np.clip(points, -64, 64) / _GRID) * _GRID


def _places(points, size, scale, turn, mirrored):
    """Index of the pixel of each point that is inside the image."""
    y, x = points
    if mirrored:
        x = -x
    s, c = sine(turn), cosine(turn)
    inside = np.ones(len(x), bool)
    turned = []
    for axis in (c * y + s * x, c * x - s * y):
        # Without the outermost points, which may be far away.
        few = np.sort(axis[::16])
        low, high = few[len(few) // 50], few[-1 - len(few) // 50]
        middle, half = (low + high) / 2, max(float(high - low), 2**-10) / 2
        place = np.floor(((axis - middle) / half * scale + 1) * (size / 2))
        inside &= (place >= 0) & (place < size)
        turned.append(place)
    rows, columns = turned
    return (rows * size + columns)[inside].astype("int64")


def draw_system(maps: np.ndarray, draws: Draws, size: int) -> np.ndarray:
    """Draws an image of a system: one parameter changed, turned, in two colors."""
    maps = maps.copy()
    changed = draws.below(len(maps)), draws.below(2), draws.below(3)
    maps[changed] *= draws.real(0.8, 1.2)
    maps = np.rint(maps / _COARSE) * _COARSE
    image, ground = canvas.background(draws, size)
    scale, turn = draws.real(0.6, 1.1), draws.within(-340, 340)  # to 30 degrees
    place = _places(attractor(maps), size, scale, turn, draws.chance(50))
    hits = np.bincount(place, minlength=size * size).astype("int32").reshape(size, size)
    sharp = draws.within(96, 256)  # opacity of a pixel with one point
    opacity = np.where(hits > 0, sharp + np.minimum(hits * 24, 256 - sharp), 0)
    first = canvas.color_beside(draws, ground)
    colors = canvas.blend(np.minimum(hits * 20, 256), first, canvas.color(draws))
    return canvas.paint(image, opacity, colors)


# Julia sets.


def julia(draws: Draws) -> tuple[float, float]:
    """Draws a constant near the border of Mandelbrot's set, where Julia sets are rich."""
    turn = draws.below(4096)
    further = draws.real(0.98, 1.12)
    real = cosine(turn) / 2 - cosine(2 * turn) / 4
    imaginary = sine(turn) / 2 - sine(2 * turn) / 4
    return float(real * further), float(imaginary * further)


def draw_julia(constant: tuple[float, float], draws: Draws, size: int) -> np.ndarray:
    """Draws an image of a Julia set: moved, turned, and its constant changed a little."""
    a, b = (part + draws.real(-0.01, 0.01) for part in constant)
    rows, columns = canvas.pixels(size)
    turn, scale = draws.below(4096), draws.real(0.6, 1.5)
    s, c = sine(turn) * scale, cosine(turn) * scale
    y = s * columns + c * rows + draws.real(-0.4, 0.4)
    x = c * columns - s * rows + draws.real(-0.6, 0.6)
    count = _escape(x.astype("float32"), y.astype("float32"), np.float32(a), np.float32(b))
    bands = draws.choice((10, 20, 40))  # steps of brightness for an iteration
    field = np.abs((count * bands + draws.below(512)) % 512 - 256)
    first = canvas.color(draws)
    image = canvas.blend(field, first, canvas.color_beside(draws, first))
    if draws.chance(50):  # the set itself in a color of its own
        image = np.where(count == _ITERATIONS, canvas.color(draws), image)
    return image


def _escape(x, y, a, b):
    """Iterations before each point of the plane is far away, int32 (size, size)."""
    count = np.zeros(x.shape, "int32")
    with np.errstate(all="ignore"):  # points far away go on to infinity
        for _ in range(_ITERATIONS):
            x2, y2 = x * x, y * y
            count += x2 + y2 <= 16
            y = (x + x) * y + b
            x = x2 - y2 + a
    return count
