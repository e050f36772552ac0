"""Files that hold tensors: opened, listed and read, never unpickled."""

import os
import zipfile
import zlib

import numpy as np


def check_exists(path: str) -> None:
    """Raises a FileNotFoundError where there is no file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"There is no checkpoint at {path!r}. Expected the path of a file."
        )


class NpzFile:
    """A `.npz` archive whose tensors are listed from their headers and read one by one.

    Args:
        path: path of the file.

    Attributes:
        shapes: dictionary of tensor name → shape, without reading any tensor.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a complete archive of plain arrays.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        check_exists(self.path)
        try:
            self._archive = zipfile.ZipFile(self.path)
            self.shapes = {
                member.removesuffix(".npy"): self._header(member)
                for member in self._archive.namelist()
            }
        except _READ_ERRORS as error:
            raise self._unreadable(error) from error

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._archive.close()

    def _header(self, member):
        with self._archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
        if not np.issubdtype(dtype, np.floating):
            raise ValueError(
                f"{member!r} holds {dtype} where floating-point numbers are expected"
            )
        return shape

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`; a ValueError if it is damaged or not finite."""
        try:
            with self._archive.open(f"{name}.npy") as file:
                # Pickled objects would run code; a sum over all reads to the end, where
                # the archive's checksum is compared.
                tensor = np.lib.format.read_array(file, allow_pickle=False)
                if file.read(1):
                    raise ValueError(f"{name!r} is longer than its header says")
        except _READ_ERRORS as error:
            raise self._unreadable(error) from error
        if not np.isfinite(tensor).all():
            raise ValueError(
                f"Tensor {name!r} of {self.path!r} holds NaN or infinity: the file is "
                "damaged or comes from a run that diverged. Take another checkpoint."
            )
        return tensor

    def _unreadable(self, error):
        return ValueError(
            f"{self.path!r} ({os.path.getsize(self.path):,} bytes) is not a complete "
            f".npz archive of arrays: {error}. If it was downloaded, delete it and "
            "download it again."
        )


_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,  # an encrypted or exotically compressed member
    OSError,
    RuntimeError,
    ValueError,
)
