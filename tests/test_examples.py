"""The examples run as a user runs them, made small."""

import subprocess
import sys
from pathlib import Path

import keras

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_digits(tmp_path):
    command = [sys.executable, EXAMPLES / "digits.py", "--seeds=1", "--epochs=1"]
    command += ["--precision=mixed_bfloat16", f"--output={tmp_path}"]
    output = subprocess.run(command, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    assert "fine-tuned    mean " in output.stdout
    assert "from scratch  mean " in output.stdout
    assert "step" in output.stdout  # Keras' progress bar
    for name in ("learning_curves.png", "predictions.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    model = keras.models.load_model(tmp_path / "finetuned.keras")
    assert model.input_shape == (None, 24, 24, 1)
    assert model.dtype_policy.name == "mixed_bfloat16"
