"""Images by formula as a source of images and labels."""

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from keras_vit import arguments
from keras_vit.data.formula.kinds import KINDS, draw
from keras_vit.data.images import DEFAULT_READING, Reading
from keras_vit.data.sources import Digest, pixels_of_array

SIZES = (16, 512)  # least and greatest


class Memory:
    """Images that were drawn once, as uint8 (count, size, size, 3)."""

    def __init__(self, count: int, size: int) -> None:
        # Zeros take no memory before they are written.
        self.images = np.zeros((count, size, size, 3), "uint8")
        self.is_drawn = np.zeros(count, bool)


@dataclass(frozen=True, eq=False)
class FormulaImages:
    """Source of images by formula.

    Attributes:
        size: pixels of a side.
        seed: random seed of the classes and the images.
        kinds: kinds of images, of `KINDS`; class c is of the kind c % len(kinds).
        classes: number of classes; image i is of the class i % classes.
        indices: number of each example's image, int64 (n,).
        memory: images drawn so far; `None` draws them again at each reading.
        new_labels: new label of each class, int32 (classes,); `None` leaves labels.
        reading: meaning of the values.
    """

    size: int
    seed: int
    kinds: tuple[str, ...]
    classes: int
    indices: np.ndarray
    memory: Memory | None = None
    new_labels: np.ndarray | None = None
    reading: Reading = DEFAULT_READING

    dtype: ClassVar[str] = "uint8"

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Class of each example, int32 (n,)."""
        labels = (self.indices % self.classes).astype("int32")
        return labels if self.new_labels is None else self.new_labels[labels]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes before `relabel`: the kind, and a number."""
        kinds = map(self._kind, range(self.classes))
        return tuple(f"{kind}_{number}" for kind, number in kinds)

    @property
    def names(self) -> list[str]:
        return [f"formula[{index}]" for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int, channels: int) -> tuple[np.ndarray, np.int32]:
        image = self._image(int(self.indices[index]))
        return pixels_of_array(image, channels, self.reading), self.labels[index]

    def check(self, index: int) -> None:
        """Does nothing: a formula is never damaged."""

    def stored(self, index: int) -> None:
        """Returns `None`: the values are known to be from 0 to 255."""

    def file_key(self, index: int) -> Hashable:
        return int(self.indices[index])

    def content_key(self, index: int, level: int) -> Hashable:
        return self.file_key(index)

    def read_as(self, reading: Reading) -> "FormulaImages":
        return replace(self, reading=reading)

    def take(self, indices: Sequence[int]) -> "FormulaImages":
        return replace(self, indices=self.indices[np.asarray(indices, int)])

    def relabel(self, labels: np.ndarray) -> "FormulaImages":
        before = self.new_labels
        return replace(self, new_labels=labels if before is None else labels[before])

    def update_digest(self, digest: Digest, with_times: bool = False) -> None:
        formula = f"{self.size} {self.seed} {self.kinds} {self.classes}"
        digest.update(f"formula {formula}\n".encode())
        digest.update(self.indices.astype("<i8").tobytes())
        digest.update(self.labels.astype("<i4").tobytes())

    def _kind(self, label):
        """Kind of a class, and its number among those of the kind."""
        number, place = divmod(label, len(self.kinds))
        return self.kinds[place], number

    def _image(self, index):
        if self.memory is None:
            return self._drawn(index)
        if not self.memory.is_drawn[index]:  # two threads may draw the same
            self.memory.images[index] = self._drawn(index)
            self.memory.is_drawn[index] = True
        return self.memory.images[index]

    def _drawn(self, index):
        kind, number = self._kind(index % self.classes)
        return draw(kind, self.seed, number, index, self.size)


def formula_splits(
    count: int = 100_000,
    size: int = 64,
    *,
    seed: int = 0,
    kinds: str | Sequence[str] = tuple(KINDS),
    classes: int = 1000,
    in_memory: bool = False,
    fractions: tuple[float | None, float] = (None, 0.0),
) -> dict[str, FormulaImages]:
    """Makes the source of each split.

    Args: see `formula_images`.
        fractions: shares of validation and test, which are the last images; `None` is 0.

    Raises:
        ValueError: if an argument is out of its range.
    """
    names = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in names:
        arguments.one_of(kind, tuple(KINDS), "kinds")
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"`kinds` must be one or more different kinds. Received: kinds={kinds!r}"
        )
    _check_whole(size, "size", *SIZES)
    _check_whole(seed, "seed", 0, 2**63 - 1)
    _check_whole(classes, "classes", 2, 2**31 - 1)
    for name, share in zip(("validation_split", "test_split"), fractions, strict=True):
        arguments.rate(share or 0.0, name)
    rest = arguments.positive(count, "count") - sum(_numbers(count, fractions))
    if rest < classes:
        raise ValueError(
            "`count` must give each class an image to train on. Received: "
            f"count={count}, of which {rest} to train on, for classes={classes}"
        )
    memory = Memory(count, size) if in_memory else None
    every = FormulaImages(size, seed, names, classes, np.arange(count), memory)
    splits, end = {}, count
    numbers = _numbers(count, fractions)
    for split, number in zip(("test", "validation"), numbers[::-1], strict=True):
        if number:
            splits[split] = every.take(range(end - number, end))
            end -= number
    return {"train": every.take(range(end)), **splits}


def _numbers(count, fractions):
    """Number of images of each split but the first."""
    return [round(count * (share or 0.0)) for share in fractions]


def _check_whole(value, name, low, high):
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(
            f"`{name}` must be an integer from {low} to {high}. Received: {name}={value!r}"
        )
