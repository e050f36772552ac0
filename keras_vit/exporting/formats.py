"""Export formats: endings of their files, backends and packages that write them."""

import importlib.util
import os
from dataclasses import dataclass

import keras

EXTRA = "pip install 'keras-vit[export]'"


@dataclass(frozen=True)
class Format:
    """A kind of exported file.

    Attributes:
        name: value of `format` in `export`.
        ending: ending of the path; empty for a folder.
        backends: Keras' backends that write it, the preferred one first.
        writes_with: further packages that writing needs.
        companion: ending of a second file that holds the weights; empty if there is none.
        half_precision: `True` if the model may compute in half precision.
        int8: `True` if `export` can quantize it.
    """

    name: str
    ending: str
    backends: tuple[str, ...]
    writes_with: tuple[str, ...] = ()
    companion: str = ""
    half_precision: bool = False
    int8: bool = False

    def paths(self, path: str) -> tuple[str, ...]:
        """Returns the paths of all files that are written for `path`."""
        if not self.companion:
            return (path,)
        return path, path.removesuffix(self.ending) + self.companion


_ROWS = (
    Format(
        *("saved_model", "", ("tensorflow", "jax"), ("tensorflow",)), half_precision=True
    ),
    Format(
        *("onnx", ".onnx", ("torch",), ("onnx", "onnxscript")),
        companion=".onnx.data",  # of models of more than 2 GB
        int8=True,
    ),
    Format("litert", ".tflite", ("tensorflow",)),
    Format(
        *("openvino", ".xml", ("torch", "tensorflow"), ("openvino",)),
        companion=".bin",
        int8=True,
    ),
    Format("torch", ".pt2", ("torch",), half_precision=True),
)
FORMATS = {row.name: row for row in _ROWS}


def find_format(path: str | os.PathLike[str], name: str | None = None) -> Format:
    """Returns the format of a name, or of the ending of a path.

    Raises:
        ValueError: if the format is unknown, or the path has the ending of another format.
    """
    path = os.fspath(path)
    endings = ", ".join(f"{row.ending or 'none'} ({row.name})" for row in FORMATS.values())
    ending = os.path.splitext(path)[1]
    if name is None:
        for row in FORMATS.values():
            if row.ending == ending:
                return row
        raise ValueError(
            f"The ending of {path!r} does not tell the format. Expected {endings}, or "
            "give `format`."
        )
    if name not in FORMATS:
        raise ValueError(
            f"`format` must be one of {', '.join(FORMATS)}. Received: format={name!r}"
        )
    if FORMATS[name].ending and FORMATS[name].ending != ending:
        raise ValueError(
            f"A file of the format {name!r} ends in {FORMATS[name].ending}. Received: "
            f"{path!r}"
        )
    return FORMATS[name]


def check_can_write(row: Format) -> None:
    """Checks that this process can write a format.

    Raises:
        ValueError: if Keras' backend does not write it.
        ImportError: if a package is missing.
    """
    backend = keras.backend.backend()
    if backend not in row.backends:
        raise ValueError(
            f"The format {row.name!r} is written by Keras on {' or '.join(row.backends)}, "
            f"and this is {backend}. Save the model with `model.save('model.keras')` and "
            f"run: keras-vit export model.keras FILE{row.ending} --format {row.name}"
        )
    for package in row.writes_with:
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"The format {row.name!r} is written with `{package}`, which is not "
                f"installed. Run: {EXTRA}"
            )
