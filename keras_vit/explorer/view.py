"""Places in an image, and the patches in which a model sees them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from keras_vit.analysis import TokenGrid


class Place(NamedTuple):
    """A point of an image, the same for every model.

    Args:
        down: float, distance from the top as a share of the image's height.
        across: float, distance from the left as a share of its width.
    """

    down: float
    across: float


@dataclass(frozen=True)
class View:
    """The part of an image that a model sees, and the patches in it.

    Patches need not cover the model's images: rows and columns of pixels may be left over
    at the bottom and on the right.

    Args:
        grid: the grid of patches.
        image_size: (height, width) of the model's images.
        part: (top, left, bottom, right) of the part that a model's image shows, as shares
            of the height and width of the whole image.
    """

    grid: TokenGrid
    image_size: tuple[int, int]
    part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    def place_at(self, pixel: tuple[float, float], size: tuple[int, int]) -> Place:
        """The place of a pixel.

        Args:
            pixel: (x, y) of a pixel in a picture of the part, counted from 0.
            size: (height, width) of the picture.
        """
        (x, y), (height, width) = pixel, size
        top, left, bottom, right = self.part
        down, across = (y + 0.5) / height, (x + 0.5) / width
        return Place(top + down * (bottom - top), left + across * (right - left))

    def shows(self, place: Place) -> bool:
        """Returns `True` if a place lies in the part that the model sees."""
        return all(0 <= share <= 1 for share in self._shares(place))

    def patch_at(self, place: Place) -> tuple[int, int]:
        """(row, column) of the patch at a place, or of the nearest one."""
        found = zip(self._shares(place), self._lengths(), strict=True)
        row, column = (
            int(np.clip(share * length // patch, 0, number - 1))
            for share, (length, patch, number) in found
        )
        return row, column

    def token_at(self, place: Place) -> int:
        """Number of the token of the patch at a place, or of the nearest one."""
        row, column = self.patch_at(place)
        return self.grid.num_prefix + row * self.grid.columns + column

    def patch_indices(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the patches in which the pixels of a picture lie.

        Args:
            size: (height, width) of a picture of the part.

        Returns:
            int arrays (height,) and (width,), -1 beyond the last patch.
        """
        rows, columns = (
            _indices(number_of_pixels, *axis)
            for number_of_pixels, axis in zip(size, self._lengths(), strict=True)
        )
        return rows, columns

    def _shares(self, place):
        """The place as shares of the part, beyond 0 to 1 outside of it."""
        top, left, bottom, right = self.part
        return (
            (place.down - top) / (bottom - top),
            (place.across - left) / (right - left),
        )

    def _lengths(self):
        """(pixels of the model's image, pixels of a patch, patches) of both axes."""
        numbers = (self.grid.rows, self.grid.columns)
        return tuple(zip(self.image_size, self.grid.patch_size, numbers, strict=True))


def _indices(pixels, length, patch, number):
    found = ((np.arange(pixels) + 0.5) / pixels * length // patch).astype(int)
    return np.where(found < number, found, -1)
