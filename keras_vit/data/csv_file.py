"""A CSV file of paths and labels as a source."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_vit.data.folder import SPLIT_FOLDERS
from keras_vit.data.sources import ImageFiles
from keras_vit.data.wording import listed

SPLIT_COLUMN = "split"


def load_csv(
    file: str | os.PathLike,
    image_column: str,
    label_column: str,
    split_column: str | None,
    splits: Mapping[str, str] | None,
    known: Sequence[str] | None = None,
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """Sources and class names; `splits` names the values of the split column.

    Where the classes are `known`, each split may lack some of them.
    """
    file = Path(file)
    if splits is not None and split_column is None:
        split_column = SPLIT_COLUMN
    rows = _Rows(file, image_column, label_column, split_column)
    split_of = _split_names(splits)
    examples = {}
    for path, label, value in rows:
        split = split_of.get(value) if rows.split_column else "train"
        if split is None and splits is None:
            raise ValueError(
                f"{rows.where}: the column {rows.split_column!r} must be one of "
                f"{', '.join(split_of)}. Received: {value!r}. Name the value of each "
                "split: splits={'train': …, 'validation': …, 'test': …}"
            )
        if split is not None:
            examples.setdefault(split, []).append((path, label))
    class_names = _class_names(file, examples, known)
    sources = {
        split: _source(examples[split], class_names, file.parent)
        for split in SPLIT_FOLDERS
        if split in examples
    }
    return sources, class_names


class _Rows:
    """Rows of a CSV file as (path, label, split), checked one by one."""

    def __init__(self, file: Path, image_column, label_column, split_column):
        self._file = file
        self._columns = (image_column, label_column)
        self.split_column = split_column
        self.where = repr(os.fspath(file))

    def __iter__(self) -> Iterator[tuple[Path, str, str | None]]:
        missing = []
        try:
            # Excel begins UTF-8 with a byte order mark.
            with open(self._file, encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream)
                self._check_header(reader.fieldnames or [])
                for row in reader:
                    self.where = f"{os.fspath(self._file)!r}, line {reader.line_num}"
                    path, label, split = self._cells(row)
                    if path.is_file():
                        yield path, label, split
                    else:
                        missing.append(f"line {reader.line_num}: {os.fspath(path)}")
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"{os.fspath(self._file)!r} must be a CSV file in UTF-8: {error}"
            ) from error
        if missing:
            raise FileNotFoundError(
                f"{os.fspath(self._file)!r} names images that are not there; relative "
                f"paths begin at its own folder. Missing: {listed(missing)}"
            )

    def _check_header(self, columns):
        if self.split_column is None and SPLIT_COLUMN in columns:
            self.split_column = SPLIT_COLUMN
        for column in (*self._columns, self.split_column):
            if column is not None and column not in columns:
                raise ValueError(
                    f"{self.where} must have a column {column!r}, named in its first "
                    f"line. Received the columns: {', '.join(map(repr, columns))}. Name "
                    "others as `image_column`, `label_column` and `split_column`."
                )

    def _cells(self, row):
        image, label = (row[column] for column in self._columns)
        if None in row or None in row.values() or not image or not label:
            raise ValueError(
                f"{self.where} must have a value in each column, and no others; quote "
                f"values that hold commas. Received: {list(row.values())}"
            )
        split = row[self.split_column] if self.split_column else None
        return self._file.parent / image, label, split


def _split_names(splits: Mapping[str, str] | None) -> dict[str, str]:
    """The split of each value in the split column."""
    if splits is not None:
        return {value: split for split, value in splits.items()}
    return {value: split for split, values in SPLIT_FOLDERS.items() for value in values}


def _class_names(file: Path, examples, known) -> tuple[str, ...]:
    if known is not None and examples:
        return tuple(sorted({label for rows in examples.values() for _, label in rows}))
    if "train" not in examples:
        raise ValueError(f"{os.fspath(file)!r} must have rows to train on. There is none.")
    classes = {split: {label for _, label in rows} for split, rows in examples.items()}
    for split, labels in classes.items():
        unknown = sorted(labels - classes["train"])
        if unknown:
            raise ValueError(
                f"Every class must have images to train on. Received in {split!r} only: "
                f"{listed(map(repr, unknown))}, in {os.fspath(file)!r}"
            )
    if all(label.isdecimal() for label in classes["train"]):
        return tuple(sorted(classes["train"], key=lambda label: (int(label), label)))
    return tuple(sorted(classes["train"]))


def _source(rows, class_names, root: Path) -> ImageFiles:
    index = {name: i for i, name in enumerate(class_names)}
    labels = np.array([index[label] for _, label in rows], "int32")
    return ImageFiles(tuple(path for path, _ in rows), labels, root)
