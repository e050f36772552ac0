"""Attempts that may fail, and the pauses between them."""

import random
import time
from collections.abc import Callable
from typing import Any

ATTEMPTS = 5
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0


class DownloadError(Exception):
    """A file could not be had.

    Args:
        message: what went wrong, as the middle of a sentence.
        retry: bool, whether another attempt may succeed.
        pause: seconds that the server asks for before the next attempt, or `None`.
    """

    def __init__(self, message: str, retry: bool = False, pause: float | None = None):
        super().__init__(message)
        self.retry = retry
        self.pause = pause


def persist(attempt: Callable[[], Any]) -> Any:
    """The result of `attempt()`, after as many of them as it takes, up to five."""
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except DownloadError as error:
            if not error.retry or number + 1 == ATTEMPTS:
                raise
            _sleep(_pause(number, error.pause))


def _pause(number, asked):
    """Seconds before the next attempt: each time twice as long, never the same for two."""
    # A generator of its own: the user's seed and random numbers stay as they are.
    jitter = random.SystemRandom().uniform(0.5, 1.5)
    pause = FIRST_PAUSE * 2**number * jitter if asked is None else asked
    return min(max(pause, 0.0), LONGEST_PAUSE)


def _sleep(seconds):
    time.sleep(seconds)
