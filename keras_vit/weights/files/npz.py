"""The `.npz` archives of NumPy."""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import ml_dtypes
import numpy as np

from keras_vit.weights.files.archives import ZIP_ERRORS, open_at_member, open_zip
from keras_vit.weights.files.tensor_file import TensorFile

CHUNK = 1 << 20  # bytes; they stay in the processor's cache between checks


class NpzFile(TensorFile):
    """A `.npz` archive. Reading a tensor compares its checksum."""

    kind = ".npz archive of arrays"

    def __init__(self, path: str):
        super().__init__(path)
        self._members: dict[str, _Member] = {}
        try:
            with open_zip(path) as archive:
                for info in archive.infolist():
                    with archive.open(info) as file:
                        self._add_member(info, file)
        except ZIP_ERRORS as error:
            raise self._damaged(error) from error

    def _add_member(self, info, file):
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise ValueError(f"{name!r} is not an array")
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(file)
        header = file.tell()
        if dtype.hasobject:
            raise ValueError(f"{name!r} holds pickled objects, which are never opened")
        if dtype == "V2":  # how NumPy writes dtypes that it does not know
            dtype = np.dtype(ml_dtypes.bfloat16)
        expected = header + math.prod(shape) * dtype.itemsize
        if info.file_size != expected:
            raise ValueError(
                f"{name!r} has {info.file_size:,} bytes, and its header says {expected:,}"
            )
        self._add(name, shape, dtype.name)
        self._members[name] = _Member(info, header, dtype, fortran_order)

    def read(self, name: str) -> np.ndarray:
        dtype = self._members[name].dtype
        flat = np.empty(math.prod(self.shapes[name]), dtype)
        start = 0
        for chunk in self._chunks(name, flat.view("uint8")):
            self._check_finite(name, flat[start : start + len(chunk) // dtype.itemsize])
            start += len(chunk) // dtype.itemsize
        order = "F" if self._members[name].fortran_order else "C"
        tensor = flat.reshape(self.shapes[name], order=order)
        if dtype == ml_dtypes.bfloat16:
            return tensor.astype("float32")
        return tensor.astype(dtype.newbyteorder("="), copy=False)  # as variables need it

    def check(self, name: str) -> None:
        for chunk in self._chunks(name):
            self._check_finite(name, chunk.view(self._members[name].dtype))
        self._checked.add(name)

    def _chunks(self, name, buffer=None) -> Iterator[np.ndarray]:
        """Reads the bytes of a tensor in chunks, into a buffer or one that is reused.

        Compares the checksum at the end, unless the tensor was checked before.
        """
        self._check_floating(name)
        info, header, _, _ = self._members[name]
        size = info.file_size - header
        scratch = np.empty(min(CHUNK, size), "uint8") if buffer is None else None
        try:
            with self._open(info) as file:
                checksum = zlib.crc32(file.read(header))
                for start in range(0, size, CHUNK):
                    stop = min(start + CHUNK, size)
                    chunk = (
                        buffer[start:stop] if scratch is None else scratch[: stop - start]
                    )
                    if file.readinto(chunk) != len(chunk):
                        raise EOFError(f"{name!r} ends early")
                    if name not in self._checked:
                        checksum = zlib.crc32(chunk, checksum)
                    yield chunk
            if name not in self._checked and checksum != info.CRC:
                raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename!r}")
        except ZIP_ERRORS as error:
            raise self._damaged(error) from error

    def _open(self, info):
        """Opens a member as a separate file, for reading by several threads.

        In Python 3.12.1 and 3.13.0 `ZipFile.open` reads wrong bytes while another thread
        reads another member.
        """
        file = open_at_member(self.path, info)
        if info.compress_type == zipfile.ZIP_STORED:
            return file  # without zipfile's copying
        unpacked = zipfile.ZipExtFile(file, "r", info, close_fileobj=True)
        return io.BufferedReader(unpacked, CHUNK)


class _Member(NamedTuple):
    """A member of an archive; `header` is the number of bytes before its numbers."""

    info: zipfile.ZipInfo
    header: int
    dtype: np.dtype
    fortran_order: bool
