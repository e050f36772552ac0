"""Weights of RGB images for images of other channels: kernels, mean and deviation.

In NumPy.
"""

import math
from collections.abc import Sequence

import numpy as np

RGB = 3


def extend_kernel(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Makes a kernel for images of other channels from one for RGB.

    One channel gets the sum over RGB: a grey image gives the outputs of the RGB image that
    repeats it. Other numbers repeat RGB along the channels, times 3 / `channels`: images
    that repeat RGB give the outputs of the RGB image.

    Source: `in_chans` of timm (huggingface/pytorch-image-models).

    Args:
        kernel: array of shape (height, width, 3, outputs).
        channels: number of channels of the images.

    Returns:
        Array of shape (height, width, channels, outputs) in the kernel's dtype.
    """
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return (kernel[:, :, np.arange(channels) % RGB] * (RGB / channels)).astype(kernel.dtype)


def extend_standardized_kernel(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Makes a kernel of a `StandardizedConv2D` for images of more channels than RGB.

    RGB is repeated as often as it fits, and the one or two channels beyond get zeros.
    Standardised, this is the standardised RGB kernel times a number that is the same for
    every output, and the group norm after the convolution removes such a number: images
    that repeat RGB give the outputs of the RGB image, whatever the channels beyond hold.

    There is no such kernel for one or two channels: the sum, or two of the three, has
    another variance at each output, which standardisation makes 1.

    Args:
        kernel: array of shape (height, width, 3, outputs).
        channels: number of channels of the images, at least 3.

    Returns:
        Array of shape (height, width, channels, outputs) in the kernel's dtype.
    """
    repeats, beyond = divmod(channels, RGB)
    # Zeros keep the mean of a centred kernel, and lower its variance by the same factor at
    # every output, so the product has the variance of the RGB kernel.
    centred = kernel - kernel.mean(axis=(0, 1, 2), keepdims=True)
    repeated = np.tile(centred * math.sqrt(channels / (RGB * repeats)), (1, 1, repeats, 1))
    padded = np.pad(repeated, ((0, 0), (0, 0), (0, beyond), (0, 0)))
    return padded.astype(kernel.dtype)


def extend_values(values: Sequence[float], channels: int) -> float | tuple[float, ...]:
    """Makes means or deviations of the pixels for other channels, as the kernels are.

    Args:
        values: one for each channel of the checkpoint's images.
        channels: number of channels of the images.

    Returns:
        Their mean for one channel, else one for each channel: the values, repeated.
    """
    if channels == 1:
        return sum(values) / len(values)
    return tuple(values[channel % len(values)] for channel in range(channels))
