"""The start of the command, in processes of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    ("program", "given", "is_passive"),
    [
        (["-m", "keras_vit", "--version"], {}, True),
        (["-m", "keras_vit", "--version"], {"OMP_WAIT_POLICY": "ACTIVE"}, False),
        (["-c", "import keras_vit"], {}, False),
    ],
)
def test_threads_of_the_command_sleep_while_they_wait(program, given, is_passive):
    """As OpenMP itself says, when torch loads it."""
    pytest.importorskip("torch")
    others = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {k: v for k, v in os.environ.items() if k not in others}
    ended = subprocess.run(
        [sys.executable, *program],
        env={
            **environment,
            **given,
            "KERAS_BACKEND": "torch",
            "OMP_DISPLAY_ENV": "VERBOSE",
        },
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    spins = re.search(r"GOMP_SPINCOUNT = '(\d+)'", ended.stderr)
    if not spins:
        pytest.skip("torch's OpenMP is not GNU's, which tells how often threads spin")
    assert (int(spins[1]) == 0) == is_passive
