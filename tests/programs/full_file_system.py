"""Trains in a folder that is a file system of its own, fills it, makes it read-only, and
prints each error.
"""

import subprocess
import sys
from pathlib import Path

import test_resume as tests

folder = Path(sys.argv[1])
whole = tests.train(folder / "whole")


def fill():
    tests.CheckpointFolder(folder / "full", 2).wait()
    with open(folder / "ballast", "wb", buffering=0) as file:
        while file.write(bytes(1000)) == 1000:
            pass


try:
    tests.train(folder / "full", [tests.At(3, fill)])
except OSError as error:
    print(error)
(folder / "ballast").unlink()
tests.assert_same(tests.train(folder / "full"), whole)

tests.interrupted(folder / "read", 3)
tests.CheckpointFolder(folder / "read", 2).close()  # as if that process had ended
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
tests.assert_same(tests.train(folder / "read", on_save_error="warn"), whole)
print(tests.newest(folder / "read"))
