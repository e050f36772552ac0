"""Random numbers of images by formula, the same on every machine.

They come from the raw words of Philox, a generator that counts: each (seed, stream, number)
has words of its own, without those before. NumPy promises that raw words never change; its
distributions may (NEP 19), and so may the last bits of sines and of sums of floats. So all
else is made here of what IEEE 754 rounds in one way: `+ - * /` and square roots, element by
element, and of sums and products of matrices that are exact: of multiples of one power of
two, below 2⁵³ times it.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

TURN = 4096  # steps of a full turn
_WORDS = 64  # fetched at once
# Rounded to 2⁻¹⁴, where no difference between libraries is left.
_SINES = np.rint(np.sin(np.arange(TURN) * (2 * np.pi / TURN)) * 2**14) / 2**14


def sine(steps: np.ndarray | int) -> np.ndarray:
    """Returns sines, multiples of 2⁻¹⁴, of whole steps; `TURN` steps are a full turn."""
    return _SINES[steps & (TURN - 1)]


def cosine(steps: np.ndarray | int) -> np.ndarray:
    """Returns cosines, multiples of 2⁻¹⁴, of whole steps; `TURN` steps are a full turn."""
    return _SINES[(steps + TURN // 4) & (TURN - 1)]


class Draws:
    """Endless random numbers that are a pure function of three whole numbers.

    Args:
        seed: int from 0 to 2**63 - 1.
        stream: int, use of the numbers: other uses of a seed have others.
        number: int, number of the image or class.
    """

    def __init__(self, seed: int, stream: int, number: int) -> None:
        self._bits = np.random.Philox(counter=[0, 0, number, 0], key=[seed, stream])
        self._words = []

    def _word(self) -> int:
        if not self._words:
            self._words = self._bits.random_raw(_WORDS).tolist()
        return self._words.pop()

    def below(self, end: int) -> int:
        """Returns a whole number from 0 to `end` - 1."""
        return (self._word() >> 32) * end >> 32

    def within(self, low: int, high: int) -> int:
        """Returns a whole number from `low` to `high`."""
        return low + self.below(high - low + 1)

    def real(self, low: float, high: float) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * ((self._word() >> 11) * 2.0**-53)

    def choice(self, items: Sequence[T]) -> T:
        """Returns one of some items."""
        return items[self.below(len(items))]

    def chance(self, percent: int) -> bool:
        """Returns `True` in so many of a hundred cases."""
        return self.below(100) < percent

    def reals(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Returns an array of numbers in [low, high)."""
        words = self._bits.random_raw(int(np.prod(shape)))
        return low + (high - low) * ((words >> 11) * 2.0**-53).reshape(shape)

    def normals(self, *shape: int) -> np.ndarray:
        """Returns whole numbers as float64, about normal: mean 0, deviation 148."""
        count = int(np.prod(shape))
        words = self._bits.random_raw(-(-count // 2)).astype("<u8", copy=False)
        parts = words.view("u1").reshape(4, -1)[:, :count].astype("int16")
        return (parts[0] + parts[1] + parts[2] + parts[3] - 510).reshape(shape) * 1.0
