"""The formats: how their files end, which backends write them, what reads them."""

import importlib.util
import os
from dataclasses import dataclass

import keras

EXTRA = "pip install 'keras-vit[export]'"


@dataclass(frozen=True)
class Format:
    """A kind of exported file.

    Attributes:
        name: how it is asked for.
        ending: of its path; nothing for a folder.
        backends: those of Keras that write it, the first where one can be chosen.
        writes_with: packages that writing it takes besides.
        companion: ending of a second file with the weights, in place of that of the
            path; nothing where there is none.
        half_precision: bool, whether a model may compute in half precision.
        int8: bool, whether it is quantized here.
    """

    name: str
    ending: str
    backends: tuple[str, ...]
    writes_with: tuple[str, ...] = ()
    companion: str = ""
    half_precision: bool = False
    int8: bool = False

    def paths(self, path: str) -> tuple[str, ...]:
        """All that is written where a path is asked for."""
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


def find_format(path: str | os.PathLike, name: str | None = None) -> Format:
    """The format of that name, or the one that the ending of the path says.

    Raises:
        ValueError: if there is none, or the path ends as those of another one.
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
    """Raises what says how to go on where this process cannot write a format.

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
