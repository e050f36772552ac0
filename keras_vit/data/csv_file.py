"""Sources of CSV files: paths, labels and perhaps splits of images."""

import csv
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_vit.data.sources import ImageFiles
from keras_vit.data.spelling import one_spelling, spelled_on_disk
from keras_vit.data.split_names import (
    KNOWN,
    look_like_splits,
    splits_of,
    tells_of_training,
)
from keras_vit.data.wording import listed

LABEL_COLUMN, SPLIT_COLUMN = "label", "split"
NO_COLUMN = "none"
SEPARATORS = (",", ";", "\t")
MOST_VALUES = 20  # distinct values of a column of splits
# Words in the name of a column that may hold splits.
SPLIT_WORDS = {
    *("fold", "folds", "kfold", "partition", "split", "splits", "subset", "subsets"),
    *("istrain", "istest", "isval", "isvalid", "istraining", "isvalidation"),
}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def load_csv(
    file: str | os.PathLike[str],
    image_column: str,
    label_column: str,
    split_column: str | None,
    splits: Mapping[str, str | Sequence[str]] | None,
    known: Sequence[str] | None = None,
    labels: str = "required",
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """Returns sources and class names; `splits` names the values of the split column.

    If the classes are `known`, a split may lack some of them. With `labels="none"`, or
    `"optional"` where there is no column `"label"`, there are no names.

    Raises:
        FileNotFoundError: if the file, or an image that it names, does not exist.
        ValueError: if columns, splits or classes do not make a data set.
    """
    file = Path(file)
    if labels == "none" or (labels == "optional" and _lacks_labels(file, label_column)):
        label_column = None
    rows = _Rows(file, image_column, label_column, split_column, splits is not None)
    found = list(rows)
    split_of = _split_names(splits, {value for _, _, value, _ in found if value}, rows)
    examples = {}
    for path, label, value, where in found:
        split = split_of.get(value) if rows.split_column else "train"
        if split is None and splits is None:
            raise ValueError(
                f"{where}: the column {rows.split_column!r} must be one of "
                f"{', '.join(KNOWN)}. Received: {value!r}. Name the values of each "
                "split: splits={'train': …, 'validation': …, 'test': …}; or ignore the "
                f"column with split_column={NO_COLUMN!r}."
            )
        if split is not None:
            examples.setdefault(split, []).append((path, label))
    class_names = _class_names(file, examples, known)
    if label_column is None:
        class_names = ()
    sources = {
        split: _source(examples[split], class_names, file.parent)
        for split in KNOWN
        if split in examples
    }
    return sources, class_names


def _lacks_labels(file: Path, label_column: str) -> bool:
    """Tells if no column of a file has the usual name; another name must be there."""
    with open(file, encoding="utf-8-sig", newline="", errors="replace") as stream:
        header = re.split("|".join(SEPARATORS), stream.readline())
    names = {name.strip().strip('"') for name in header}
    return label_column == LABEL_COLUMN and LABEL_COLUMN not in names


class _Rows:
    """Rows of a CSV file as (path, label, split, place), each checked as it is read."""

    def __init__(self, file: Path, image_column, label_column, split_column, has_splits):
        self._file = file
        self._image_column, self._label_column = image_column, label_column
        named = (image_column, label_column)
        self._columns = tuple(column for column in named if column is not None)
        self._has_splits = has_splits
        self.split_column = split_column
        self._where = repr(os.fspath(file))

    def __iter__(self) -> Iterator[tuple[Path, str, str | None, str]]:
        missing = []
        try:
            # Excel writes a byte order mark before UTF-8.
            with open(self._file, encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream, **self._dialect())
                self._check_header(reader.fieldnames or [])
                for row in reader:
                    if not any(row.values()):  # Excel leaves empty rows at the end
                        continue
                    self._where = f"{os.fspath(self._file)!r}, line {reader.line_num}"
                    path, label, split = self._cells(row)
                    if os.path.isfile(path):
                        yield path, label, split, self._where
                    else:
                        missing.append(f"line {reader.line_num}: {os.fspath(path)}")
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"{os.fspath(self._file)!r} must be a CSV file in UTF-8: {error}"
            ) from error
        if missing:
            raise FileNotFoundError(
                f"{os.fspath(self._file)!r} names images that do not exist; relative "
                f"paths begin at its own folder. Missing: {listed(missing)}"
            )

    def _dialect(self) -> dict:
        """Arguments of `csv`: the separator that finds the columns in the first line."""
        with open(self._file, encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
        for skips, separator in itertools.product((False, True), SEPARATORS):
            dialect = {"delimiter": separator, "skipinitialspace": skips}
            columns = next(csv.reader([first], **dialect), [])
            if set(self._columns) <= set(columns):
                return dialect
        return {}

    def _check_header(self, columns):
        if self.split_column is None:
            self.split_column = self._found_split_column(columns)
        elif self.split_column == NO_COLUMN and NO_COLUMN not in columns:
            self.split_column = None
        for column in (*self._columns, self.split_column):
            if column is not None and column not in columns:
                raise ValueError(
                    f"{self._where} must have a column {column!r}, named in its first "
                    f"line. Received the columns: {', '.join(map(repr, columns))}. Name "
                    "others as `image_column`, `label_column` and `split_column`."
                )
            if columns.count(column) > 1:
                raise ValueError(
                    f"{self._where} must have one column {column!r}. Received "
                    f"{columns.count(column)}. Rename the others."
                )

    def _found_split_column(self, columns) -> str | None:
        """Name of the column of splits, by its name or by its values."""
        others = [column for column in columns if column not in self._columns]
        if SPLIT_COLUMN in others:
            return SPLIT_COLUMN
        found = [column for column in others if _is_split_name(column)]
        found = found or self._columns_of_splits(others)
        if len(found) > 1:
            raise ValueError(
                f"{self._where} has several columns that seem to hold the split: "
                f"{', '.join(map(repr, found))}. Name one: split_column={found[0]!r}; or "
                f"ignore them with split_column={NO_COLUMN!r}."
            )
        if not found:
            return SPLIT_COLUMN if self._has_splits else None
        return found[0]

    def _columns_of_splits(self, columns) -> list[str]:
        """Columns whose every value looks like a split, one of them "train"."""
        values = {column: set() for column in columns}
        with open(self._file, encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream, **self._dialect()):
                for column, known in values.items():
                    if len(known) <= MOST_VALUES:
                        known.add((row[column] or "").strip())
        return [column for column, found in values.items() if _are_splits(found)]

    def _cells(self, row):
        image = row[self._image_column]
        label = row[self._label_column] if self._label_column else "no label"
        if None in row or None in row.values() or not image or not label.strip():
            raise ValueError(
                f"{self._where} must have one value for each column; quote values that "
                f"hold commas. Received: {list(row.values())}"
            )
        split = row[self.split_column].strip() if self.split_column else None
        return spelled_on_disk(self._file.parent / image), one_spelling(label), split


def _is_split_name(column: str) -> bool:
    words = [word.lower() for word in WORD.findall(column or "")]
    joined = {"".join(pair) for pair in itertools.pairwise(words)}
    return bool(SPLIT_WORDS & {*words, *joined}) or tells_of_training(column or "")


def _are_splits(values: set[str]) -> bool:
    if len(values) > MOST_VALUES:  # labels, numbers, texts
        return False
    values = values - {""}
    return look_like_splits(values) and "train" in splits_of(values).values()


def _split_names(splits: Mapping | None, values: set[str], rows) -> dict[str, str]:
    """Returns the split of each value in the split column."""
    if splits is None:
        return splits_of(values)
    pairs = [
        (value, split)
        for split, names in splits.items()
        for value in ([names] if isinstance(names, str) else names)
    ]
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ValueError(
            "Each value in the split column must belong to one split. Received a value in "
            f"several: splits={dict(splits)}"
        )
    if unknown := sorted(named.keys() - values):
        raise ValueError(
            f"`splits` must name values in the column {rows.split_column!r}. Received: "
            f"{listed(map(repr, unknown))}. There are: {listed(map(repr, sorted(values)))}"
        )
    return named


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
    labels = np.array([index[label] if index else 0 for _, label in rows], "int32")
    return ImageFiles(tuple(path for path, _ in rows), labels, root)
