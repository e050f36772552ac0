"""Settings made before anything imports Keras, which may import TensorFlow or torch."""

import os
import sys
from pathlib import Path

from keras_vit import remarks

# By which the user says how threads wait for each other.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_passively() -> None:
    """Has the threads of OpenMP, which are torch's, sleep while they wait for each other.

    They would spin, and keep the core from the thread that they wait for wherever another
    process is at work: a step takes ten times as long and more. OpenMP reads this once,
    when torch is imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def is_command() -> bool:
    """True if this process is `keras-vit`; any other program keeps its own settings."""
    program = Path(sys.argv[0]).stem if sys.argv else ""
    return program == "keras-vit" or sys.orig_argv[1:3] == ["-m", "keras_vit"]


remarks.leave_out_at_import()
if is_command():
    wait_passively()
