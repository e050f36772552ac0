"""Canvases: backgrounds, colors and layers of images by formula.

A field is an int32 array (size, size) from 0 to 256, a color an int32 array (3, 1, 1) from
0 to 255, an image in work an int32 array (3, size, size). Pixels come last because NumPy
adds long rows fast.
"""

import functools

import numpy as np

from keras_vit.data.formula.draws import Draws, cosine, sine

FULL = 256  # a field's largest value
_CONTRAST = 70  # least difference of two colors in luma
_HARMONICS = 20  # of a noise, in each direction at most
_SCALE = 2**10  # of the harmonics, which must be whole numbers


def color(draws: Draws) -> np.ndarray:
    """Draws a color; one in four is grey."""
    if draws.chance(25):
        return _planes([draws.below(256)] * 3)
    return _planes([draws.below(256) for _ in range(3)])


def color_beside(draws: Draws, other: np.ndarray) -> np.ndarray:
    """Draws a color that stands out from another."""
    for _ in range(8):
        drawn = color(draws)
        if abs(_luma(drawn) - _luma(other)) >= _CONTRAST * FULL:
            return drawn
    return _planes([255 if _luma(other) < 128 * FULL else 0] * 3)


def color_near(draws: Draws, other: np.ndarray, distance: int) -> np.ndarray:
    """Draws a color of which each part is at most so far from another's."""
    shifts = _planes([draws.within(-distance, distance) for _ in range(3)])
    return np.clip(other + shifts, 0, 255)


def _planes(values):
    return np.array(values, "int32").reshape(3, 1, 1)


def _luma(drawn):
    red, green, blue = drawn.reshape(3).tolist()
    return 77 * red + 150 * green + 29 * blue  # times 256


def blend(field: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns an image with `first` where a field is 0, and `second` where it is full."""
    return first + ((second - first) * field >> 8)


def paint(image: np.ndarray, field: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Lays a color or an image over an image, opaque where a field is full."""
    return image + ((colors - image) * field >> 8)


def background(draws: Draws, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a plain, shaded or cloudy background; returns the image and its mean color."""
    first = color(draws)
    kind = draws.below(3)
    if kind == 0:
        return np.broadcast_to(first, (3, size, size)), first
    near = color_near(draws, first, 60)
    field = gradient(draws, size) if kind == 1 else clouds(draws, size)
    return blend(field, first, near), (first + near) // 2


def gradient(draws: Draws, size: int) -> np.ndarray:
    """Draws a field that grows along a straight line."""
    turn = draws.below(4096)
    rows, columns = pixels(size)
    slope = sine(turn) * rows + cosine(turn) * columns  # from -√2 to √2
    return np.clip(128 + slope * 91, 0, FULL).astype("int32")


def clouds(draws: Draws, size: int) -> np.ndarray:
    """Draws a field of noise with a spectrum of 1/f to 1/f^2.5 in amplitude."""
    spectrum = amplitudes(size, draws.within(4, 10))
    return np.clip(128 + (noise(draws, size, spectrum) >> 1), 0, FULL)


@functools.lru_cache(32)
def pixels(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the pixels' centers from -1 to 1: rows (size, 1), columns (1, size)."""
    places = (2 * np.arange(size) + 1 - size) / size
    return places[:, None], places[None]


# Noise.


def noise(draws: Draws, size: int, spectrum: np.ndarray) -> np.ndarray:
    """Draws noise with an expected spectrum.

    Args:
        draws: random numbers.
        size: pixels of a side.
        spectrum: whole numbers up to 1024 (harmonics, harmonics), see `amplitudes`.

    Returns:
        int32 (size, size) of the mean 0 and the deviation 128.
    """
    waves = _waves(size)
    values = draws.normals(*spectrum.shape) * spectrum  # below 2¹⁹
    values = np.floor((waves @ values @ waves.T) * 2.0**-28)  # below 2²²
    square = np.square(values.astype("int64")).sum()
    scale = 128 * size / np.sqrt(float(max(square, 1)))
    return np.floor(values * scale).astype("int32")


@functools.lru_cache(256)
def amplitudes(
    size: int, slope: int, stretch: int = 4, low: int = 1, high: int = _HARMONICS
) -> np.ndarray:
    """Amplitudes of the harmonics of a noise, float64 whole numbers.

    Args:
        size: pixels of a side.
        slope: the amplitude falls with the frequency to the power of `slope` / 4.
        stretch: frequencies along columns count as `stretch` / 4 of those along rows.
        low: least frequency, in periods of a side.
        high: greatest frequency.
    """
    steps = (np.arange(len(_waves(size).T)) + 1) // 2  # 0, 1, 1, 2, 2, …
    squares = (steps**2)[:, None] * 16 + (steps * stretch)[None] ** 2
    frequencies = np.sqrt(squares / 16)
    root = np.sqrt(np.sqrt(np.maximum(frequencies, 1)))
    values = np.full(root.shape, 1024.0)
    for _ in range(slope):
        values = values / root
    inside = (frequencies >= low) & (frequencies <= high)
    if not inside.any():
        raise ValueError(f"No harmonic is between {low} and {high} periods of a side")
    return np.where(inside, np.ceil(values), 0.0)


@functools.lru_cache(32)
def _waves(size):
    """Cosines and sines of whole periods, (size, harmonics), as whole numbers."""
    most = min(_HARMONICS, size // 2 - 1)
    steps = np.arange(size)[:, None] * np.arange(1, most + 1) * 4096 // size
    waves = np.stack([cosine(steps), sine(steps)], axis=-1).reshape(size, -1)
    return np.rint(np.concatenate([np.ones((size, 1)), waves], axis=1) * _SCALE)
