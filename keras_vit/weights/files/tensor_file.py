"""A file of tensors, which are listed without reading them and read one by one."""

import json
import math
import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

MAX_AXES = 32  # of an array in NumPy 1
# Errors of the readers of files, where a file is damaged.
DAMAGE_ERRORS = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
DAMAGE_ERRORS += (MemoryError, OverflowError)


def check_exists(path: str) -> None:
    """Raises a FileNotFoundError if there is no file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"There is no checkpoint at {path!r}. Expected the path of a file."
        )


class TensorFile:
    """A file of tensors; a subclass for each kind.

    Attributes:
        path: path of the file.
        paths: paths of all files that hold its tensors.
        shapes: name of a tensor → its shape.
        dtypes: name of a tensor → name of its dtype.
        beside: name of a tensor that can be no weight → the reason.
        metadata: texts that the file holds besides.
    """

    kind = "file"

    def __init__(self, path: str):
        self.path = path
        self.paths: list[str] = [path]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.beside: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self._checked: set[str] = set()

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def check_claims(self, names: Iterable[str]) -> None:
        """Raises a ValueError if tensors claim to be larger than the file."""

    def read(self, name: str) -> np.ndarray:
        """Reads a tensor, bfloat16 as float32.

        Raises:
            ValueError: if it is damaged, not finite or not floating point.
        """
        raise NotImplementedError

    def check(self, name: str) -> None:
        """Raises the errors that `read` would; `read` then trusts the tensor."""
        self.read(name)
        self._checked.add(name)

    def _add(self, name, shape, dtype):
        """Adds a tensor to the list; a ValueError if it is there twice or impossible."""
        if name in self.shapes:
            raise ValueError(f"{name!r} is there twice")
        if len(shape) > MAX_AXES or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"{name!r} claims to be of shape {shape}")
        self.shapes[name] = tuple(shape)
        self.dtypes[name] = dtype

    def _check_floating(self, name):
        if self.dtypes[name] not in FLOATING:
            raise ValueError(
                f"Tensor {name!r} of {self.path!r} holds {self.dtypes[name]} where "
                f"floating-point numbers are expected ({', '.join(FLOATING)})."
            )

    def _check_finite(self, name, tensor):
        if name in self._checked:
            return
        if not is_finite(tensor):
            raise ValueError(
                f"Tensor {name!r} of {self.path!r} holds NaN or infinity: the file is "
                "damaged or comes from a run that diverged. Take another checkpoint."
            )

    def _damaged(self, reason):
        if other := _other_kind(self.path):
            return ValueError(f"{self.path!r} is no {self.kind}: it is {other}.")
        return ValueError(
            f"{self.path!r} ({os.path.getsize(self.path):,} bytes) is not a complete "
            f"{self.kind}: {reason}. If it was downloaded, delete it and download it "
            "again."
        )


# (beginning of the bytes, kind of the file, endings that are right for it).
_BEGINNINGS = (
    (rb"version https://git-lfs", "a pointer of Git LFS: `git lfs pull` fetches it", ()),
    (rb"(?i)\s*<(!doctype|html|\?xml)", "a web page: take the address of the file", ()),
    (
        rb"PK\x03\x04",
        "an archive, as torch (.pth), NumPy (.npz) and Keras (.keras) write: rename it",
        (".npz", ".keras", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pyth"),
    ),
    (
        rb"\x80[\x02-\x05]",
        "a pickle, as torch writes: rename it to .pth",
        (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pyth"),
    ),
    (
        rb"(?s).{6}\0\0\{",
        "in the format safetensors: rename it to .safetensors",
        (".safetensors",),
    ),
    (rb"\x89HDF", "an HDF5 file: rename it to .h5 or .weights.h5", (".h5",)),
)


def _other_kind(path) -> str | None:
    """The kind of a file that has the ending of another kind, or None."""
    with open(path, "rb") as file:
        start = file.read(64)
    return next(
        (
            kind
            for pattern, kind, endings in _BEGINNINGS
            if re.match(pattern, start) and not path.endswith(endings)
        ),
        None,
    )


FLOATING = ("float64", "float32", "float16", "bfloat16")


def is_finite(tensor: np.ndarray) -> bool:
    """True if every number is finite, also as the float32 that a model holds."""
    with np.errstate(all="ignore"):
        if tensor.dtype.itemsize > 4:
            tensor = tensor.astype("float32")
        # Only finite terms have a finite sum; a sum that overflows decides nothing.
        return bool(np.isfinite(tensor.sum()) or np.isfinite(tensor).all())


def parse_json(text: str | bytes) -> Any:
    """Parses JSON strictly.

    Raises:
        ValueError: if it is no JSON, or holds a key twice or a number that is not finite.
    """

    def once(pairs):
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"{max(keys, key=keys.count)!r} is there twice")
        return content

    def number(text):
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text} is no number")
        return value

    try:
        return json.loads(
            text, object_pairs_hook=once, parse_float=number, parse_constant=number
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
