"""Convolutions whose kernels are standardised at every use."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers import kernels
from keras_vit.layers.initial_values import ValuesByNumPy, initializer
from keras_vit.types import Shape, Tensor

STANDARDIZATIONS = ("std", "variance")


def default_epsilon(standardization: str) -> float:
    """The epsilon of the hybrids' code (`"std"`) or of BiT's (`"variance"`)."""
    return 1e-5 if standardization == "std" else 1e-10


@keras.saving.register_keras_serializable(package="keras_vit")
class StandardizedConv2D(ValuesByNumPy, keras.layers.Layer):
    """A convolution, without bias, whose kernel has mean 0 and variance 1 at each output.

    Source: weight standardisation (arXiv 1903.10520), as BiT (arXiv 1912.11370, section
    3.1) and the hybrids of ViT (arXiv 2010.11929, section 3.1) use it. Under every dtype
    policy the kernel is stored and standardised in float32.

    Args:
        filters: int, number of output channels.
        kernel_size: int or (height, width), in pixels.
        strides: int or (height, width), in pixels.
        padding: `"same"` (TensorFlow's: output sides are those of the input divided by
            the strides, rounded up; an odd pixel of zeros goes to the end), or int, the
            pixels of zeros on each side.
        standardization: the divisor of the centred kernel: `"std"`, the standard
            deviation plus `epsilon` (the hybrids), or `"variance"`, the root of the
            variance plus `epsilon` (BiT).
        epsilon: float; `None` for that of the original code, 1e-5 under `"std"`, 1e-10
            under `"variance"`.
        kernel_initializer: initializer of the kernel.

    Input shape:
        (batch, height, width, channels). Height and width may be `None`.

    Output shape:
        (batch, new height, new width, filters).

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> StandardizedConv2D(64, 7, strides=2)(np.zeros((1, 224, 224, 3))).shape
    (1, 112, 112, 64)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        *,
        strides: int | tuple[int, int] = 1,
        padding: str | int = "same",
        standardization: str = "std",
        epsilon: float | None = None,
        kernel_initializer="lecun_normal",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = arguments.positive(filters, "filters")
        self.kernel_size = arguments.pair(kernel_size, "kernel_size")
        self.strides = arguments.pair(strides, "strides")
        if padding != "same" and (not isinstance(padding, int) or padding < 0):
            raise ValueError(
                "`padding` must be 'same' or a number of pixels of at least 0. Received: "
                f"padding={padding!r}"
            )
        self.padding = padding
        arguments.one_of(standardization, STANDARDIZATIONS, "standardization")
        self.standardization = standardization
        self.epsilon = default_epsilon(standardization) if epsilon is None else epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, images_shape: Shape) -> None:
        channels = images_shape[-1]
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, channels, self.filters),
            initializer=initializer(self.kernel_initializer),
            autocast=False,  # it is standardised in float32, then rounded
        )

    def standardized_kernel(self) -> Tensor:
        """The kernel that the convolution uses, in float32."""
        mean = ops.mean(self.kernel, axis=(0, 1, 2), keepdims=True)
        centred = self.kernel - mean
        variance = ops.mean(ops.square(centred), axis=(0, 1, 2), keepdims=True)
        if self.standardization == "std":
            return centred / (ops.sqrt(variance) + self.epsilon)
        return centred * ops.rsqrt(variance + self.epsilon)

    def call(self, images: Tensor) -> Tensor:
        kernel = ops.cast(self.standardized_kernel(), self.compute_dtype)
        return kernels.convolve(images, kernel, strides=self.strides, padding=self.padding)

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        batch, *size, _ = images_shape
        sides = zip(size, self.kernel_size, self.strides, strict=True)
        return (batch, *(self._output_side(*side) for side in sides), self.filters)

    def _output_side(self, pixels, kernel, stride):
        if pixels is None:
            return None
        if self.padding == "same":
            return -(-pixels // stride)
        return (pixels + 2 * self.padding - kernel) // stride + 1

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "standardization": self.standardization,
            "epsilon": self.epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
