"""Digests of image files, by which a run recognises its images in data that changed.

Paths change when a data set is moved, and a split that is drawn changes with every file
that is added or removed. So a run keeps a digest of each file.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_vit.data import ImageData
from keras_vit.data.sources import ImageFiles
from keras_vit.data.threads import map_indices

SIZE = 8  # bytes of a digest


@dataclass(frozen=True)
class MatchedImages:
    """Images of a data set, matched with those of an earlier training.

    Attributes:
        data: `ImageData` in the training's splits, without images that are missing.
        untrained: `ImageData` in the given splits, without images trained on.
        trained: by given split, the number of its images that were trained on.
        missing: by split of the training, the number of its images that are missing.
        known: number of images that the training had.
        new: number of images that it did not have.
    """

    data: ImageData
    untrained: ImageData
    trained: Mapping[str, int]
    missing: Mapping[str, int]
    known: int
    new: int


def image_digests(data: ImageData) -> dict[str, np.ndarray] | None:
    """A uint64 digest of each image file, an array by split; `None` without files.

    A digest covers all bytes of a file, as uncompressed images of one size may differ in
    the middle alone. It does not cover the file's name.
    """
    if not all(isinstance(source, ImageFiles) for source in data.splits.values()):
        return None
    return {split: _digests(source.paths) for split, source in data.splits.items()}


def match_images(
    data: ImageData, digests: Mapping[str, np.ndarray]
) -> MatchedImages | None:
    """Matches a data set with the images of a training; `None` without files.

    Args:
        data: the images; which split they are in does not matter.
        digests: `image_digests` of the training's data.
    """
    found = image_digests(data)
    if found is None:
        return None
    trained = {name: np.isin(found[name], digests["train"]) for name in found}
    as_trained = {
        split: _select(data, {name: np.isin(found[name], numbers) for name in found})
        for split, numbers in digests.items()
    }
    untrained = {
        name: data.splits[name].take(np.flatnonzero(~mask))
        for name, mask in trained.items()
    }
    every, present = (np.concatenate([*each.values()]) for each in (digests, found))
    is_known = np.isin(present, every)
    return MatchedImages(
        data=_with_splits(data, as_trained),
        untrained=_with_splits(data, untrained),
        trained={name: int(mask.sum()) for name, mask in trained.items()},
        missing={k: int((~np.isin(v, present)).sum()) for k, v in digests.items()},
        known=int(is_known.sum()),
        new=int((~is_known).sum()),
    )


def _with_splits(data, splits) -> ImageData:
    """The data with other splits, without empty ones."""
    return replace(data, splits={k: v for k, v in splits.items() if len(v)})


def _select(data, masks) -> ImageFiles:
    """The images of all splits that the masks choose, as one source."""
    parts = [data.splits[name].take(np.flatnonzero(mask)) for name, mask in masks.items()]
    return replace(
        parts[0],
        paths=tuple(path for part in parts for path in part.paths),
        labels=np.concatenate([part.labels for part in parts]),
    )


def _digests(paths) -> np.ndarray:
    numbers = map_indices(lambda index: _digest(paths[index]), len(paths))
    return np.array(numbers, np.uint64)


def _digest(path: Path) -> int:
    with open(path, "rb") as file:
        return int.from_bytes(hashlib.file_digest(file, "sha256").digest()[:SIZE])
