"""TensorFlow's remarks as it starts are left out, and nothing else."""

import os
import re
import subprocess
import sys

import keras
import pytest

# Keras imports TensorFlow as it loads a file, and ours for images.
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
from keras_vit import remarks
with remarks.left_out(of_gpus=OF_GPUS):
    os.write(2, b"I0000 00:00:1795891465.95 12 port.cc:153] a remark\n")
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


def of_level_information(text):
    return re.findall(r"^(?:I\d{4} |WARNING: All log).*", text, re.M)


def test_a_training_opens_without_remarks():
    text = errors_of(START, TF_CPP_MIN_LOG_LEVEL=None)
    assert of_level_information(text) == []
    if keras.backend.backend() != "tensorflow":
        assert text == ""


@pytest.mark.one_backend
def test_they_are_shown_to_who_asks():
    # Their text is TensorFlow's; that there is some is what the filter is for.
    text = errors_of(START, TF_CPP_MIN_LOG_LEVEL="0")
    assert of_level_information(text)


@pytest.mark.one_backend
def test_all_else_is_passed_on():
    code = LINES.replace("END", "pass")
    lines = errors_of(code.replace("OF_GPUS", "False")).splitlines()
    shown = [line.rpartition("] ")[2] for line in lines]
    expected = ["an error", "failed call to cuInit: 303", "a warning", "from Python"]
    assert shown == [*expected, "no end of line after"]
    shown = errors_of(code.replace("OF_GPUS", "True"))
    assert "cuInit" not in shown
    assert "an error" in shown


@pytest.mark.one_backend
def test_what_is_written_before_a_crash_is_passed_on():
    code = LINES.replace("OF_GPUS", "False").replace("END", "os._exit(7)")
    text = errors_of(code, status=7)
    assert "an error" in text
    assert text.endswith("no end of line")


@pytest.mark.one_backend
def test_an_import_of_ones_own_finds_tensorflow_as_ever():
    code = """
import keras_vit, importlib.resources, importlib.util, sys
assert importlib.util.find_spec("tensorflow") is not None
import tensorflow
assert tensorflow.__spec__.loader.get_filename("tensorflow")
assert "exec_module" not in vars(tensorflow.__spec__.loader)
assert not [f for f in sys.meta_path if type(f).__module__ == "keras_vit.remarks"]
assert importlib.resources.files("tensorflow").is_dir()
"""
    assert of_level_information(errors_of(code, TF_CPP_MIN_LOG_LEVEL=None)) == []
