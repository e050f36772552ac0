"""Runs the test suite under each Keras backend and prints one summary.

Tests marked `one_backend` (downloads, rows of presets, damaged files), which are the same
NumPy and Python on each, run once.
"""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")
QUICKEST = "torch"  # for the tests of what no backend has a part in
OUTCOMES = ("passed", "failed", "skipped")


def run(backend, arguments, results):
    """Runs pytest under a backend; gives the number of tests by outcome and its exit."""
    print(f"\n=== KERAS_BACKEND={backend} ===", flush=True)
    if backend != QUICKEST:
        arguments = ["-m", "not one_backend", *arguments]
    code = subprocess.call(
        [sys.executable, "-m", "pytest", f"--junitxml={results}", *arguments],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=Path(__file__).parent.parent,
    )
    if not results.exists():
        return dict.fromkeys(OUTCOMES, 0), code
    suite = ElementTree.parse(results).getroot().find("testsuite")
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    skipped = int(suite.get("skipped"))
    passed = int(suite.get("tests")) - failed - skipped
    return dict(zip(OUTCOMES, (passed, failed, skipped), strict=True)), code


def main():
    """Exits with 1 if a test fails, or if a backend runs none."""
    total, summary, ok = dict.fromkeys(OUTCOMES, 0), [], True
    with tempfile.TemporaryDirectory() as folder:
        for backend in BACKENDS:
            start = time.monotonic()
            counts, code = run(backend, sys.argv[1:], Path(folder, f"{backend}.xml"))
            ok = ok and code == 0 and counts["passed"] > 0
            total = {name: total[name] + counts[name] for name in OUTCOMES}
            numbers = "  ".join(f"{counts[name]:4d} {name}" for name in OUTCOMES)
            seconds = time.monotonic() - start
            state = "" if code == 0 else f"  pytest exited with {code}"
            summary.append(f"{backend:10s}  {numbers}  {seconds:5.0f} s{state}")
    print("\n=== Summary ===")
    print("\n".join(summary))
    print(", ".join(f"{total[name]} {name}" for name in OUTCOMES))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
