"""Which image was in which split of a training, told by what the files hold.

Paths change when a data set is moved, and which images a split takes changes with every
file that comes or goes. So a run keeps a digest of each file.
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
class Reunion:
    """Images of a data set beside those of an earlier training.

    Attributes:
        data: `ImageData` with the splits of the training, as far as there are images of
            them.
        untrained: `ImageData` with the splits of the given data, without the images that
            the model was trained on.
        trained: by split of the given data, how many of its images were trained on.
        missing: by split of the training, how many of its images are not there.
        known: int, how many of the images the training knew.
        new: int, how many it did not know.
    """

    data: ImageData
    untrained: ImageData
    trained: Mapping[str, int]
    missing: Mapping[str, int]
    known: int
    new: int


def digests(data: ImageData) -> dict[str, np.ndarray] | None:
    """uint64 array by split, a number for each file; `None` where there are no files.

    A digest is made of all bytes of a file, as uncompressed images of one size may differ
    in the middle alone. The file's name is no part of it.
    """
    if not all(isinstance(source, ImageFiles) for source in data.splits.values()):
        return None
    return {split: _digests(source.paths) for split, source in data.splits.items()}


def reunite(data: ImageData, known: Mapping[str, np.ndarray]) -> Reunion | None:
    """The images of a data set in the splits that they had; `None` without files.

    Args:
        data: `ImageData`, its splits of no account.
        known: `digests` of the training's data.
    """
    found = digests(data)
    if found is None:
        return None
    trained = {name: np.isin(found[name], known["train"]) for name in found}
    as_trained = {
        split: _taken(data, {name: np.isin(found[name], numbers) for name in found})
        for split, numbers in known.items()
    }
    untrained = {
        name: data.splits[name].take(np.flatnonzero(~mask))
        for name, mask in trained.items()
    }
    every, present = (np.concatenate([*each.values()]) for each in (known, found))
    is_known = np.isin(present, every)
    return Reunion(
        data=_with_images(data, as_trained),
        untrained=_with_images(data, untrained),
        trained={name: int(mask.sum()) for name, mask in trained.items()},
        missing={k: int((~np.isin(v, present)).sum()) for k, v in known.items()},
        known=int(is_known.sum()),
        new=int((~is_known).sum()),
    )


def _with_images(data, splits) -> ImageData:
    return replace(data, splits={k: v for k, v in splits.items() if len(v)})


def _taken(data, masks) -> ImageFiles:
    """The images of all splits that masks choose, as one source."""
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
