"""Sources of TensorFlow Datasets, read by index.

TFDS itself reads its files from the first record on. Here each record is found by its place
in the file: an epoch may have any order, a training stream can start anywhere, and no
buffer of records is in memory.
"""

import functools
import mmap
import os
import struct
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from keras_vit.data.images import (
    DEFAULT_READING,
    Header,
    Reading,
    decode_image,
    stored_values,
)
from keras_vit.data.packages import require, tensorflow
from keras_vit.data.sources import Digest
from keras_vit.data.threads import map_indices
from keras_vit.download.web import FORBIDDEN, is_offline

VALIDATION_SPLIT = 0.02  # in the paper's code, for data sets without a validation split
HEADER, FOOTER = 12, 4  # bytes before and after a TFRecord


def load_tfds(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    splits: Mapping[str, str | Sequence[str]] | None,
    validation_split: float | None,
    test_split: float,
) -> tuple[dict[str, "Records"], tuple[str, ...], str]:
    """Returns sources, class names and full name of a data set; prepares it if needed.

    Raises:
        ValueError: if the data set, its features or `splits` do not fit.
        RuntimeError: if TensorFlow Datasets cannot prepare the data set.
        ImportError: if a package of the `data` extra is missing.
    """
    if splits is not None and (validation_split or test_split):
        raise ValueError(
            "With `splits`, TensorFlow Datasets takes no `validation_split` and "
            "`test_split`: leave them out, and write parts as 'train[:90%]'"
        )
    tensorflow()
    builder = _prepared_builder(name, data_dir)
    image_key, label_key = _keys(builder)
    if splits is None:
        splits = _default_splits(builder.info.splits, validation_split, test_split)
    files = functools.cache(functools.partial(_record_file, builder))
    sources = {}
    for split, expression in splits.items():
        if not isinstance(expression, str):
            expression = "+".join(expression)
        parts = _file_instructions(builder, expression)
        sources[split] = Records(
            files=tuple(files(p.filename, p.examples_in_shard) for p in parts),
            places=_places(parts),
            image_key=image_key,
            label_key=label_key,
            description=f"{builder.info.full_name} {expression}",
        )
    return sources, tuple(builder.info.features[label_key].names), builder.info.full_name


@dataclass(frozen=True, eq=False)
class Records:
    """Source of records in the files of TFDS.

    Attributes:
        files: the files.
        places: file and number in the file of each example, int (n, 2).
        image_key: name of the feature that is the encoded image.
        label_key: name of the feature that is the label.
        description: name and version of the data set, and its split.
        new_labels: new label of each label, int (classes,); `None` leaves labels as they
            are.
        reading: meaning of the values in the images.
    """

    files: tuple["TFRecordFile | ArrayRecordFile", ...]
    places: np.ndarray
    image_key: str
    label_key: str
    description: str
    new_labels: np.ndarray | None = None
    reading: Reading = DEFAULT_READING

    dtype: ClassVar[str] = "uint8"

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Class of each example, int32 (n,); the first access reads the whole split."""
        labels = map_indices(lambda index: self._features(index)[1], len(self))
        return np.array(labels, "int32")

    @property
    def names(self) -> list[str]:
        return [self._name(index) for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int, channels: int) -> tuple[np.ndarray, np.int32]:
        image, label = self._features(index)
        name = self._name(index)
        return decode_image(image, name, channels, self.reading), np.int32(label)

    def check(self, index: int) -> None:
        """Does nothing: the header is read with the record, in `read`."""

    def stored(self, index: int) -> tuple[Header, np.ndarray | None]:
        return stored_values(self._features(index)[0], self._name(index))

    def file_key(self, index: int) -> Hashable:
        return tuple(self.places[index].tolist())

    def content_key(self, index: int, level: int) -> Hashable:
        """Returns the key of the record: published splits are not compared."""
        return self.file_key(index)

    def read_as(self, reading: Reading) -> "Records":
        return replace(self, reading=reading)

    def take(self, indices: Sequence[int]) -> "Records":
        return replace(self, places=self.places[np.asarray(indices, int)])

    def relabel(self, labels: np.ndarray) -> "Records":
        return replace(self, new_labels=labels)

    def update_digest(self, digest: Digest) -> None:
        digest.update(f"{self.description}\n".encode())
        digest.update(self.places.astype("<i8").tobytes())

    def _name(self, index: int) -> str:
        """Name of a record as in TFDS: its file and number."""
        file, number = self.places[index]
        return f"{self.files[file].path.name}__{number}"

    def _features(self, index: int) -> tuple[bytes, int]:
        file, number = self.places[index]
        example = tensorflow().train.Example.FromString(self.files[file].read(number))
        features = example.features.feature
        label = features[self.label_key].int64_list.value[0]
        if label < 0:
            raise ValueError(
                f"{self.description}: {self._name(index)} has no label. Choose splits "
                "with labels: splits={'train': …, 'validation': …}"
            )
        if self.new_labels is not None:
            label = int(self.new_labels[label])
        return features[self.image_key].bytes_list.value[0], label


class TFRecordFile:
    """File of TFRecords, read by the number of a record.

    Raises:
        ValueError: if the file ends within a record.
    """

    def __init__(self, path: Path):
        self.path = path
        self._spans = np.array(list(self._found()), np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._spans)

    def read(self, number: int) -> bytes:
        """Reads one record."""
        start, length = self._spans[number]
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)

    def _found(self):
        """Yields (start, length) of each record, from the lengths in the file."""
        size, place = self.path.stat().st_size, 0
        if not size:
            return
        with (
            open(self.path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents,
        ):
            while place < size:
                length = contents[place : place + 8]
                length = struct.unpack("<Q", length)[0] if len(length) == 8 else size
                start = place + HEADER
                place = start + length + FOOTER
                if place > size:
                    raise ValueError(
                        f"The file {os.fspath(self.path)!r} ends within a record; "
                        "prepare the data set again"
                    )
                yield start, length


class ArrayRecordFile:
    """File of ArrayRecords, the format of TFDS for access by number."""

    def __init__(self, path: Path):
        self.path = path
        module = require("array_record.python.array_record_data_source")
        self._source = module.ArrayRecordDataSource([os.fspath(path)])

    def __len__(self) -> int:
        return len(self._source)

    def read(self, number: int) -> bytes:
        """Reads one record."""
        return self._source[int(number)]


FILE_FORMATS: dict[str, type[TFRecordFile | ArrayRecordFile]] = {
    "tfrecord": TFRecordFile,
    "array_record": ArrayRecordFile,
}


def _prepared_builder(name: str, data_dir: str | os.PathLike[str] | None):
    tfds = require("tensorflow_datasets")
    try:
        builder = _builder(tfds, name, data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"There is neither a file or folder {name!r} here, nor a data set of that "
            "name in TensorFlow Datasets or in `data_dir`. Received: "
            f"data_dir={data_dir!r}"
        ) from error
    if not builder.is_prepared():
        try:
            _prepare(builder)
        # Network, disk, a missing package, a data set to download by hand …
        except Exception as error:
            raise RuntimeError(
                f"TensorFlow Datasets could not prepare {name!r} in "
                f"{os.fspath(builder.data_dir)!r}: {type(error).__name__}: {error}. If "
                "another machine has it prepared, copy its folder and give its parent "
                "as `data_dir`; or give a folder of images, folder/<class>/<image>."
            ) from error
    return builder


def _builder(tfds, name, data_dir):
    """Returns the builder of a data set; offline it looks up none on the web."""
    if not is_offline():
        return tfds.builder(name, data_dir=data_dir)
    if "://" in os.fspath(data_dir or ""):
        raise ValueError(
            f"{FORBIDDEN}. Received: data_dir={data_dir!r}, which is not on this machine"
        )
    visibility = tfds.core.visibility
    with visibility.set_availables_tmp([visibility.DatasetType.TFDS_PUBLIC]):
        if ":" not in name.partition("/")[0]:
            return tfds.builder(name, data_dir=data_dir)
        found, arguments = tfds.core.naming.parse_builder_name_kwargs(
            name, data_dir=data_dir
        )
        if not found.namespace:  # the colon belongs to a version
            return tfds.builder(name, data_dir=data_dir)
        return tfds.core.read_only_builder.builder_from_files(str(found), **arguments)


def _prepare(builder):
    if is_offline():
        raise ConnectionError(FORBIDDEN)
    builder.download_and_prepare()


def _keys(builder) -> tuple[str, str]:
    """Returns the names of the features that are image and label."""
    tfds, features = require("tensorflow_datasets"), builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    if len(keys) != 2 or not all(
        isinstance(key, str) and key in features and isinstance(features[key], kind)
        for key, kind in zip(keys, kinds, strict=True)
    ):
        raise ValueError(
            f"The data set {builder.info.full_name!r} must have an image and a label of "
            f"one class. Received the features: {features}. Write its images to a folder "
            "or a CSV file instead."
        )
    if features[keys[0]].np_dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"The images of {builder.info.full_name!r} must be of 8 or 16 bits. Received: "
            f"{np.dtype(features[keys[0]].np_dtype)}"
        )
    return keys


def _default_splits(available, validation_split: float | None, test_split: float):
    """Returns the data set's splits, and parts of the end of "train" for missing ones."""
    if "train" not in available:
        raise ValueError(
            "The data set has no split 'train'. Name the splits: splits={'train': …, "
            f"'validation': …, 'test': …}}. It has: {', '.join(available)}"
        )
    wanted = {
        "validation": VALIDATION_SPLIT if validation_split is None else validation_split,
        "test": test_split,
    }
    end = available["train"].num_examples
    splits = {split: split for split in wanted if split in available}
    for split, fraction in wanted.items():
        count = round(available["train"].num_examples * fraction)
        if split not in available and count:
            splits[split] = f"train[{end - count}:{end}]"
            end -= count
    return {"train": f"train[:{end}]", **splits}


def _file_instructions(builder, expression: str):
    try:
        parts = builder.info.splits[expression].file_instructions
    except (KeyError, ValueError, AssertionError) as error:
        raise ValueError(
            f"`splits` must name splits of {builder.info.full_name!r} or parts of them, "
            f"such as 'train[:90%]'. Received: {expression!r}. There are: "
            f"{', '.join(builder.info.splits)}"
        ) from error
    if not parts:
        raise ValueError(
            f"The split {expression!r} of {builder.info.full_name!r} has no example"
        )
    return parts


def _places(parts) -> np.ndarray:
    return np.concatenate(
        [
            np.stack([np.full(part.take, i), part.skip + np.arange(part.take)], axis=1)
            for i, part in enumerate(parts)
        ]
    )


def _record_file(builder, path: str, num_examples: int):
    file_format = builder.info.file_format.value
    if "://" in path or file_format not in FILE_FORMATS:
        raise ValueError(
            f"Files of TensorFlow Datasets must be of the format "
            f"{' or '.join(FILE_FORMATS)}, and on this machine. Received: {path!r} of "
            f"{file_format!r}"
        )
    file = FILE_FORMATS[file_format](Path(path))
    if len(file) != num_examples:
        raise ValueError(
            f"The file {path!r} must hold {num_examples} examples and holds {len(file)}; "
            "prepare the data set again"
        )
    return file
