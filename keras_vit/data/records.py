"""Records of TensorFlow Datasets as a source of images and labels."""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from keras_vit.data.images import (
    DEFAULT_READING,
    Header,
    Reading,
    decode_image,
    stored_values,
)
from keras_vit.data.packages import tensorflow
from keras_vit.data.record_files import ArrayRecordFile, TFRecordFile
from keras_vit.data.sources import Digest
from keras_vit.data.threads import map_indices


class Values(Mapping[str, np.ndarray]):
    """Values of a record by the name of the feature, as flat arrays.

    Parts of a feature are named `feature/part`, such as `"objects/type"`.
    """

    def __init__(self, features: Any):
        self._features = features

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._features:  # a map of protobuf would add it
            raise KeyError(name)
        feature = self._features[name]
        kind = feature.WhichOneof("kind")
        return np.array(getattr(feature, kind).value if kind else [])

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)


Label = Callable[[Mapping[str, np.ndarray]], int]


@dataclass(frozen=True)
class StoredLabel:
    """Label that is a feature of the record.

    Args:
        key: name of the feature.
    """

    key: str

    def __call__(self, values: Mapping[str, np.ndarray]) -> int:
        return int(values[self.key][0])


@dataclass(frozen=True)
class NoLabel:
    """The label 0 of every record of a data set without classes."""

    def __call__(self, values: Mapping[str, np.ndarray]) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Records:
    """Source of records in the files of TFDS.

    Attributes:
        files: the files.
        places: file and number in the file of each example, int (n, 2).
        image_key: name of the feature that is the encoded image.
        label: returns the class of a record from its values.
        description: name and version of the data set, and its split.
        new_labels: new label of each label, int (classes,); `None` leaves labels as they
            are.
        reading: meaning of the values in the images.
    """

    files: tuple[TFRecordFile | ArrayRecordFile, ...]
    places: np.ndarray
    image_key: str
    label: Label
    description: str
    new_labels: np.ndarray | None = None
    reading: Reading = DEFAULT_READING

    dtype: ClassVar[str] = "uint8"

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Class of each example, int32 (n,); the first access reads the whole split."""
        if isinstance(self.label, NoLabel):
            return np.zeros(len(self), "int32")
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

    def values(self, index: int) -> Values:
        """Returns the values of a record by the name of the feature."""
        return Values(self._record(index))

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

    def update_digest(self, digest: Digest, with_times: bool = False) -> None:
        digest.update(f"{self.description}\n".encode())
        digest.update(self.places.astype("<i8").tobytes())
        if with_times:
            for file in self.files:
                found = file.path.stat()
                line = f"{file.path.name}\0{found.st_size}\0{found.st_mtime_ns}\n"
                digest.update(line.encode())
            if self.new_labels is not None:
                digest.update(self.new_labels.astype("<i8").tobytes())

    def _name(self, index: int) -> str:
        """Name of a record as in TFDS: its file and number."""
        file, number = self.places[index]
        return f"{self.files[file].path.name}__{number}"

    def _features(self, index: int) -> tuple[bytes, int]:
        features = self._record(index)
        label = self.label(Values(features))
        if label < 0:
            raise ValueError(
                f"{self.description}: {self._name(index)} has no label. Choose splits "
                "with labels: splits={'train': …, 'validation': …}"
            )
        if self.new_labels is not None:
            label = int(self.new_labels[label])
        return features[self.image_key].bytes_list.value[0], label

    def _record(self, index: int):
        file, number = self.places[index]
        example = tensorflow().train.Example.FromString(self.files[file].read(number))
        return example.features.feature
