"""Sources: the labelled examples of one split, as image files or arrays."""

import hashlib
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from keras_vit.data.images import (
    DEFAULT_READING,
    WHITE,
    Header,
    Reading,
    check_header,
    decode_image,
    in_eight_bits,
    stored_values,
    stretched,
)
from keras_vit.data.packages import require

# Header of arrays with four channels.
RGBA = Header(
    format="array",
    mode="RGBA",
    white=WHITE,
    halved=False,
    inverted=False,
    bands=0,
    is_alpha=True,
)
PROBE = 4096  # bytes to compare at the start, the middle and the end of a file


class Digest(Protocol):
    """Hash object of `hashlib`."""

    def update(self, data: bytes, /) -> None:
        """Feeds bytes to the hash."""


class Source(Protocol):
    """Labelled images of one split, in a fixed order.

    They are read by index, in any order and from many threads, so that a training stream
    can start anywhere.

    Attributes:
        labels: class of each example, int32 (n,).
        names: name of each example in errors and reports.
        dtype: dtype of the pixels, `"uint8"` or `"float32"`.
    """

    labels: np.ndarray
    names: list[str]
    dtype: str

    def __len__(self) -> int: ...

    def read(self, index: int, channels: int) -> tuple[np.ndarray, np.int32]:
        """Reads pixels (height, width, channels) from 0 to 255, and the label."""

    def check(self, index: int) -> Header | None:
        """Reads the header of a file; `None` for an example that is no file.

        Raises:
            ValueError: if the header is damaged.
            OSError: if the file cannot be read.
        """

    def stored(self, index: int) -> tuple[Header, np.ndarray | None] | None:
        """Reads the header and the pixels as stored; `None` if they need no check."""

    def file_key(self, index: int) -> Hashable:
        """Returns a key that two examples share if they are the same file."""

    def content_key(self, index: int, level: int) -> Hashable:
        """Returns a key that equal contents share: of size (0), some bytes (1), all (2)."""

    def read_as(self, reading: Reading) -> "Source":
        """Returns the same examples with another meaning of their values."""

    def take(self, indices: Sequence[int]) -> "Source":
        """Returns some of the examples, in the given order."""

    def relabel(self, labels: np.ndarray) -> "Source":
        """Returns the same examples with `labels[i]`, int32, in place of the label `i`."""

    def update_digest(self, digest: Digest, with_times: bool = False) -> None:
        """Feeds a hash with the identity of the examples and their order.

        With `with_times` the time at which a file was last changed enters, too.
        """


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Source of image files, each with a label.

    Attributes:
        paths: paths of the files.
        labels: class of each file, int32 (n,).
        root: folder to which paths are relative in `update_digest`.
        reading: meaning of the values in the files.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    root: Path
    reading: Reading = DEFAULT_READING

    dtype: ClassVar[str] = "uint8"

    @property
    def names(self) -> list[str]:
        return [os.fspath(path) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, channels: int) -> tuple[np.ndarray, np.int32]:
        path = self.paths[index]
        image = decode_image(path, os.fspath(path), channels, self.reading)
        return image, self.labels[index]

    def check(self, index: int) -> Header:
        path = self.paths[index]
        return check_header(path, os.fspath(path), self.reading)

    def stored(self, index: int) -> tuple[Header, np.ndarray | None]:
        path = self.paths[index]
        return stored_values(path, os.fspath(path))

    def file_key(self, index: int) -> Hashable:
        path = self.paths[index]
        try:
            found = path.stat()
        except OSError:
            return path
        # Some file systems have no numbers of files.
        return (found.st_dev, found.st_ino) if found.st_ino else path.resolve()

    def content_key(self, index: int, level: int) -> Hashable:
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

    def update_digest(self, digest: Digest, with_times: bool = False) -> None:
        for path, label in zip(self.paths, self.labels, strict=True):
            relative = os.path.relpath(path, self.root).replace(os.sep, "/")
            found = path.stat()
            time = f"\0{found.st_mtime_ns}" if with_times else ""
            line = f"{relative}\0{found.st_size}\0{label}{time}\n"
            digest.update(line.encode())


def _probes(file, size: int) -> bytes:
    """Hashes some bytes of a file."""
    digest = hashlib.sha256()
    for place in (0, size // 2, max(size - PROBE, 0)):
        file.seek(place)
        digest.update(file.read(PROBE))
    return digest.digest()


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Source of images in one array.

    Attributes:
        images: array (n, height, width, 1, 3 or 4) with values from 0 to 255, or in the
            range of `reading`.
        labels: class of each example, int32 (n,).
        indices: index in `images` of each example, int (n,).
        reading: meaning of the values.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    reading: Reading = DEFAULT_READING

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
        """Does nothing: `load_arrays` checks all images."""

    def stored(self, index: int) -> tuple[Header, np.ndarray] | None:
        """Returns images of four channels, whose last may be no opacity."""
        image = self.images[self.indices[index]]
        return (RGBA, image) if image.shape[-1] == 4 else None

    def file_key(self, index: int) -> Hashable:
        return int(self.indices[index]), id(self.images)

    def content_key(self, index: int, level: int) -> Hashable:
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

    def update_digest(self, digest: Digest, with_times: bool = False) -> None:
        digest.update(f"{self.images.shape[1:]} {self.images.dtype.str}\n".encode())
        for index, label in zip(self.indices, self.labels, strict=True):
            image = np.ascontiguousarray(self.images[index])
            digest.update(hashlib.sha256(image.view(np.uint8)).digest())
            digest.update(f"{label}\n".encode())


def pixels_of_array(
    image: np.ndarray, channels: int, reading: Reading = DEFAULT_READING
) -> np.ndarray:
    """Converts an image of 1, 3 or 4 channels to 1 or 3, as `read_image` does.

    uint8 stays uint8; other dtypes become float32.
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
    if color.dtype == np.uint8:  # the same rounding as for files
        return np.asarray(require("PIL.Image").fromarray(color).convert("L"))[..., None]
    return color @ np.array([[0.299], [0.587], [0.114]], "float32")


def _in_range(color: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """Scales values to 0 to 255; uint8 stays uint8, other dtypes become float32."""
    is_uint8 = color.dtype == np.uint8
    if value_range is not None:
        return (in_eight_bits if is_uint8 else stretched)(color, value_range)
    return np.asarray(color, np.uint8 if is_uint8 else np.float32)
