"""Timer of the benchmarks."""

import time


def seconds(call) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
