"""Root and units of ResNets with standardised convolutions and group norms."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers import kernels
from keras_vit.layers.normalization import GroupNormalization
from keras_vit.layers.standardized_conv import STANDARDIZATIONS, StandardizedConv2D
from keras_vit.layers.trainability import Composite
from keras_vit.types import Shape, Tensor

GROUPS = 32
EXPANSION = 4  # channels of a unit's output / channels of its 3 x 3 convolution


class _Part(Composite, keras.layers.Layer):
    """Base of root and units: their common arguments, convolutions and norms."""

    def __init__(
        self,
        filters: int,
        *,
        group_norm_epsilon: float = 1e-6,
        standardization: str = "std",
        standardization_epsilon: float | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = arguments.positive(filters, "filters")
        if filters % GROUPS:
            raise ValueError(
                f"`filters` must be divisible by {GROUPS}, the number of groups of a "
                f"group norm. Received: filters={filters}"
            )
        self.group_norm_epsilon = group_norm_epsilon
        self.standardization = arguments.one_of(
            standardization, STANDARDIZATIONS, "standardization"
        )
        self.standardization_epsilon = standardization_epsilon

    def _conv(self, name, inputs_shape, filters, kernel_size, strides=1, padding="same"):
        conv = StandardizedConv2D(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            standardization=self.standardization,
            epsilon=self.standardization_epsilon,
            dtype=self.dtype_policy,
            name=name,
        )
        conv.build(inputs_shape)
        return conv, conv.compute_output_shape(inputs_shape)

    def _norm(self, name, inputs_shape, gamma_initializer="ones"):
        norm = GroupNormalization(
            GROUPS,
            epsilon=self.group_norm_epsilon,
            gamma_initializer=gamma_initializer,
            dtype="float32",  # also its scale and offset, under every policy
            name=name,
        )
        norm.build(inputs_shape)
        return norm

    def _apply(self, norm, images):
        return ops.cast(norm(images), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "group_norm_epsilon": self.group_norm_epsilon,
            "standardization": self.standardization,
            "standardization_epsilon": self.standardization_epsilon,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class ResNetRoot(_Part):
    """A 7 x 7 convolution and a 3 x 3 max-pooling, of stride 2 each.

    Source: the code of the hybrids of ViT (arXiv 2010.11929) and of BiT (arXiv
    1912.11370). The hybrids' root has a group norm and a ReLU between the two, and
    TensorFlow's padding; BiT's root has neither, and zeros on every side.

    Args:
        filters: int, number of output channels, divisible by 32.
        pre_activation: bool, True for BiT's root.
        group_norm_epsilon: float, added to the variance in the group norm, 1e-6 if not
            given.
        standardization: `"std"` (if not given) or `"variance"`, see `StandardizedConv2D`.
        standardization_epsilon: float, see `StandardizedConv2D`.

    Input shape:
        (batch, height, width, channels). Height and width may be `None`.

    Output shape:
        (batch, height / 4, width / 4, filters), rounded up at each of the two halvings.
    """

    def __init__(self, filters: int, *, pre_activation: bool = False, **kwargs):
        super().__init__(filters, **kwargs)
        self.pre_activation = pre_activation

    def build(self, images_shape: Shape) -> None:
        padding = 3 if self.pre_activation else "same"
        self.conv, shape = self._conv("conv", images_shape, self.filters, 7, 2, padding)
        if not self.pre_activation:
            self.norm = self._norm("norm", shape)

    def call(self, images: Tensor) -> Tensor:
        images = self.conv(ops.cast(images, self.compute_dtype))  # images may be integers
        if self.pre_activation:
            # These zeros count in the maximum: no ReLU has removed negative values.
            images = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        else:
            images = ops.relu(self._apply(self.norm, images))
        padding = "valid" if self.pre_activation else "same"
        return kernels.max_pool(images, (3, 3), strides=(2, 2), padding=padding)

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        batch, *size, _ = images_shape
        return (batch, *map(_halved, map(_halved, size)), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pre_activation": self.pre_activation}


def _halved(pixels):
    return None if pixels is None else -(-pixels // 2)


class _Unit(_Part):
    """Three convolutions, 1 x 1, 3 x 3 and 1 x 1, beside a shortcut."""

    def __init__(self, filters: int, *, strides: int = 1, **kwargs):
        super().__init__(filters, **kwargs)
        self.strides = arguments.positive(strides, "strides")

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        batch, *size, _ = images_shape
        size = (None if side is None else -(-side // self.strides) for side in size)
        return (batch, *size, EXPANSION * self.filters)

    def _has_projection(self, images_shape):
        return self.strides > 1 or images_shape[-1] != EXPANSION * self.filters

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "strides": self.strides}


@keras.saving.register_keras_serializable(package="keras_vit")
class BottleneckUnit(_Unit):
    """A bottleneck unit of a ResNet, as the hybrids of ViT have it.

    Source: ResNet (arXiv 1512.03385), section 4.1, with standardised convolutions and
    group norms (ViT, arXiv 2010.11929, section 3.1). The last group norm starts with a
    scale of zero, as in the original code.

    Args:
        filters: int, channels of the 3 x 3 convolution, divisible by 32.
        strides: int, stride of the 3 x 3 convolution, 1 if not given.
        group_norm_epsilon: float, added to the variance in the group norms, 1e-6 if not
            given.
        standardization: `"std"` or `"variance"` (the former if not given), see
            `StandardizedConv2D`.
        standardization_epsilon: float, see `StandardizedConv2D`.

    Input shape:
        (batch, height, width, channels). Height and width may be `None`.

    Output shape:
        (batch, height / strides, width / strides, 4 * filters), rounded up.
    """

    def build(self, images_shape: Shape) -> None:
        filters, outputs = self.filters, EXPANSION * self.filters
        self.conv_1, shape = self._conv("conv_1", images_shape, filters, 1)
        self.norm_1 = self._norm("norm_1", shape)
        self.conv_2, shape = self._conv("conv_2", shape, filters, 3, self.strides)
        self.norm_2 = self._norm("norm_2", shape)
        self.conv_3, shape = self._conv("conv_3", shape, outputs, 1)
        self.norm_3 = self._norm("norm_3", shape, gamma_initializer="zeros")
        self.shortcut_conv = None
        if self._has_projection(images_shape):
            self.shortcut_conv, shape = self._conv(
                "shortcut_conv", images_shape, outputs, 1, self.strides
            )
            self.shortcut_norm = self._norm("shortcut_norm", shape)

    def call(self, images: Tensor) -> Tensor:
        shortcut = images
        if self.shortcut_conv is not None:
            shortcut = self._apply(self.shortcut_norm, self.shortcut_conv(images))
        images = ops.relu(self._apply(self.norm_1, self.conv_1(images)))
        images = ops.relu(self._apply(self.norm_2, self.conv_2(images)))
        return ops.relu(shortcut + self._apply(self.norm_3, self.conv_3(images)))


@keras.saving.register_keras_serializable(package="keras_vit")
class PreActivationUnit(_Unit):
    """A bottleneck unit of a ResNet-v2, whose norms and ReLUs precede the convolutions.

    Source: *Identity Mappings in Deep Residual Networks* (arXiv 1603.05027), as BiT
    (arXiv 1912.11370, section 3.1) uses it.

    Args:
        filters: int, channels of the 3 x 3 convolution, divisible by 32.
        strides: int, stride of the 3 x 3 convolution, 1 if not given.
        group_norm_epsilon: float, added to the variance in the group norms, 1e-5 if not
            given.
        standardization: `"std"` or `"variance"` (the latter if not given), see
            `StandardizedConv2D`.
        standardization_epsilon: float, see `StandardizedConv2D`.

    Input shape:
        (batch, height, width, channels), channels divisible by 32. Height and width may
        be `None`.

    Output shape:
        (batch, height / strides, width / strides, 4 * filters), rounded up.
    """

    def __init__(
        self,
        filters: int,
        *,
        group_norm_epsilon: float = 1e-5,
        standardization: str = "variance",
        **kwargs,
    ):
        super().__init__(
            filters,
            group_norm_epsilon=group_norm_epsilon,
            standardization=standardization,
            **kwargs,
        )

    def build(self, images_shape: Shape) -> None:
        filters, outputs = self.filters, EXPANSION * self.filters
        self.norm_1 = self._norm("norm_1", images_shape)
        self.conv_1, shape = self._conv("conv_1", images_shape, filters, 1)
        self.norm_2 = self._norm("norm_2", shape)
        self.conv_2, shape = self._conv(
            "conv_2", shape, filters, 3, self.strides, padding=1
        )
        self.norm_3 = self._norm("norm_3", shape)
        self.conv_3, _ = self._conv("conv_3", shape, outputs, 1)
        self.shortcut_conv = None
        if self._has_projection(images_shape):
            self.shortcut_conv, _ = self._conv(
                "shortcut_conv", images_shape, outputs, 1, self.strides, padding=0
            )

    def call(self, images: Tensor) -> Tensor:
        activated = ops.relu(self._apply(self.norm_1, images))
        shortcut = images
        if self.shortcut_conv is not None:
            shortcut = self.shortcut_conv(activated)
        images = self.conv_1(activated)
        images = self.conv_2(ops.relu(self._apply(self.norm_2, images)))
        images = self.conv_3(ops.relu(self._apply(self.norm_3, images)))
        return shortcut + images
