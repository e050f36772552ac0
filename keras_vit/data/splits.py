"""Splits for validation and test, drawn from the training examples."""

import hashlib

import numpy as np


def choose_for_split(
    labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int, purpose: str
) -> np.ndarray:
    """Chooses a fraction of the examples of each class.

    A hash of the seed and of the example's place in its class decides, so the choice does
    not depend on the version of Python or NumPy. The number is rounded, and every class
    keeps an example: from a class with one image none is chosen. A group is chosen as a
    whole or not at all. It is not chosen if it would be too many, or has several labels. If
    no group fits, the smallest is chosen, up to half of the class.

    Args:
        labels: class of each example, int (n,).
        groups: group of each example, int (n,), equal for copies of one image.
        fraction: fraction in [0, 1).
        seed: random seed.
        purpose: name of the split.

    Returns:
        bool array (n,), `True` for chosen examples.
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
    """Returns members of the first groups that fit into `count`."""
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
