"""What holds the examples of one split: image files or arrays, with their labels."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from keras_vit.data.images import check_header, named_image
from keras_vit.data.packages import require


class Source(Protocol):
    """Labelled images of one split, in a fixed order.

    They are read by index, in any order and from many threads, which is what lets a
    training stream start anywhere.

    Attributes:
        labels: int32 array, the class of each example.
        names: what errors and reports call each example.
        dtype: of the pixels, `"uint8"` or `"float32"`.
    """

    labels: np.ndarray
    names: list[str]
    dtype: str

    def __len__(self) -> int: ...

    def read(self, index: int, channels: int) -> tuple[np.ndarray, np.int32]:
        """Pixels (height, width, channels) from 0 to 255 of one image, and its label."""

    def check(self, index: int) -> None:
        """Raises a ValueError or an OSError if one is seen to be damaged at a glance."""

    def take(self, indices: Sequence[int]) -> "Source":
        """The source of some of the examples, in the order given."""

    def relabel(self, labels: np.ndarray) -> "Source":
        """The same examples with `labels[i]`, int32, in place of the label `i`."""

    def identity(self, digest) -> None:
        """Feeds a hash with what tells these examples from others."""


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Files with a label each.

    Attributes:
        paths: of the files.
        labels: int32 array, index of each file's class.
        root: the folder that `identity` writes paths relative to.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    root: Path

    dtype = "uint8"

    @property
    def names(self) -> list[str]:
        return [os.fspath(path) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, channels: int) -> tuple[np.ndarray, np.int32]:
        path = self.paths[index]
        return named_image(path, os.fspath(path), channels), self.labels[index]

    def check(self, index: int) -> None:
        path = self.paths[index]
        check_header(path, os.fspath(path))

    def take(self, indices: Sequence[int]) -> "ImageFiles":
        paths = tuple(self.paths[i] for i in indices)
        return ImageFiles(paths, self.labels[np.asarray(indices, int)], self.root)

    def relabel(self, labels: np.ndarray) -> "ImageFiles":
        return replace(self, labels=labels[self.labels])

    def identity(self, digest) -> None:
        for path, label in zip(self.paths, self.labels, strict=True):
            relative = os.path.relpath(path, self.root).replace(os.sep, "/")
            digest.update(f"{relative}\0{path.stat().st_size}\0{label}\n".encode())


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Images in one array.

    Attributes:
        images: array (n, height, width, 1, 3 or 4) of values from 0 to 255.
        labels: int32 array, index of each image's class.
        indices: int array, where in `images` each example lies.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    @property
    def dtype(self) -> str:
        return "uint8" if self.images.dtype == np.uint8 else "float32"

    @property
    def names(self) -> list[str]:
        return [f"[{index}]" for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int, channels: int) -> tuple[np.ndarray, np.int32]:
        image = self.images[self.indices[index]]
        return pixels_of_array(image, channels), self.labels[index]

    def check(self, index: int) -> None:
        """Arrays are checked as a whole when they are given."""

    def take(self, indices: Sequence[int]) -> "ImageArrays":
        indices = np.asarray(indices, int)
        return ImageArrays(self.images, self.labels[indices], self.indices[indices])

    def relabel(self, labels: np.ndarray) -> "ImageArrays":
        return replace(self, labels=labels[self.labels])

    def identity(self, digest) -> None:
        digest.update(f"{self.images.shape[1:]} {self.images.dtype.str}\n".encode())
        for index, label in zip(self.indices, self.labels, strict=True):
            image = np.ascontiguousarray(self.images[index])
            digest.update(hashlib.sha256(image.view(np.uint8)).digest())
            digest.update(f"{label}\n".encode())


def pixels_of_array(image: np.ndarray, channels: int) -> np.ndarray:
    """An image of 1, 3 or 4 channels with 1 or 3 of them, as `read_image` would.

    uint8 stays so; other numbers become float32.
    """
    image = np.asarray(image, np.uint8 if image.dtype == np.uint8 else np.float32)
    if image.shape[-1] == 4:
        alpha = image[..., 3:].astype("float32") / 255
        color = image[..., :3] * alpha + 255 * (1 - alpha)
        image = np.round(color).astype("uint8") if image.dtype == np.uint8 else color
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    if image.dtype == np.uint8:  # the very luma that files get
        return np.asarray(require("PIL.Image").fromarray(image).convert("L"))[..., None]
    return image @ np.array([[0.299], [0.587], [0.114]], "float32")
