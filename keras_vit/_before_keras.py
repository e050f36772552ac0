"""Settings that take effect only before Keras is imported, with TensorFlow or torch."""

import os
import sys
from pathlib import Path

from keras_vit import startup_messages

# Variables by which users choose how OpenMP's threads wait.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_passively() -> None:
    """Lets the threads of OpenMP, which torch uses, sleep while they wait for each other.

    By default they spin. If another process is busy, they then take the core from the
    thread that they wait for, and a step takes ten times as long and more. OpenMP reads
    this setting once, when torch is imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def is_command() -> bool:
    """True if this process is `keras-vit`; any other program keeps its own settings."""
    program = Path(sys.argv[0]).stem if sys.argv else ""
    return program == "keras-vit" or sys.orig_argv[1:3] == ["-m", "keras_vit"]


startup_messages.silence_at_import()
if is_command():
    wait_passively()
