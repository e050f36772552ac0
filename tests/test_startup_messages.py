"""TensorFlow's start-up messages are silenced, and nothing else."""

import os
import re
import subprocess
import sys

import keras
import pytest

# Keras imports TensorFlow to load a file, keras_vit.data for images.
START = """
import numpy as np
import keras_vit
images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), "uint8")
arrays = images, np.arange(8) % 2
data = keras_vit.data.load(arrays, image_size=16, batch_size=2, validation_split=0.0)
for _ in zip(data.train, range(2)):
    pass
"""
LINES = r"""
import os, sys
from keras_vit import startup_messages
with startup_messages.silenced(no_gpu=NO_GPU):
    os.write(2, b"I0000 00:00:1795891465.95 12 port.cc:153] a message\n")
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called\n")
    os.write(2, b"E0000 00:00:1795891480.00 12 a.cc:52] an error\n")
    os.write(2, b"E0000 00:00:1795891480.00 12 a.cc:52] failed call to cuInit: 303\n")
    os.write(2, b"W0000 00:00:1795891480.00 12 b.cc:9] a warning\n")
    print("from Python", file=sys.stderr)
    os.write(2, b"no end of line")
    END
print(" after", file=sys.stderr)
"""


def errors_of(code, status=0, **environment):
    environment = {**os.environ, **environment}
    for name in [name for name, value in environment.items() if value is None]:
        del environment[name]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == status, done.stderr
    return done.stderr


def information_lines(text):
    return re.findall(r"^(?:I\d{4} |WARNING: All log).*", text, re.M)


def test_a_training_starts_without_messages():
    text = errors_of(START, TF_CPP_MIN_LOG_LEVEL=None)
    assert information_lines(text) == []
    if keras.backend.backend() != "tensorflow":
        assert text == ""


@pytest.mark.one_backend
def test_level_0_shows_them():
    # The text is TensorFlow's own; without any the filter would not be needed.
    text = errors_of(START, TF_CPP_MIN_LOG_LEVEL="0")
    assert information_lines(text)


@pytest.mark.one_backend
def test_everything_else_is_passed_on():
    code = LINES.replace("END", "pass")
    lines = errors_of(code.replace("NO_GPU", "False")).splitlines()
    shown = [line.rpartition("] ")[2] for line in lines]
    expected = ["an error", "failed call to cuInit: 303", "a warning", "from Python"]
    assert shown == [*expected, "no end of line after"]
    shown = errors_of(code.replace("NO_GPU", "True"))
    assert "cuInit" not in shown
    assert "an error" in shown


@pytest.mark.one_backend
def test_lines_before_a_crash_are_passed_on():
    code = LINES.replace("NO_GPU", "False").replace("END", "os._exit(7)")
    text = errors_of(code, status=7)
    assert "an error" in text
    assert text.endswith("no end of line")


@pytest.mark.one_backend
def test_other_code_finds_tensorflow_as_before():
    code = """
import keras_vit, importlib.resources, importlib.util, sys
assert importlib.util.find_spec("tensorflow") is not None
import tensorflow
assert tensorflow.__spec__.loader.get_filename("tensorflow")
assert "exec_module" not in vars(tensorflow.__spec__.loader)
assert not [f for f in sys.meta_path if type(f).__module__ == "keras_vit.startup_messages"]
assert importlib.resources.files("tensorflow").is_dir()
"""
    assert information_lines(errors_of(code, TF_CPP_MIN_LOG_LEVEL=None)) == []
