"""Convolution and pooling of images whose channels are last, of every backend."""

import keras
from keras import ops


def convolve(images, kernel, *, strides, padding):
    """`keras.ops.conv` with zeros around the images.

    On torch Keras copies the images twice before each convolution, into the order with
    the channels first and back. torch computes on a view of them.

    Args:
        images: (batch, height, width, channels).
        kernel: (height, width, channels, filters).
        strides: (height, width), in pixels.
        padding: `"same"`, TensorFlow's, or int, how many pixels each side gets.

    Returns:
        (batch, new height, new width, filters).
    """
    if keras.backend.backend() == "torch":
        return _convolve_by_torch(images, kernel, strides, padding)
    if padding != "same" and padding:
        sides = (padding, padding)
        images = ops.pad(images, ((0, 0), sides, sides, (0, 0)))
    padding = "same" if padding == "same" else "valid"
    return ops.conv(images, kernel, strides, padding, data_format="channels_last")


def max_pool(images, size, *, strides, padding):
    """`keras.ops.max_pool`, see `convolve`.

    Args:
        images: (batch, height, width, channels).
        size: (height, width), in pixels.
        strides: (height, width), in pixels.
        padding: `"same"`, TensorFlow's, or `"valid"`.

    Returns:
        (batch, new height, new width, channels).
    """
    if keras.backend.backend() == "torch":
        return _max_pool_by_torch(images, size, strides, padding)
    return ops.max_pool(images, size, strides, padding, data_format="channels_last")


def _convolve_by_torch(images, kernel, strides, padding):
    from torch.nn.functional import conv2d

    images, kernel = images.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
    if padding == "same":
        images, padding = _padded(images, kernel.shape[2:], strides, 0.0)
    return conv2d(images, kernel, None, strides, padding).permute(0, 2, 3, 1)


def _max_pool_by_torch(images, size, strides, padding):
    from torch.nn.functional import max_pool2d

    images, zeros = images.permute(0, 3, 1, 2), 0
    if padding == "same":
        images, zeros = _padded(images, size, strides, float("-inf"))
    return max_pool2d(images, size, strides, zeros).permute(0, 2, 3, 1)


def _padded(images, size, strides, value):
    """TensorFlow's padding, and what of it torch is left to do: both sides alike."""
    from torch.nn.functional import pad

    sides = [
        max((-(-pixels // stride) - 1) * stride + window - pixels, 0)
        for pixels, window, stride in zip(images.shape[2:], size, strides, strict=True)
    ]
    if all(side % 2 == 0 for side in sides):
        return images, [side // 2 for side in sides]
    (top, left), (bottom, right) = zip(
        *((side // 2, side - side // 2) for side in sides), strict=True
    )
    return pad(images, (left, right, top, bottom), value=value), 0
