"""What holds the examples of one split: image files or arrays, with their labels."""

import hashlib
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from keras_vit.data.images import (
    AS_IT_IS,
    WHITE,
    Header,
    Reading,
    check_header,
    in_eight_bits,
    named_image,
    stored_values,
    stretched,
)
from keras_vit.data.packages import require

# Of arrays of four channels.
RGBA = Header(
    format="array",
    mode="RGBA",
    white=WHITE,
    halved=False,
    inverted=False,
    bands=0,
    is_alpha=True,
)
PROBE = 4096  # bytes at the start, the middle and the end of a file


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

    def check(self, index: int) -> Header | None:
        """The header of a file.

        Raises a ValueError or an OSError if one is seen to be damaged at a glance.
        """

    def stored(self, index: int) -> tuple[Header, np.ndarray | None] | None:
        """The header of one image and its pixels as stored; `None` if they are known."""

    def key(self, index: int) -> Hashable:
        """A key that two examples share if they are the same file."""

    def likeness(self, index: int, level: int) -> Hashable:
        """A key that equal contents share: at a glance (0), by some bytes (1), all (2)."""

    def read_as(self, reading: Reading) -> "Source":
        """The same examples, their values meant as `reading` says."""

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
        reading: how the values in the files are meant.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    root: Path
    reading: Reading = AS_IT_IS

    dtype = "uint8"

    @property
    def names(self) -> list[str]:
        return [os.fspath(path) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, channels: int) -> tuple[np.ndarray, np.int32]:
        path = self.paths[index]
        image = named_image(path, os.fspath(path), channels, self.reading)
        return image, self.labels[index]

    def check(self, index: int) -> Header:
        path = self.paths[index]
        return check_header(path, os.fspath(path), self.reading)

    def stored(self, index: int) -> tuple[Header, np.ndarray | None]:
        path = self.paths[index]
        return stored_values(path, os.fspath(path))

    def key(self, index: int) -> Hashable:
        path = self.paths[index]
        try:
            found = path.stat()
        except OSError:
            return path
        # Some file systems do not number their files.
        return (found.st_dev, found.st_ino) if found.st_ino else path.resolve()

    def likeness(self, index: int, level: int) -> Hashable:
        path = self.paths[index]
        try:
            size = path.stat().st_size
            if level == 0:
                return size
            with open(path, "rb") as file:
                if level == 1:
                    return _probes(file, size)
                return hashlib.file_digest(file, "sha256").digest()
        except OSError:
            return path

    def read_as(self, reading: Reading) -> "ImageFiles":
        return replace(self, reading=reading)

    def take(self, indices: Sequence[int]) -> "ImageFiles":
        paths = tuple(self.paths[i] for i in indices)
        labels = self.labels[np.asarray(indices, int)]
        return replace(self, paths=paths, labels=labels)

    def relabel(self, labels: np.ndarray) -> "ImageFiles":
        return replace(self, labels=labels[self.labels])

    def identity(self, digest) -> None:
        for path, label in zip(self.paths, self.labels, strict=True):
            relative = os.path.relpath(path, self.root).replace(os.sep, "/")
            digest.update(f"{relative}\0{path.stat().st_size}\0{label}\n".encode())


def _probes(file, size: int) -> bytes:
    """Some bytes of a file, hashed."""
    digest = hashlib.sha256()
    for place in (0, size // 2, max(size - PROBE, 0)):
        file.seek(place)
        digest.update(file.read(PROBE))
    return digest.digest()


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Images in one array.

    Attributes:
        images: array (n, height, width, 1, 3 or 4) of values from 0 to 255, or in the
            range of `reading`.
        labels: int32 array, index of each image's class.
        indices: int array, where in `images` each example lies.
        reading: how the values are meant.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    reading: Reading = AS_IT_IS

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
        return pixels_of_array(image, channels, self.reading), self.labels[index]

    def check(self, index: int) -> None:
        """Arrays are checked as a whole when they are given."""

    def stored(self, index: int) -> tuple[Header, np.ndarray] | None:
        """Images of four channels, of which the last may be no opacity."""
        image = self.images[self.indices[index]]
        return (RGBA, image) if image.shape[-1] == 4 else None

    def key(self, index: int) -> Hashable:
        return int(self.indices[index]), id(self.images)

    def likeness(self, index: int, level: int) -> Hashable:
        image = np.ascontiguousarray(self.images[self.indices[index]])
        if level == 0:
            return image.reshape(-1)[:: image.size // 64 + 1].tobytes()
        return hashlib.sha256(image.view(np.uint8)).digest()

    def read_as(self, reading: Reading) -> "ImageArrays":
        return replace(self, reading=reading)

    def take(self, indices: Sequence[int]) -> "ImageArrays":
        indices = np.asarray(indices, int)
        return replace(self, labels=self.labels[indices], indices=self.indices[indices])

    def relabel(self, labels: np.ndarray) -> "ImageArrays":
        return replace(self, labels=labels[self.labels])

    def identity(self, digest) -> None:
        digest.update(f"{self.images.shape[1:]} {self.images.dtype.str}\n".encode())
        for index, label in zip(self.indices, self.labels, strict=True):
            image = np.ascontiguousarray(self.images[index])
            digest.update(hashlib.sha256(image.view(np.uint8)).digest())
            digest.update(f"{label}\n".encode())


def pixels_of_array(
    image: np.ndarray, channels: int, reading: Reading = AS_IT_IS
) -> np.ndarray:
    """An image of 1, 3 or 4 channels with 1 or 3 of them, as `read_image` would.

    uint8 stays so; other numbers become float32.
    """
    alpha = image[..., 3:].astype("float32") / WHITE if image.shape[-1] == 4 else None
    color = _in_range(image[..., :3], reading.value_range)
    if alpha is not None and reading.alpha != "drop":
        over = color * alpha + WHITE * (1 - alpha)
        color = np.round(over).astype("uint8") if image.dtype == np.uint8 else over
    if color.shape[-1] == channels:
        return color
    if channels == 3:
        return np.repeat(color, 3, axis=-1)
    if color.dtype == np.uint8:  # the very luma that files get
        return np.asarray(require("PIL.Image").fromarray(color).convert("L"))[..., None]
    return color @ np.array([[0.299], [0.587], [0.114]], "float32")


def _in_range(color: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """Values from 0 to 255, uint8 where they were and else float32."""
    is_uint8 = color.dtype == np.uint8
    if value_range is not None:
        return (in_eight_bits if is_uint8 else stretched)(color, value_range)
    return np.asarray(color, np.uint8 if is_uint8 else np.float32)
