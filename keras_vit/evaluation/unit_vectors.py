"""Vectors of length 1, whose products are cosines."""

import numpy as np
from numpy.typing import NDArray


def unit_vectors(vectors: NDArray) -> NDArray:
    """Vectors divided by their lengths, in their dtype; those of zeros stay.

    Numbers whose squares the dtype does not hold are divided by the largest of their vector
    before, so that no length is infinity or 0.

    Args:
        vectors: finite float array (vectors, width).
    """
    squares, limits = np.einsum("ij,ij->i", vectors, vectors), np.finfo(vectors.dtype)
    is_normal = (squares > limits.tiny / limits.eps) & (squares <= limits.max)
    if not is_normal.all():
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        vectors = vectors / np.where(is_normal[:, None] | (largest == 0), 1, largest)
        squares = np.einsum("ij,ij->i", vectors, vectors)
    lengths = np.sqrt(squares)[:, None]
    return vectors / np.where(lengths == 0, 1, lengths)
