"""A file of tensors: listed without reading them, read one by one, never run."""

import json
import math
import os
import re
from collections.abc import Iterable

import numpy as np

MAX_AXES = 32  # of an array in NumPy 1


def check_exists(path: str) -> None:
    """Raises a FileNotFoundError where there is no file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"There is no checkpoint at {path!r}. Expected the path of a file."
        )


class TensorFile:
    """What the kinds of file have in common.

    Attributes:
        path: path of the file.
        paths: paths of all files that hold its tensors.
        shapes: dictionary of tensor name → shape, without reading any tensor.
        dtypes: dictionary of tensor name → name of its dtype.
        beside: dictionary of the name of what is no tensor of numbers → the reason.
        metadata: dictionary of str → str that came with the tensors.
    """

    kind = "file"

    def __init__(self, path: str):
        self.path = path
        self.paths = [path]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.beside: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self._checked: set[str] = set()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def check_claims(self, names: Iterable[str]) -> None:
        """Raises a ValueError where tensors together claim to be more than the file."""

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`, bfloat16 as float32.

        Raises:
            ValueError: if it is damaged, not finite or not of floating-point numbers.
        """
        raise NotImplementedError

    def check(self, name: str) -> None:
        """Raises what `read` would, without keeping the tensor; it then trusts it."""
        self.read(name)
        self._checked.add(name)

    def _add(self, name, shape, dtype):
        """Notes a tensor; a ValueError where a file can only pretend to hold it."""
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


# How files of other kinds begin, what they are, and endings by which they are right.
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
    """The kind of a file that another ending would suit, or None."""
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
    """Whether every number is one, also in float32, as which a model holds it."""
    with np.errstate(all="ignore"):
        if tensor.dtype.itemsize > 4:
            tensor = tensor.astype("float32")
        # A finite sum has finite terms; where it overflows, look at each.
        return bool(np.isfinite(tensor.sum()) or np.isfinite(tensor).all())


def parse_json(text: str | bytes):
    """What a JSON text says, where it says it once and in numbers that are finite.

    Raises:
        ValueError: if it does not, or is no JSON.
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
