"""Files of names and vectors: Parquet, NumPy and CSV."""

import csv
import os
from collections.abc import Callable, Sequence

import numpy as np

from keras_vit import extras
from keras_vit.output_paths import partial_path

ROWS = 2**14  # written at a time


def check_format(path: str) -> None:
    """Checks that a file of this name can be written.

    Raises:
        ValueError: if the ending is unknown.
        ImportError: if pyarrow is missing for `.parquet`.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending not in FORMATS:
        raise ValueError(
            f"`output` must end in {', '.join(FORMATS)}. Received: output={path!r}"
        )
    if ending == ".parquet":
        _parquet()


def write_vectors(path: str, names: Sequence[str], vectors: np.ndarray) -> None:
    """Writes names and vectors (n, dim) to a file, by its ending.

    Raises:
        ValueError: if a name is no text, which `.parquet` cannot hold.
    """
    ending = os.path.splitext(path)[1].lower()
    with partial_path(path, ending) as part:
        FORMATS[ending](part, names, vectors)


def _write_parquet(path, names, vectors):
    arrow, parquet = extras.require("pyarrow", *_NEEDED), _parquet()
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Parquet holds names in UTF-8. Received: {name!r}, a file's name that is "
                "no text. Write a .npz or .csv file, or rename it."
            ) from error
    vector = arrow.list_(arrow.float32(), vectors.shape[1])
    schema = arrow.schema([("image", arrow.string()), ("vector", vector)])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(names), ROWS):
            rows = np.ascontiguousarray(vectors[start : start + ROWS])
            flat = arrow.array(rows.reshape(-1), arrow.float32())
            lists = arrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            images = arrow.array(names[start : start + ROWS], arrow.string())
            writer.write_table(arrow.table([images, lists], schema=schema))


_NEEDED = ("Writing a .parquet file", "embed")


def _parquet():
    return extras.require("pyarrow.parquet", *_NEEDED)


def _write_npz(path, names, vectors):
    np.savez(path, images=np.array(names, str), vectors=vectors)


def _write_csv(path, names, vectors):
    # Bytes of a file's name that are no text are written as they are.
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *range(vectors.shape[1])])
        for name, row in zip(names, vectors, strict=True):
            # The shortest text that is read back as the same float32.
            writer.writerow([name, *map(str, row)])


FORMATS: dict[str, Callable[[str, Sequence[str], np.ndarray], None]] = {
    ".parquet": _write_parquet,
    ".npz": _write_npz,
    ".csv": _write_csv,
}
