"""Examples for validation and test, taken from those to train on."""

import hashlib

import numpy as np


def taken_for_split(
    labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int, purpose: str
) -> np.ndarray:
    """Chooses a fraction of the examples of each class.

    Which ones is decided by a hash of the seed and the example's place among its class,
    so it is the same with every version of Python and NumPy. The number is rounded, and
    every class keeps an example: of a class with one image none is taken. Of a group all
    are taken or none: it stays where it would be too many, or has several labels. Where
    no group fits, the smallest is taken, up to half of the class.

    Args:
        labels: int array (n,), the class of each example.
        groups: int array (n,), equal for copies of one image.
        fraction: float in [0, 1).
        seed: int.
        purpose: name of the split.

    Returns:
        bool array (n,), True for what is taken.
    """
    taken = np.zeros(len(labels), bool)
    mixed = _groups_of_several_labels(labels, groups)
    for label in np.unique(labels):
        indices = np.flatnonzero(labels == label)
        count = min(int(fraction * len(indices) + 0.5), len(indices) - 1)
        ranks = [_rank(seed, purpose, label, place) for place in range(len(indices))]
        by_group = {}
        for index in indices[np.argsort(ranks, kind="stable")]:
            if groups[index] not in mixed:
                by_group.setdefault(int(groups[index]), []).append(index)
        taken[_fitting(list(by_group.values()), count, len(indices) // 2)] = True
    return taken


def _fitting(groups: list[list[int]], count: int, most: int) -> list[int]:
    """The members of the first groups that are `count` together."""
    members = []
    for group in groups:
        if len(members) + len(group) <= count:
            members += group
    smallest = min(groups, key=len, default=[])
    if count and not members and len(smallest) <= most:
        members = smallest
    return members


def _groups_of_several_labels(labels, groups) -> set[int]:
    pairs = np.unique(np.stack([groups, labels]), axis=1)[0]
    numbers, counts = np.unique(pairs, return_counts=True)
    return set(numbers[counts > 1].tolist())


def _rank(seed: int, purpose: str, label: int, place: int) -> bytes:
    return hashlib.sha256(f"{seed} {purpose} {label} {place}".encode()).digest()
