"""Curves: radial contours, filled shapes, and strokes like those of letters.

Sources: the radial contours are those of *Replacing Labeled Real-image Datasets with
Auto-generated Contours* (RCDB, arXiv 2206.09132): nested closed lines with a number of
corners, whose form, distance and number are the class.
"""

from dataclasses import dataclass

import numpy as np

from keras_vit.data.formula import canvas, outlines
from keras_vit.data.formula.draws import Draws


@dataclass(frozen=True)
class Contours:
    """Class of nested lines: its corners (corners, 2), number of lines, and distance."""

    corners: np.ndarray
    is_smooth: bool
    lines: int
    step: float


def contours(draws: Draws) -> Contours:
    """Draws a class of radial contours."""
    number = draws.within(3, 20)
    depth = draws.real(0, 0.6)
    radii = 1 - draws.reals(0, depth, number, 1)
    if draws.chance(50):  # in and out in turn
        radii = 1 - depth * (np.arange(number)[:, None] % 2)
    ratio = np.array([1.0, draws.real(0.5, 1.0)])
    lines = draws.within(1, 8)
    return Contours(
        corners=outlines.ring(number) * radii * ratio,
        is_smooth=draws.chance(50),
        lines=lines,
        step=draws.real(0.5, 1.0) / lines,
    )


def draw_contours(code: Contours, draws: Draws, size: int) -> np.ndarray:
    """Draws an image of radial contours: turned, moved, deformed, in colors."""
    image, ground = canvas.background(draws, size)
    corners = code.corners + draws.reals(-0.06, 0.06, *code.corners.shape)
    curve = _around(corners, code.is_smooth, 2 * size)
    turn, scale, shear = draws.below(4096), draws.real(0.5, 1.0), draws.real(-0.3, 0.3)
    center = outlines.somewhere(draws, 0.3)
    drift = outlines.somewhere(draws, 0.4)
    factors = [1 - code.step * line for line in range(code.lines)]
    curves = [curve * factor + drift * (1 - factor) for factor in factors]
    points = outlines.moved(np.concatenate(curves), size, turn, scale, shear, center)
    line = outlines.stroke(points, size, draws.real(1.0, 1.0 + 0.02 * size))
    return canvas.paint(image, line, canvas.color_beside(draws, ground))


def _around(corners, is_smooth, points):
    """Closed curve of about so many points."""
    steps = -(-points // len(corners))
    if is_smooth:
        return outlines.smooth(np.concatenate([corners, corners[:2]]), steps)
    return outlines.straight(outlines.closed(corners), steps)


# Filled shapes.


def shape(draws: Draws) -> tuple[np.ndarray, bool]:
    """Draws a class of filled shapes: corners (corners, 2), and whether it is smooth."""
    number = draws.within(3, 9)
    kind = draws.below(3)
    radii = np.ones((number, 1))
    if kind == 1:  # a star
        number *= 2
        radii = 1 - draws.real(0.2, 0.7) * (np.arange(number)[:, None] % 2)
    elif kind == 2:  # any form, seen whole from its middle
        radii = draws.reals(0.3, 1.0, number, 1)
    ratio = np.array([1.0, draws.real(0.35, 1.0)])
    return outlines.ring(number) * radii * ratio, draws.chance(50)


def draw_shape(code: tuple[np.ndarray, bool], draws: Draws, size: int) -> np.ndarray:
    """Draws a shape once to four times, plain or shaded, perhaps with a border."""
    corners, is_smooth = code
    image, ground = canvas.background(draws, size)
    number = draws.choice((1, 1, 2, 4))
    for _ in range(number):
        changed = corners + draws.reals(-0.05, 0.05, *corners.shape)
        curve = _around(changed, is_smooth, 48) if is_smooth else changed
        large = 0.9 if number == 1 else 0.6
        place = outlines.somewhere(draws, 0.3 if number == 1 else 0.8)
        options = draws.below(4096), draws.real(0.3, large), draws.real(-0.3, 0.3), place
        field = outlines.filled(outlines.moved(curve, size, *options), size)
        colors = canvas.color_beside(draws, ground)
        if draws.chance(40):
            other = canvas.color_near(draws, colors, 80)
            colors = canvas.blend(canvas.clouds(draws, size), colors, other)
        image = canvas.paint(image, field, colors)
        if draws.chance(30):
            border = outlines.moved(_around(changed, is_smooth, 3 * size), size, *options)
            width = draws.real(1.0, 1.0 + 0.03 * size)
            line = outlines.stroke(border, size, width)
            image = canvas.paint(image, line, canvas.color(draws))
    return image


# Strokes.


def glyph(draws: Draws) -> tuple[tuple[np.ndarray, bool], ...]:
    """Draws a sign of one to three strokes: corners (corners, 2), and which are smooth."""
    strokes = []
    for _ in range(draws.choice((1, 1, 2, 2, 3))):
        corners = draws.reals(-1, 1, draws.within(3, 6), 2)
        strokes.append((corners, draws.chance(75)))
    return tuple(strokes)


def draw_glyph(
    code: tuple[tuple[np.ndarray, bool], ...], draws: Draws, size: int
) -> np.ndarray:
    """Draws a sign by a hand of its own: width, slant, size, and each corner a little."""
    image, ground = canvas.background(draws, size)
    turn, scale, shear = (
        draws.within(-228, 228),
        draws.real(0.5, 0.9),
        draws.real(-0.4, 0.4),
    )
    narrow = np.array([1.0, draws.real(0.6, 1.0)])
    center = outlines.somewhere(draws, 0.25)
    width = draws.real(1.0 + 0.01 * size, 1.0 + 0.11 * size)
    wobble = draws.real(0.02, 0.14)
    points = []
    for corners, is_smooth in code:
        corners = corners + draws.reals(-wobble, wobble, *corners.shape)
        steps = -(-3 * size // len(corners))
        if is_smooth:
            ends = np.concatenate([corners[:1], corners, corners[-1:]])
            curve = outlines.smooth(ends, steps)
        else:
            curve = outlines.straight(corners, steps)
        points.append(outlines.moved(curve * narrow, size, turn, scale, shear, center))
    line = outlines.stroke(np.concatenate(points), size, width)
    return canvas.paint(image, line, canvas.color_beside(draws, ground))
