"""Textures: noise, gratings and dead leaves.

Sources: *Learning to See by Looking at Noise* (Baradad et al., arXiv 2106.05963): images
with the spectrum 1/f^a of natural ones, and dead leaves, shapes that hide each other.
"""

from dataclasses import dataclass

import numpy as np

from keras_vit.data.formula import canvas
from keras_vit.data.formula.draws import Draws, cosine, sine

# Noise becomes: itself; ridges; spots; lines of equal height.
_CHANGES = ("none", "ridges", "spots", "lines")


@dataclass(frozen=True)
class Noise:
    """Class of noise: the arguments of `canvas.amplitudes`, and a change of its values."""

    slope: int
    stretch: int
    low: int
    high: int
    change: str
    is_turned: bool


def cloud(draws: Draws) -> Noise:
    """Draws a class of noise."""
    low = draws.choice((1, 1, 1, 2, 4))
    return Noise(
        slope=draws.within(0, 12),
        stretch=draws.choice((1, 2, 4, 4, 4)),
        low=low,
        high=draws.choice((2 * low + 2, 3 * low + 4, 20)),
        change=draws.choice(_CHANGES),
        is_turned=draws.chance(50),
    )


def draw_noise(code: Noise, draws: Draws, size: int) -> np.ndarray:
    """Draws an image of noise in two or three colors, or with noise in each color."""
    high = max(min(code.high, size // 2 - 1), code.low)
    spectrum = canvas.amplitudes(size, code.slope, code.stretch, code.low, high)
    heights = canvas.noise(draws, size, spectrum)
    if code.is_turned:
        heights = heights.T
    field = _changed(heights, code.change)
    first = canvas.color(draws)
    image = canvas.blend(field, first, canvas.color_beside(draws, first))
    if draws.chance(50):
        image = canvas.paint(image, canvas.clouds(draws, size) >> 1, canvas.color(draws))
    return image


def _changed(heights, change):
    """Field of noise of the deviation 128."""
    if change == "ridges":
        heights = np.abs(heights) * 2 - 128
    elif change == "spots":
        heights = heights * 6
    elif change == "lines":
        heights = np.abs(heights * 4 % 512 - 256) - 128
    return np.clip((heights >> 1) + 128, 0, 256)


# Gratings.


@dataclass(frozen=True)
class Grating:
    """Class of gratings: waves (waves, 2) in periods of a side, their form and joining."""

    waves: np.ndarray
    form: str
    joined: str


def grating(draws: Draws) -> Grating:
    """Draws a class of gratings: one to three waves, as a sum, product or the larger."""
    waves = []
    for _ in range(draws.choice((1, 2, 2, 3))):
        turn, periods = draws.below(4096), draws.real(1.5, 12)
        waves.append([sine(turn) * periods, cosine(turn) * periods])
    form = draws.choice(("sine", "square", "triangle"))
    return Grating(np.array(waves), form, draws.choice(("sum", "product", "larger")))


def draw_grating(code: Grating, draws: Draws, size: int) -> np.ndarray:
    """Draws an image of a grating: other phases, turned, bent, perhaps fading away."""
    rows, columns = canvas.pixels(size)
    turn, scale = draws.within(-228, 228), draws.real(0.85, 1.18)
    s, c = sine(turn) * scale, cosine(turn) * scale
    bend = canvas.noise(draws, size, canvas.amplitudes(size, 8)) * draws.choice(
        (0, 0, 1, 4)
    )
    field = None
    for down, right in code.waves:
        y, x = down * c + right * s, right * c - down * s
        steps = (rows * (y * 2048) + columns * (x * 2048)).astype("int32")
        wave = _wave(steps + draws.below(4096) + bend, code.form)
        field = wave if field is None else _joined(field, wave, code.joined)
    if code.joined == "sum":
        field = field // len(code.waves)
    first = canvas.color(draws)
    second = canvas.color_beside(draws, first)
    if draws.chance(40):  # Gabor's patch: it fades from a place on
        place = draws.real(-0.5, 0.5), draws.real(-0.5, 0.5)
        distance = (rows - place[0]) ** 2 + (columns - place[1]) ** 2
        near = np.clip(320 - distance * draws.real(200, 600), 0, 256).astype("int32")
        field = (field * near >> 8) + (128 * (256 - near) >> 8)
    return canvas.blend(field, first, second)


def _wave(steps, form):
    """Field of a wave at steps of `draws.TURN`."""
    if form == "sine":
        return (sine(steps) * 128).astype("int32") + 128
    triangle = np.abs((steps & 4095) - 2048) // 8
    return triangle if form == "triangle" else np.clip(triangle * 8 - 896, 0, 256)


def _joined(field, wave, joined):
    if joined == "sum":
        return field + wave
    if joined == "larger":
        return np.maximum(field, wave)
    return 256 - np.abs(field + wave - 256)  # a checkerboard of two square waves


# Dead leaves.


@dataclass(frozen=True)
class Leaves:
    """Class of dead leaves: their least and largest radius, form and number."""

    smallest: float
    largest: float
    form: str
    flatness: float
    number: int


def leaves(draws: Draws) -> Leaves:
    """Draws a class of dead leaves."""
    smallest = draws.real(0.04, 0.2)
    return Leaves(
        smallest=smallest,
        largest=smallest + draws.real(0.05, 0.6),
        form=draws.choice(("ellipse", "rectangle", "both")),
        flatness=draws.choice((1.0, 0.7, 0.4)),
        number=draws.within(12, 40),
    )


def draw_leaves(code: Leaves, draws: Draws, size: int) -> np.ndarray:
    """Draws an image of dead leaves, the first ones on top, in colors around a mean."""
    number = code.number
    # The number of leaves falls with the cube of the radius, as in natural images.
    share = draws.reals(0, 1, number)
    low, high = (1 / (radius * radius) for radius in (code.smallest, code.largest))
    radii = 1 / np.sqrt(low + (high - low) * share)
    inside = _leaves(code, draws, size, radii)
    ranks = np.arange(1, number + 1, dtype="uint8")[:, None, None]
    top = (inside * ranks).max(axis=0)  # 0 where there is no leaf
    spread = draws.within(40, 128)
    shifts = draws.reals(-spread, spread, 3, number + 1).astype("int32")
    colors = np.clip(canvas.color(draws)[..., 0] + shifts, 0, 255)
    image = colors[:, top]
    if draws.chance(50):  # each leaf shaded by a noise of its own place
        bright = canvas.noise(draws, size, canvas.amplitudes(size, draws.within(2, 6)))
        image = image + (bright * draws.within(8, 48) >> 8)
    return image


def _leaves(code, draws, size, radii):
    """Pixels of each leaf, bool (leaves, size, size)."""
    number = len(radii)
    rows, columns = (axis.astype("float32") for axis in canvas.pixels(size))
    turns = (draws.reals(0, 4096, number)).astype("int64")
    long = 1 / radii
    wide = long / draws.reals(code.flatness, 1, number)
    y0, x0 = draws.reals(-1, 1, 2, number)
    s, c = sine(turns), cosine(turns)

    def along(down, right):
        """Distance along an axis of each leaf, float32 (leaves, size, size)."""
        down, right = (part.astype("float32")[:, None, None] for part in (down, right))
        center = (down[:, 0, 0] * y0 + right[:, 0, 0] * x0).astype("float32")
        return down * rows + (right * columns - center[:, None, None])

    u, v = along(c * long, s * long), along(-s * wide, c * wide)
    if code.form == "rectangle":
        return np.maximum(np.abs(u), np.abs(v)) < 1
    round_ones = u * u + v * v < 1
    if code.form == "ellipse":
        return round_ones
    square = np.maximum(np.abs(u), np.abs(v)) < 0.85
    even = (np.arange(number) % 2 == 0)[:, None, None]
    return np.where(even, round_ones, square)
