"""Examples for validation and test, taken from those to train on."""

import hashlib

import numpy as np

from keras_vit.data.sources import Source


def take_split(
    source: Source, fraction: float, seed: int, purpose: str
) -> tuple[Source, Source | None]:
    """Takes a fraction of the examples of each class out of a source.

    Which ones is decided by a hash of the seed and the example's place among its class,
    so it is the same with every version of Python and NumPy. The number is rounded, and
    every class keeps an example: of a class with one image none is taken.

    Returns:
        The source of what is left, and that of what was taken; both keep the order. The
        second is `None` where no class has images enough.
    """
    taken = np.zeros(len(source.labels), bool)
    for label in np.unique(source.labels):
        indices = np.flatnonzero(source.labels == label)
        count = min(int(fraction * len(indices) + 0.5), len(indices) - 1)
        ranks = [_rank(seed, purpose, label, place) for place in range(len(indices))]
        taken[indices[np.argsort(ranks, kind="stable")[:count]]] = True
    if not taken.any():
        return source, None
    return source.take(np.flatnonzero(~taken)), source.take(np.flatnonzero(taken))


def _rank(seed: int, purpose: str, label: int, place: int) -> bytes:
    return hashlib.sha256(f"{seed} {purpose} {label} {place}".encode()).digest()
