"""Lists what has no complete type in the public functions, classes and attributes.

pyright finds it. Two kinds of its findings do not count: Keras has no types, so the bases
of layers, models and callbacks are unknown; and a type that is unknown in one place is
reported again wherever it is used. Exits with 1 if there is any.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = ["--pythonpath", sys.executable, "--verifytypes", "keras_vit"]
# pyright does not follow the import hook of an editable installation.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ROOTS = ("is missing", "missing type annotation", "Type argument", "Type is unknown")


def main() -> int:
    """Runs pyright, and prints a line for each finding and their number."""
    pyright = Path(sys.executable).with_name("pyright")
    run = subprocess.run(
        [pyright, *COMMAND, "--ignoreexternal", "--outputjson"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(run.stdout)["typeCompleteness"]
    lines = set()
    for symbol in found["symbols"]:
        for one in symbol["diagnostics"] if symbol["isExported"] else ():
            counts = any(root in one["message"] for root in ROOTS)
            if counts and one["severity"] == "error" and one["file"]:
                file = Path(one["file"]).relative_to(ROOT)
                line = one["range"]["start"]["line"] + 1
                message = " ".join(one["message"].split())
                lines.add(f"{file}:{line}: {symbol['name']}: {message}")
    print("\n".join(sorted(lines)))
    known = found["exportedSymbolCounts"]["withKnownType"]
    print(f"{len(lines)} of the public types are incomplete, {known} are known.")
    return 1 if lines or not known else 0


if __name__ == "__main__":
    sys.exit(main())
