"""The ResNets of *Big Transfer*, which the ViT paper compares with."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.layers import GroupNormalization
from keras_vit.layers.resnet import GROUPS
from keras_vit.layers.standardized_conv import STANDARDIZATIONS, default_epsilon
from keras_vit.models.images import (
    ImageModel,
    check_head,
    check_images,
    config_of,
    head,
    image_input,
    rescaling,
    to_channels_last,
)
from keras_vit.models.resnet_stem import checked_units, checked_width, resnet
from keras_vit.types import Tensor
from keras_vit.weight_paths import automatic_name

POOLINGS = ("gap", None)


@keras.saving.register_keras_serializable(package="keras_vit")
class BiTResNet(ImageModel):
    """A ResNet-v2 with group norms and weight standardisation, of any size.

    A functional model whose config is its arguments. Source: BiT (arXiv 1912.11370),
    section 3.1. The layers, in the order in which an image passes them: `preprocessing`
    (if included), `root`, `stage_0_unit_0`, `stage_0_unit_1`, …, `norm`, `relu`,
    `pooling`, `head`.

    Args:
        image_size: int or (height, width), in pixels.
        num_units: number of units of each stage, such as (3, 4, 6, 3) of ResNet-50.
        width_factor: number, by which the channels of ResNet-50 are multiplied; the
            root's, 64 times it, must be divisible by 32.
        classes: int, outputs of the head; 0 for no head.
        pooling: `"gap"` (or `"avg"`), the mean of the feature map, or `None`: the model
            returns the map.
        classifier_activation: activation of the head; `None` returns logits.
        group_norm_epsilon: float, added to the variance in the group norms.
        standardization: `"std"` or `"variance"`, see `layers.StandardizedConv2D`.
        standardization_epsilon: float, see `layers.StandardizedConv2D`.
        image_mean: float or one for each channel, subtracted from the pixel values (on a
            scale from 0 to 1) of the images that the model is trained on.
        image_std: float or one for each channel, the divisor after that. Both 0.5 is the
            range [-1, 1] of Google's models.
        include_preprocessing: bool, whether the model itself subtracts and divides, and
            takes pixel values from 0 to 255.
        class_names: a name for each class, or `None` if they are unknown. This argument and
            the next two change nothing that the model computes: its file keeps them for
            programs that read it. With a new head `from_pretrained` leaves `class_names`
            and `probabilities` out.
        probabilities: `"softmax"` or `"sigmoid"`, the activation that makes probabilities
            of the outputs where `classifier_activation` is `None`.
        preprocessing: the preparation of images for evaluation, beside their size, mean
            and deviation: a dictionary of `"evaluation_crop"`, `"resize_factor"` and
            `"interpolation"` (see `data.Augmentation`), `"value_range"` and `"alpha"` (see
            `data.Pipeline`), and `"image_size"` where it is another than the model's;
            each may be left out.
        input_shape: shape of an image without the batch, `None` for `image_size` with 3
            channels. Height and width `None` accept any size.
        input_tensor: a `keras.Input` to build the model on; not part of the config.
        data_format: `"channels_last"` or `"channels_first"`, of the images; `None` takes
            `keras.config.image_data_format()`. Feature maps are channels_last always.
        dtype: dtype policy of all layers, `None` for the global one. Under any policy
            the standardisation of kernels, the norms and the head compute in float32.
        name: str, the model's name, with which the paths of its weights begin; `None` for
            one of Keras' numbered names.
        trainable: bool, whether the model's weights are to be trained.

    Returns:
        A model that maps images, float or integer, to float32 (batch, classes); without
        a head to (batch, channels), or with `pooling=None` to (batch, rows, columns,
        channels).

    Raises:
        ValueError: if an argument is out of its range, or two do not fit together.

    Example:

    >>> model = BiTResNet(32, num_units=(1, 1), width_factor=0.5, classes=10)
    >>> model(np.zeros((1, 32, 32, 3))).shape
    (1, 10)
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        num_units: tuple[int, ...],
        width_factor: float = 1,
        *,
        classes: int = 0,
        pooling: str | None = "gap",
        classifier_activation: str | Callable | None = "softmax",
        group_norm_epsilon: float = 1e-5,
        standardization: str = "variance",
        standardization_epsilon: float | None = None,
        image_mean: float | tuple[float, ...] = 0.5,
        image_std: float | tuple[float, ...] = 0.5,
        include_preprocessing: bool = False,
        class_names: Sequence[str] | None = None,
        probabilities: str | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        input_shape: tuple[int | None, ...] | None = None,
        input_tensor: Tensor | None = None,
        data_format: str | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        config = config_of(locals())
        fields = checked_fields(config)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())

        inputs = image_input(fields, input_tensor)
        name = name or automatic_name(type(self).__name__)
        with keras.name_scope(name):
            outputs = _head(_feature_map(inputs, fields, policy), fields, policy)
        super().__init__(inputs=inputs, outputs=outputs, name=name, trainable=trainable)

        resolved = (
            *("image_size", "num_units", "data_format", "classifier_activation"),
            *("image_mean", "image_std", "pooling", "standardization_epsilon"),
        )
        self._keep_config(config, fields, resolved, policy)


def checked_fields(config: dict[str, Any]) -> SimpleNamespace:
    """The fields of a config with defaults filled in, each in one form.

    Raises:
        ValueError: if a field is out of its range, or two do not fit together.
    """
    c = SimpleNamespace(**config)
    check_images(c)
    check_head(c, POOLINGS)
    arguments.one_of(c.standardization, STANDARDIZATIONS, "standardization")
    if c.standardization_epsilon is None:
        c.standardization_epsilon = default_epsilon(c.standardization)
    c.num_units = checked_units(c.num_units)
    if not c.num_units:
        raise ValueError(
            f"`num_units` must have at least one stage. Received: num_units={c.num_units}"
        )
    checked_width(c.width_factor)
    return c


def _feature_map(images, c, policy):
    if c.include_preprocessing:
        images = rescaling(c)(images)
    features = resnet(
        to_channels_last(images, c),
        c.num_units,
        c.width_factor,
        pre_activation=True,
        policy=policy,
        group_norm_epsilon=c.group_norm_epsilon,
        standardization=c.standardization,
        standardization_epsilon=c.standardization_epsilon,
    )
    # In float32 under every policy, as the norms of the units.
    features = GroupNormalization(
        GROUPS, epsilon=c.group_norm_epsilon, dtype="float32", name="norm"
    )(features)
    return keras.layers.ReLU(dtype=policy, name="relu")(features)


def _head(features, c, policy):
    if c.pooling is None:
        return features
    features = keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype=policy, name="pooling"
    )(features)
    return head(features, c) if c.classes else features
