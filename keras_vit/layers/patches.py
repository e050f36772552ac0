"""Images to patch embeddings."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers.initial_values import ValuesByNumPy, initializer
from keras_vit.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchEmbedding(ValuesByNumPy, keras.layers.Layer):
    """Cuts images into patches and projects each patch linearly.

    Source: ViT (arXiv 2010.11929), section 3.1, equation 1. The kernel has the
    layout of the convolution that the original code uses for it,
    `(patch height, patch width, channels, hidden_dim)`.

    Args:
        patch_size: int or (height, width), in pixels.
        hidden_dim: int, width of the embeddings.
        data_format: `"channels_last"` or `"channels_first"`, of the images only;
            `None` takes `keras.config.image_data_format()`.
        use_bias: bool, whether the projection has a bias.
        kernel_initializer: initializer of the projection's kernel. The default is
            that of the original code's convolution.
        bias_initializer: initializer of the projection's bias.

    Input shape:
        (batch, height, width, channels), or (batch, channels, height, width) with
        `data_format="channels_first"`. Height and width may be `None`.

    Output shape:
        (batch, rows, columns, hidden_dim), in either data format.

    Raises:
        ValueError: if an image's height or width is not divisible by the patch's.

    Example:

    >>> PatchEmbedding(patch_size=16, hidden_dim=768)(np.zeros((1, 224, 224, 3))).shape
    (1, 14, 14, 768)
    """

    def __init__(
        self,
        patch_size: int | tuple[int, int],
        hidden_dim: int,
        *,
        data_format: str | None = None,
        use_bias: bool = True,
        kernel_initializer="lecun_normal",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.patch_size = arguments.pair(patch_size, "patch_size")
        self.hidden_dim = arguments.positive(hidden_dim, "hidden_dim")
        self.data_format = arguments.image_data_format(data_format)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, images_shape: Shape) -> None:
        channel_axis = -1 if self.data_format == "channels_last" else 1
        channels = images_shape[channel_axis]
        if channels is None:
            raise ValueError(
                "The number of channels of the images must be known to build "
                f"`PatchEmbedding`. Received: images_shape={tuple(images_shape)}, "
                f"data_format={self.data_format!r}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={channel_axis: channels})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.patch_size, channels, self.hidden_dim),
            initializer=initializer(self.kernel_initializer),
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.hidden_dim,),
                initializer=self.bias_initializer,
            )

    def call(self, images: Tensor) -> Tensor:
        images = ops.cast(images, self.compute_dtype)  # images may be integers
        self._grid_size(ops.shape(images))  # checks it
        # Cut and multiply instead of convolving: the same sum, and it runs with
        # channels_first on every backend (TensorFlow's CPU convolution does not).
        patches = cut_patches(images, self.patch_size, self.data_format)
        kernel = ops.reshape(self.kernel, (-1, self.hidden_dim))  # (patch, hidden_dim)
        embeddings = ops.matmul(patches, kernel)  # (batch, rows, columns, hidden_dim)
        return embeddings + self.bias if self.use_bias else embeddings

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        rows, columns = self._grid_size(images_shape)
        return (images_shape[0], rows, columns, self.hidden_dim)

    def _grid_size(self, images_shape):
        """(rows, columns) of the patches, `None` where a size is unknown."""
        if self.data_format == "channels_last":
            size = images_shape[1:3]
        else:
            size = images_shape[2:4]
        for pixels, patch in zip(size, self.patch_size, strict=True):
            if isinstance(pixels, int) and pixels % patch:
                raise ValueError(
                    "Image height and width must be divisible by the patch's. "
                    f"Received: images of {size[0]} x {size[1]} pixels (height x "
                    f"width, data_format={self.data_format!r}) for patches of "
                    f"{self.patch_size[0]} x {self.patch_size[1]}. Resize or crop the "
                    "images, or choose another `patch_size`."
                )
        return tuple(
            None if pixels is None else pixels // patch
            for pixels, patch in zip(size, self.patch_size, strict=True)
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "hidden_dim": self.hidden_dim,
            "data_format": self.data_format,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def cut_patches(
    images: Tensor, patch_size: tuple[int, int], data_format: str = "channels_last"
) -> Tensor:
    """The pixels of each patch, in a row.

    Args:
        images: (batch, height, width, channels), or (batch, channels, height, width) with
            `data_format="channels_first"`.
        patch_size: (height, width), in pixels, divisors of the image's.
        data_format: `"channels_last"` or `"channels_first"`.

    Returns:
        (batch, rows, columns, pixels), the pixels by row, column and channel.
    """
    patch_height, patch_width = patch_size
    if data_format == "channels_last":
        _, height, width, channels = ops.shape(images)
        axes = (0, 1, 3, 2, 4, 5)
    else:
        _, channels, height, width = ops.shape(images)
        axes = (0, 2, 4, 3, 5, 1)
    rows, columns = height // patch_height, width // patch_width
    cut = (rows, patch_height, columns, patch_width)
    cut = (*cut, channels) if data_format == "channels_last" else (channels, *cut)
    patches = ops.transpose(ops.reshape(images, (-1, *cut)), axes)
    # (batch, rows, columns, patch_height, patch_width, channels)
    return ops.reshape(patches, (-1, rows, columns, patch_height * patch_width * channels))
