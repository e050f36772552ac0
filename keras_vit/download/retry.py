"""Repeated attempts of a download, with pauses."""

import random
import time
from collections.abc import Callable
from typing import Any

ATTEMPTS = 5
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0


class DownloadError(Exception):
    """A file could not be downloaded.

    Args:
        message: the reason, as the middle of a sentence.
        retry: bool, whether another attempt may succeed.
        pause: seconds before the next attempt as the server asks, or `None`.
    """

    def __init__(self, message: str, retry: bool = False, pause: float | None = None):
        super().__init__(message)
        self.retry = retry
        self.pause = pause


def with_retries(attempt: Callable[[], Any]) -> Any:
    """Calls `attempt()` until it succeeds, up to five times; returns its result."""
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except DownloadError as error:
            if not error.retry or number + 1 == ATTEMPTS:
                raise
            _sleep(_pause(number, error.pause))


def _pause(number, asked):
    """Seconds before the next attempt: doubled each time, with random jitter."""
    # Leaves the user's random state alone.
    jitter = random.SystemRandom().uniform(0.5, 1.5)
    pause = FIRST_PAUSE * 2**number * jitter if asked is None else asked
    return min(max(pause, 0.0), LONGEST_PAUSE)


def _sleep(seconds):
    time.sleep(seconds)
