"""Threads that read many files at a time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

THREADS = 16  # more than cores: files are often far away
CHUNK = 256  # indices in a task: a task for each of millions would fill the memory


def map_indices(function: Callable[[int], T], count: int) -> list[T]:
    """Returns `[function(0), …, function(count - 1)]`, computed in threads."""
    chunks = [range(count)[start : start + CHUNK] for start in range(0, count, CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(lambda chunk: [function(index) for index in chunk], chunks)
        return [result for chunk in results for result in chunk]
