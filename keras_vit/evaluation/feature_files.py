"""Files of features: written batch by batch, resumed, and read with their checksums.

A finished folder has `features.npy`, `labels.npy` and `record.json`, with the checksums of
all three. Until then it has another name, and a journal with the number of rows and the
checksum of each batch: whatever the journal does not confirm is written anew.
"""

import contextlib
import io
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.log import log
from keras_vit.output_paths import check_kind
from keras_vit.weights.files.safetensors_files import checksum

FORMAT = 1  # version of the files; it enters the key of the cache
FEATURES, LABELS, RECORD, JOURNAL = "features.npy", "labels.npy", "record.json", "journal"
DTYPE = np.dtype("<f4")
_ENTRY = struct.Struct("<QII")  # rows so far, checksum of the batch, checksum of both
BLOCK = 2**24  # bytes that are read at a time


@dataclass(frozen=True, eq=False)
class Features:
    """Features of images, with their labels.

    Attributes:
        features: float32 (images, dim), mapped from a file: only what is read of it is in
            memory.
        labels: class of each image, int32 (images,); `None` if the data has none.
        class_names: names of the classes, in the order of the labels; `None` if the data
            does not name them.
    """

    features: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.features)


class FeatureWriter:
    """Features that grow by batches, and survive the process that writes them.

    Args:
        folder: folder of the files, created if missing. Batches that an earlier process
            has finished there are kept.

    Attributes:
        rows: int, number of rows that are finished.
        dim: int, width of the features; `None` before the first row.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._features, self._journal = (_opened(folder / n) for n in (FEATURES, JOURNAL))
        self.rows, self._entries, self._sum = 0, 0, 0
        self.dim = _dim(self._features)
        if self.dim is not None:
            self._find_intact()
        self._features.truncate(self._place() if self.dim else 0)
        self._journal.truncate(self._entries * _ENTRY.size)

    def _place(self):
        """Place of the next row in the file."""
        return len(_header(0, self.dim)) + self.rows * self.dim * DTYPE.itemsize

    def _find_intact(self):
        """Counts the rows up to the first batch that is damaged."""
        while len(entry := self._journal.read(_ENTRY.size)) == _ENTRY.size:
            until, batch, own = _ENTRY.unpack(entry)
            if own != zlib.crc32(entry[:-4]) or until <= self.rows:
                return
            count = (until - self.rows) * self.dim * DTYPE.itemsize
            found, after = _checksums(self._features, count, self._sum)
            if found != batch:
                return
            self.rows, self._entries, self._sum = until, self._entries + 1, after

    def append(self, start: int, vectors: np.ndarray) -> None:
        """Writes a batch; one that is there already is left as it is.

        Args:
            start: number of rows before it.
            vectors: (rows, dim), of any floating dtype.

        Raises:
            OSError: if the disk is full; the batches before stay.
        """
        if start + len(vectors) <= self.rows:
            return
        if self.dim is None:
            self.dim = vectors.shape[1]
            _write(self._features, 0, _header(0, self.dim))
        if start != self.rows or vectors.shape[1] != self.dim:
            raise RuntimeError(
                f"Features must come in order, of {self.dim} numbers each. Received: "
                f"{vectors.shape} for the rows from {start}, after {self.rows}"
            )
        content = np.ascontiguousarray(vectors, DTYPE).tobytes()
        until = self.rows + len(vectors)
        _write(self._features, self._place(), content)
        entry = struct.pack("<QI", until, zlib.crc32(content))
        entry += struct.pack("<I", zlib.crc32(entry))
        _write(self._journal, self._entries * _ENTRY.size, entry)
        after = zlib.crc32(content, self._sum)
        self.rows, self._entries, self._sum = until, self._entries + 1, after

    def finish(
        self,
        labels: np.ndarray | None,
        class_names: tuple[str, ...] | None,
        description: dict[str, Any],
    ) -> None:
        """Writes what belongs to the rows, and flushes all to the disk.

        Args:
            labels: see `Features`.
            class_names: see `Features`.
            description: dictionary for JSON, for people.
        """
        _write(self._features, 0, _header(self.rows, self.dim))
        content = io.BytesIO()
        if labels is not None:
            np.save(content, labels)
            (self._folder / LABELS).write_bytes(content.getvalue())
        record = {
            "rows": self.rows,
            "dim": self.dim,
            "features": self._sum,
            "labels": None if labels is None else checksum(content.getvalue()),
            "class_names": class_names,
            "description": description,
        }
        text = json.dumps({"checksum": _record_checksum(record), "record": record})
        (self._folder / RECORD).write_text(text, "ascii")
        for file in (self._features, self._journal):
            os.fsync(file.fileno())
        self.close()

    def close(self) -> None:
        """Closes the files."""
        for file in (self._features, self._journal):
            file.close()


def read(folder: Path, is_mapped: bool = True) -> Features:
    """Reads finished features.

    Args:
        folder: folder of the files.
        is_mapped: whether the array of features is mapped from its file, or in memory.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if a file is damaged or missing.
    """
    os.stat(folder)
    try:
        found = json.loads((folder / RECORD).read_text("ascii"))
        record = found["record"]
        if found["checksum"] != _record_checksum(record):
            raise ValueError(f"{RECORD} does not match its checksum")
        features = _vectors(folder / FEATURES, record["rows"], record["dim"])
        _check(features, record["features"], FEATURES)
        labels = None
        if record["labels"] is not None:
            content = (folder / LABELS).read_bytes()
            _check(content, record["labels"], LABELS)
            labels = np.load(io.BytesIO(content))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    names = record["class_names"]
    if not is_mapped:
        features = np.array(features)
    return Features(features, labels, None if names is None else tuple(names))


def _vectors(path, rows, dim):
    """The features in a file, whose changes in memory do not reach it."""
    header = _header(rows, dim)
    with open(path, "rb") as file:
        if file.read(len(header)) != header:
            raise ValueError(f"{path.name} has another header than of ({rows}, {dim})")
    if path.stat().st_size != len(header) + rows * dim * DTYPE.itemsize:
        raise ValueError(f"{path.name} has another size than of ({rows}, {dim})")
    return np.memmap(path, DTYPE, mode="c", offset=len(header), shape=(rows, dim))


def _check(content, expected, name):
    if checksum(content) != expected:
        raise ValueError(f"{name} does not match its checksum")


def _record_checksum(record):
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


class FeatureCache:
    """Folder in which finished features stay, by their key.

    One process at a time writes the features of a key; others wait for it.

    Args:
        path: path of the folder, created when something is written.
        key: hexadecimal digits.

    Raises:
        ValueError: if there is a file at the path.
    """

    def __init__(self, path: str | os.PathLike[str], key: str) -> None:
        self.path, self.key = Path(path).expanduser(), key
        check_kind(os.fspath(self.path), is_folder=True)
        self.folder = self.path / key
        self.part = self.path / f"{key}.part"
        self._is_told = False

    def read(self) -> Features | None:
        """Finished features; `None` if there are none, or they are damaged."""
        try:
            return read(self.folder)
        except FileNotFoundError:
            return None
        except ValueError as error:
            if not self._is_told:
                log.warning(
                    "The features in %s are damaged (%s), and are computed again.",
                    *(self.folder, error),
                )
            self._is_told = True
            return None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Context in which no other process writes the features of this key."""
        import filelock

        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / f"{self.key}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.warning(
                "Another process computes the same features. Waiting for it: %s",
                self.part,
            )
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def complete(self) -> None:
        """Gives the finished part its name, in place of damaged features."""
        with contextlib.suppress(FileNotFoundError):
            damaged = self.path / f"{self.key}.{os.getpid()}.damaged"
            os.rename(self.folder, damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        os.rename(self.part, self.folder)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.folder / JOURNAL)


def _opened(path: Path) -> io.BufferedRandom:
    """A file to read and write, at its beginning; created if missing."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o666))
    return open(path, "r+b")


def _write(file, place, content):
    """Writes bytes at a place of a file, into the hands of the system."""
    file.seek(place)
    file.write(content)
    file.flush()


def _checksums(file, count, total):
    """CRC-32 of the next bytes of a file, alone and after those with the sum `total`."""
    alone = 0
    while count:
        block = file.read(min(count, BLOCK))
        if not block:
            return None, None
        alone, total = zlib.crc32(block, alone), zlib.crc32(block, total)
        count -= len(block)
    return alone, total


def _dim(file):
    """Width of the features in a file, which is left after the header; `None` without."""
    shape = re.search(rb"\((\d{1,19}), (\d{1,19})\)", file.read(len(_header(0, 1))))
    if shape is None:
        return None
    rows, dim = map(int, shape.groups())
    file.seek(0)
    return dim if file.read(len(header := _header(rows, dim))) == header else None


def _header(rows: int, dim: int) -> bytes:
    """Header of an `.npy` file; NumPy fills it up to one length for any number of rows."""
    file = io.BytesIO()
    fields = {"descr": DTYPE.str, "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()
