"""Convolution and pooling with the channels last, by each backend."""

import keras
import numpy as np
import pytest
from helpers import array, assert_close, images
from keras import ops

from keras_vit.layers.kernels import convolve, max_pool

SIZES = [(8, 8), (7, 9), (10, 13)]
WINDOWS = [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((7, 7), (2, 2)), ((2, 3), (3, 1))]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("window", "strides"), [*WINDOWS, ((1, 1), (2, 2))])
def test_convolution_is_keras_own(size, window, strides):
    inputs = images(*size)
    kernel = images(*window)[0].reshape(*window, 3, 1) * [1.0, -2.0]
    kernel = ops.convert_to_tensor(kernel, "float32")
    for padding in ("same", 0, 1):
        actual = convolve(
            ops.convert_to_tensor(inputs), kernel, strides=strides, padding=padding
        )
        zeros = padding if padding != "same" else 0
        around = np.pad(inputs, ((0, 0), (zeros, zeros), (zeros, zeros), (0, 0)))
        expected = ops.conv(
            around, kernel, strides, "same" if padding == "same" else "valid",
            data_format="channels_last",
        )  # fmt: skip
        assert_close(actual, expected, tolerance=1e-6)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("window", "strides"), WINDOWS)
def test_pooling_is_keras_own(size, window, strides, padding):
    inputs = ops.convert_to_tensor(images(*size) - 2)  # below what zeros around would be
    actual = max_pool(inputs, window, strides=strides, padding=padding)
    expected = ops.max_pool(inputs, window, strides, padding, data_format="channels_last")
    np.testing.assert_array_equal(array(actual), array(expected))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's order of axes")
@pytest.mark.parametrize("padding", ["same", 1])
def test_channels_stay_side_by_side_on_torch(padding):
    inputs = ops.convert_to_tensor(images(32, 33, 64))
    kernel = ops.convert_to_tensor(images(3, 64, 64, batch=3))
    outputs = convolve(inputs, kernel, strides=(2, 2), padding=padding)
    assert outputs.is_contiguous()
    assert max_pool(outputs, (3, 3), strides=(2, 2), padding="same").is_contiguous()
