"""State before every test: a known seed and Keras' default settings."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest


def pytest_report_header():
    return f"Keras {keras.__version__} on {keras.backend.backend()}"


@pytest.fixture(autouse=True, scope="module")
def earlier_objects_left_alone():
    """Leaves what is imported, and what the tests of other files keep, out of the
    collection of garbage, for which Keras asks at every `clear_session` and for every layer
    that it quantizes: it took a fifth of the suite's time."""
    keras.utils.set_random_seed(0)  # imports TensorFlow on each backend
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def known_state():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")


@pytest.fixture
def fails(capsys):
    """Runs a command, and gives the one line of its error."""
    from keras_vit.cli import main

    def fails(*arguments):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("keras-vit: error: ")
        assert error.count("\n") == 1
        return error

    return fails
