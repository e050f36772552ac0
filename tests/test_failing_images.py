"""Images that fail in the middle of a stream: one exception, which names the file."""

import numpy as np
import pytest
from helpers import tiny
from PIL import Image

import keras_vit
from keras_vit.data import failures
from keras_vit.training import SmallData


@pytest.fixture
def folder(tmp_path):
    """Two classes of six photographs, of which the last of one is cut off."""
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        for i in range(6):
            pixels = rng.integers(0, 256, (40, 40, 3), "uint8")
            Image.fromarray(pixels).save(tmp_path / name / f"{i} é.jpg")
    return tmp_path


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-600])


def model():
    return tiny(
        num_layers=1,
        hidden_dim=16,
        num_heads=2,
        mlp_dim=16,
        classes=2,
        classifier_activation=None,
    )


@pytest.mark.parametrize("how", ["cut off", "gone"])
def test_training_ends_in_an_error_that_names_the_file(folder, how):
    data = keras_vit.data.load(folder, image_size=32, validation_split=0.0)
    path = folder / "right" / "5 é.jpg"
    cut_off(path) if how == "cut off" else path.unlink()
    recipe = SmallData(steps=6, warmup_steps=0, batch_size=4, image_size=32)
    with pytest.raises(ValueError, match="bad_images='skip'") as caught:
        keras_vit.training.finetune(model(), data, recipe, verbose=0)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_loop_of_ones_own_ends_in_few_lines(folder):
    """TensorFlow's exception, and not the calls that led to it in its threads."""
    import tensorflow as tf

    cut_off(folder / "left" / "0 é.jpg")
    data = keras_vit.data.load(folder, image_size=32, batch_size=4, validation_split=0.0)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(data.train.take(3))
    assert "Cannot read the image" in str(caught.value)
    assert "0 " in str(caught.value)
    assert "bad_images=" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert str(caught.value).count("\n") < 10


@pytest.mark.one_backend
def test_other_errors_stay_as_they_are():
    import tensorflow as tf

    def read(path, raised):
        with failures.named():
            said = failures.noted(ValueError(f"Cannot read {path!r}"))
            raised(said)

    def of_the_user(said):
        raise KeyError(said)

    def of_the_image(said):
        tf.debugging.Assert(False, [said])

    def of_another_image(said):
        tf.debugging.Assert(False, [said.replace(b"7", b"8")])

    with pytest.raises(KeyError):
        read("7.jpg", of_the_user)
    with pytest.raises(tf.errors.InvalidArgumentError):
        read("7.jpg", of_another_image)
    for path in ("7.jpg", "7 'ü'\t\\\n.jpg", "7 \udcff.jpg"):
        with pytest.raises(ValueError, match="Load the data") as caught:
            read(path, of_the_image)
        assert str(caught.value).startswith(f"Cannot read {path!r}")
