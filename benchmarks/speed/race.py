"""Race of the contenders of a case in turns, and comparisons of their times."""

import contextlib
import json
import os
import platform
import select
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.speed.contenders import CONTENDERS, can
from benchmarks.speed.worker import PRODUCT, SIDE

PAUSE = 0.3  # seconds, in which the threads of the one before fall asleep
READY = 1800  # seconds until a contender must have done it once


class Worker:
    """A contender in a process of its own.

    Args:
        name: of the contender.
        backend: that it computes with.
        case: `Case`.

    Attributes:
        facts: what it took to get ready; `"missing"` says why it is not there.
        times: seconds, of each time.
        peak_bytes: the most memory that the process has had.
    """

    def __init__(self, name, backend, case):
        self.name, self.backend = name, backend
        self.times, self.peak_bytes = [], None
        module = "benchmarks.speed.worker"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, name, backend, json.dumps(asdict(case))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.facts = self._answer()

    def _answer(self):
        if not select.select([self._process.stdout], [], [], READY)[0]:
            self._process.kill()
            return {"missing": f"not ready after {READY} s"}
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"missing": "its process ended"}

    def once(self):
        """Runs the contender once; after an error it has no times and never runs again."""
        if "missing" in self.facts:
            return
        time.sleep(PAUSE)
        with contextlib.suppress(BrokenPipeError):  # of one that has ended
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        answer = self._answer()
        if "missing" in answer:
            self.facts, self.times = answer, []
            return
        self.times.append(answer["seconds"])
        self.peak_bytes = answer["peak_bytes"]

    def end(self):
        """Ends the process."""
        self._process.kill()
        self._process.wait()


def race(case, names, backends, rounds):
    """Runs all contenders in turns, with the matrix product, for some rounds.

    Returns:
        A dictionary, as JSON can hold it: the case, the machine, and of each contender
        the seconds of each round.
    """
    entries = [(PRODUCT, backend) for backend in backends]
    for name in names:
        if can(name, case):
            entries += [(name, b) for b in CONTENDERS[name][0] if b in backends]
    workers = []
    try:
        for name, backend in entries:
            worker = Worker(name, backend, case)
            workers.append(worker)
            missing = worker.facts.get("missing")
            print(f"  {name} ({backend}): {missing or 'ready'}", flush=True)
        for _ in range(rounds):
            for worker in workers:
                worker.once()
    finally:
        for worker in workers:
            worker.end()
    return {
        "case": asdict(case),
        "flops": case.flops,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "contenders": [
            {
                "name": worker.name,
                "backend": worker.backend,
                **worker.facts,
                "seconds": worker.times,
                "peak_bytes": worker.peak_bytes,
            }
            for worker in workers
        ],
    }


def machine():
    """Human-readable description of the machine."""
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"{platform.machine()} {_processor()}, {cores} cores, load {load:.1f}"


def _processor():
    """Maker and widest vectors of the processor, where Linux tells."""
    try:
        lines = dict(
            (part.strip() for part in line.split(":", 1))
            for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        )
        flags = lines["flags"].split()
    except (OSError, KeyError, ValueError):
        return platform.processor()
    widest = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else ""
    return f"{lines['vendor_id']} {widest}".strip()


def rate(result, contender) -> float:
    """FLOP/s in the median round, counting the FLOPs of a whole model."""
    flops = 2 * SIDE**3 if contender["name"] == PRODUCT else result["flops"]
    return flops / statistics.median(contender["seconds"])


def ratio(one, other) -> float:
    """Ratio of speeds of two contenders: the median of the ratios of rounds."""
    pairs = zip(other["seconds"], one["seconds"], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def measured(result) -> list[dict]:
    """Contenders that were measured, without the matrix products."""
    return [c for c in result["contenders"] if c["name"] != PRODUCT and c["seconds"]]


def limit(result) -> tuple[float, str]:
    """FLOP/s of the fastest matrix product, and its backend."""
    products = [c for c in result["contenders"] if c["name"] == PRODUCT and c["seconds"]]
    return max((rate(result, one), one["backend"]) for one in products)
