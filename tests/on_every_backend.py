"""Runs the test suite under each Keras backend, as many runs at a time as there are cores,
and prints what each run prints as it ends, then one summary.

Tests marked `one_backend` (downloads, rows of presets, damaged files), which are the same
NumPy and Python on each, run once, on torch, which is the quickest, in a run of their own.
"""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest

RUNS = (  # (backend, its tests), the slowest first
    ("jax", "not one_backend"),
    ("tensorflow", "not one_backend"),
    ("torch", "not one_backend"),
    ("torch", "one_backend"),
)
OUTCOMES = ("passed", "failed", "skipped")
NO_TESTS = pytest.ExitCode.NO_TESTS_COLLECTED  # of those that are asked for
WORKERS = min(len(RUNS), os.cpu_count() or 1)
# torch's threads wait for each other by spinning: more than cores, they take several times
# as long.
THREADS = str(max(1, (os.cpu_count() or 1) // WORKERS))
# XLA takes most of JAX' time, to make programs quick that run once. Without that a tiny
# model is built, called and trained in a fifth of the time.
XLA_FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def xla_flags():
    """`XLA_FLAGS`, before those of the user; without them, and saying so, where one is no
    flag of XLA's any more, which ends the process.
    """
    given = os.environ.get("XLA_FLAGS", "")
    flags = " ".join((*XLA_FLAGS, given))
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    if not subprocess.run(start, env={**os.environ, "XLA_FLAGS": flags}).returncode:
        return flags
    print(f"This XLA does not take {' '.join(XLA_FLAGS)}: JAX will take longer.")
    return given


def run(backend, marked, arguments, folder):
    """Runs the tests so marked under a backend: what pytest prints, a line of summary, the
    number of tests by outcome, and whether all is well.
    """
    start = time.monotonic()
    results = Path(folder, f"{backend}, {marked}.xml")
    environment = {"OMP_NUM_THREADS": THREADS, "KERAS_BACKEND": backend}
    if backend == "jax":
        environment["XLA_FLAGS"] = xla_flags()
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", f"--junitxml={results}", "-m", marked, *arguments],
        env={**os.environ, **environment},
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    counts = count(results)
    numbers = "  ".join(f"{counts[name]:4d} {name}" for name in OUTCOMES)
    well = ended.returncode in (0, NO_TESTS)
    state = "" if well else f"  pytest exited with {ended.returncode}"
    seconds = time.monotonic() - start
    line = f"{backend:10s}  {marked:15s}  {numbers}  {seconds:5.0f} s{state}"
    return ended.stdout, line, counts, well


def count(results):
    """The number of tests by outcome, in a file of pytest's."""
    if not results.exists():
        return dict.fromkeys(OUTCOMES, 0)
    suite = ElementTree.parse(results).getroot().find("testsuite")
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    skipped = int(suite.get("skipped"))
    passed = int(suite.get("tests")) - failed - skipped
    return dict(zip(OUTCOMES, (passed, failed, skipped), strict=True))


def main():
    """Exits with 1 if a test fails, or if a backend passes none."""
    passed = {backend: 0 for backend, _ in RUNS}
    total, summary, ok = dict.fromkeys(OUTCOMES, 0), [], True
    print(f"Running the suite on {', '.join(passed)}, {WORKERS} at a time.", flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        runs = {pool.submit(run, *each, sys.argv[1:], folder): each for each in RUNS}
        for done in as_completed(runs):
            (backend, marked), (output, line, counts, is_well) = runs[done], done.result()
            print(f"\n=== KERAS_BACKEND={backend}, {marked} ===\n{output}", flush=True)
            summary.append(line)
            ok = ok and is_well
            passed[backend] += counts["passed"]
            total = {name: total[name] + counts[name] for name in OUTCOMES}
    print("\n=== Summary ===")
    print("\n".join(summary))
    print(", ".join(f"{total[name]} {name}" for name in OUTCOMES))
    return 0 if ok and all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
