"""What the scripts here time with."""

import time


def seconds(call) -> float:
    """What one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
