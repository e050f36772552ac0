"""Timer of the benchmarks."""

import time


def seconds(call, clock=time.perf_counter) -> float:
    """Seconds of one call, by a clock."""
    start = clock()
    call()
    return clock() - start
