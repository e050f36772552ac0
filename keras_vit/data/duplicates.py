"""Duplicate images: one path given twice, a link, or files of the same bytes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_vit.data.sources import Source
from keras_vit.data.threads import map_indices
from keras_vit.data.wording import listed
from keras_vit.log import log

DUPLICATES = ("raise", "drop", "keep")
LEVELS = 3  # of comparison, each more expensive than the one before
# An image that is in several splits stays in the last of them.
ORDER = ("train", "validation", "test")


@dataclass(frozen=True)
class Duplicates:
    """Numbers of the examples of each split, equal for equal images.

    Attributes:
        files: int arrays (n,), equal for the same file.
        contents: int arrays (n,), equal for the same file and for files of the same bytes.
    """

    files: Mapping[str, np.ndarray]
    contents: Mapping[str, np.ndarray]


def find_duplicates(sources: Mapping[str, Source]) -> Duplicates:
    """Compares the examples of all splits.

    Files of the same size are compared by some of their bytes; those that agree by all
    bytes.
    """
    examples = [(s, i) for s in sources.values() for i in range(len(s))]

    def file_key(index):
        source, place = examples[index]
        return source.file_key(place)

    files = _numbers(map_indices(file_key, len(examples)))
    _, first = np.unique(files, return_index=True)  # one example of each file
    contents = _equal([examples[i] for i in first])[files]
    return Duplicates(_by_split(files, sources), _by_split(contents, sources))


def _equal(examples: list) -> np.ndarray:
    """Numbers of the examples, equal for equal contents."""
    numbers = np.zeros(len(examples), int)
    for level in range(LEVELS):
        _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        several = np.flatnonzero(counts[inverse] > 1)  # others need no comparison

        def content_key(index, several=several, level=level):
            source, place = examples[several[index]]
            return source.content_key(place, level)

        keys = [(-1, i) for i in range(len(examples))]
        for i, found in zip(several, map_indices(content_key, len(several)), strict=True):
            keys[i] = numbers[i], found
        numbers = _numbers(keys)
    return numbers


def _numbers(keys) -> np.ndarray:
    """Numbers keys from 0, in the order of their first appearance."""
    known = {}
    return np.array([known.setdefault(key, len(known)) for key in keys], int)


def _by_split(numbers, sources) -> dict[str, np.ndarray]:
    ends = np.cumsum([len(source) for source in sources.values()])[:-1]
    return dict(zip(sources, np.split(numbers, ends), strict=True))


def check_labels(sources: Mapping[str, Source], duplicates: Duplicates) -> None:
    """Refuses a file with several labels; warns of equal files with several labels.

    Raises:
        ValueError: if a file has several labels.
    """
    labels = np.concatenate([source.labels for source in sources.values()])
    conflicts = _conflicts(np.concatenate(list(duplicates.files.values())), labels)
    if conflicts:
        raise ValueError(
            "Each image must have one label. Received several for: "
            f"{_named(sources, conflicts)}. Leave one row for each image, or keep them "
            "all with duplicates='keep'."
        )
    conflicts = _conflicts(np.concatenate(list(duplicates.contents.values())), labels)
    if conflicts:
        log.warning(
            "%d images have several labels, in files of the same bytes: %s",
            len(conflicts),
            _named(sources, conflicts),
        )


def _named(sources, numbers) -> str:
    names = [name for source in sources.values() for name in source.names]
    return listed(repr(names[i]) for i in numbers)


def _conflicts(numbers, labels) -> list[int]:
    """Returns the first example of each number that has several labels."""
    pairs = np.unique(np.stack([numbers, labels]), axis=1)[0]
    several = np.flatnonzero(np.bincount(pairs) > 1)
    _, first = np.unique(numbers, return_index=True)
    return sorted(first[several].tolist())


def without_duplicates(
    sources: Mapping[str, Source], duplicates: Duplicates, treatment: str
) -> tuple[dict[str, Source], Duplicates]:
    """Returns the splits without images that are in two of them.

    Args:
        sources: source of each split.
        duplicates: equal images among them.
        treatment: `"raise"`; or `"drop"`, which leaves images out of training that are in
            another split, and out of validation those in test.

    Raises:
        ValueError: with `"raise"` if there is such an image.
    """
    sources = dict(sources)
    files, contents = dict(duplicates.files), dict(duplicates.contents)
    for place, split in enumerate(ORDER):
        later = [other for other in ORDER[place + 1 :] if other in sources]
        if split not in sources or not later:
            continue
        others = np.concatenate([contents[other] for other in later])
        shared = np.isin(contents[split], others)
        if not shared.any():
            continue
        if treatment == "raise":
            raise ValueError(_in_two_splits(sources, contents, split, later, shared))
        left = np.flatnonzero(~shared)
        log.warning(
            "Left out %d of %d images of %r, which are also in %s.",
            shared.sum(),
            len(shared),
            split,
            " or ".join(map(repr, later)),
        )
        if not left.size:
            raise ValueError(f"All images of {split!r} are also in another split")
        sources[split] = sources[split].take(left)
        files[split], contents[split] = files[split][left], contents[split][left]
    return sources, Duplicates(files, contents)


def _in_two_splits(sources, contents, split, later, shared) -> str:
    names = [name for other in later for name in sources[other].names]
    others = np.concatenate([contents[other] for other in later])
    _, first, inverse = np.unique(others, return_index=True, return_inverse=True)
    place = dict(zip(others.tolist(), first[inverse].tolist(), strict=True))
    own = sources[split].names
    pairs = [
        f"{own[i]!r} is {names[place[int(contents[split][i])]]!r}"
        for i in np.flatnonzero(shared)[:11]
    ]
    more = [""] * (int(shared.sum()) - len(pairs))
    return (
        f"No image must be in several splits. {shared.sum()} of {len(shared)} images of "
        f"{split!r} are also in {' or '.join(map(repr, later))}, by their path or their "
        f"bytes: {listed([*pairs, *more])}. Leave them out of {split!r} with "
        "duplicates='drop', or keep them with duplicates='keep'."
    )


def log_copies(groups: np.ndarray) -> None:
    """Logs the number of copies that stay together when a split is drawn."""
    copies = len(groups) - len(np.unique(groups))
    if copies:
        log.warning(
            "%d of %d images are copies of others, by their path or their bytes. An image "
            "and its copies stay in one split.",
            copies,
            len(groups),
        )
