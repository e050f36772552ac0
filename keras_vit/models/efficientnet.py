"""EfficientNet, whose L2 of *Noisy Student* the ViT paper compares with."""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.keras_internals import efficientnet_network
from keras_vit.layers.initial_values import initializer
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
from keras_vit.types import Tensor
from keras_vit.weight_paths import automatic_name

POOLINGS = ("gap", None)
DIVISOR = 8  # of every number of channels
STEM_FILTERS, TOP_FILTERS = 32, 1280  # of EfficientNet-B0
_INITIALIZERS = ("kernel_initializer", "depthwise_initializer")


@keras.saving.register_keras_serializable(package="keras_vit")
class EfficientNet(ImageModel):
    """An EfficientNet of any size, built by the function of `keras.applications`.

    A functional model whose config is its arguments. Source: EfficientNet (arXiv
    1905.11946); its L2 is of *Self-training with Noisy Student* (arXiv 1911.04252). The
    layers, in the order in which an image passes them: `preprocessing` (if included),
    `stem_conv`, `stem_bn`, `stem_activation`, those of the blocks,
    `stage_0_unit_0_dwconv`, …, `top_conv`, `top_bn`, `top_activation`, `pooling`,
    `top_dropout`, `head`.

    Args:
        image_size: int or (height, width), in pixels, at least 32.
        num_blocks: number of blocks of each of the seven stages, such as (1, 2, 2, 3, 3,
            4, 1) of B0.
        width_factor: number, by which the channels of B0 are multiplied, rounded to
            multiples of 8.
        classes: int, outputs of the head; 0 for no head.
        pooling: `"gap"` (or `"avg"`), the mean of the feature map, or `None`: the model
            returns the map.
        classifier_activation: activation of the head; `None` returns logits.
        dropout_rate: float in [0, 1), dropout before the head, 0.5 in Noisy Student.
        drop_path_rate: float in [0, 1), stochastic depth; it grows linearly from 0 at the
            first block, 0.2 in Noisy Student.
        image_mean: float or one for each channel, subtracted from the pixel values (on a
            scale from 0 to 1) of the images that the model is trained on.
        image_std: float or one for each channel, the divisor after that.
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
            channels. Height and width must be given.
        input_tensor: a `keras.Input` to build the model on; not part of the config.
        data_format: `"channels_last"` or `"channels_first"`, of the images; `None` takes
            `keras.config.image_data_format()`. Feature maps are channels_last always.
        dtype: dtype policy of all layers, `None` for the global one. Under any policy
            the head computes in float32.
        name: str, the model's name, with which the paths of its weights begin; `None` for
            one of Keras' numbered names.
        trainable: bool, whether the model's weights are to be trained.

    Returns:
        A model that maps images, float or integer, to float32 (batch, classes); without
        a head to (batch, channels), or with `pooling=None` to (batch, rows, columns,
        channels).

    Raises:
        ValueError: if an argument is out of its range, or two do not fit together.
        AssumptionError: if this Keras has no such function.

    Example:

    >>> model = EfficientNet(32, num_blocks=(1,) * 7, width_factor=0.25, classes=10)
    >>> model(np.zeros((1, 32, 32, 3))).shape
    (1, 10)
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        num_blocks: tuple[int, ...],
        width_factor: float = 1,
        *,
        classes: int = 0,
        pooling: str | None = "gap",
        classifier_activation: str | Callable | None = "softmax",
        dropout_rate: float = 0.5,
        drop_path_rate: float = 0.2,
        image_mean: float | tuple[float, ...] = 0.5,
        image_std: float | tuple[float, ...] = 0.5,
        include_preprocessing: bool = False,
        class_names: Sequence[str] | None = None,
        probabilities: str | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        input_shape: tuple[int, ...] | None = None,
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
            *("image_size", "num_blocks", "data_format", "classifier_activation"),
            *("image_mean", "image_std", "pooling"),
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
    arguments.rate(c.dropout_rate, "dropout_rate")
    arguments.rate(c.drop_path_rate, "drop_path_rate")
    if min(c.image_size) < 32 or None in c.input_shape:
        raise ValueError(
            "An EfficientNet is built for one image size, of 32 pixels or more: its "
            f"padding depends on it. Received: image_size={c.image_size}, "
            f"input_shape={c.input_shape}"
        )
    c.num_blocks = tuple(arguments.positive(n, "num_blocks") for n in c.num_blocks)
    if len(c.num_blocks) != len(efficientnet_network.stages()):
        raise ValueError(
            "`num_blocks` must have a number for each of the "
            f"{len(efficientnet_network.stages())} stages. Received: "
            f"num_blocks={c.num_blocks}"
        )
    if not c.width_factor > 0:
        raise ValueError(
            f"`width_factor` must be positive. Received: width_factor={c.width_factor}"
        )
    return c


def rounded_filters(filters: int, width_factor: float) -> int:
    """Number of channels that a factor gives, a multiple of 8.

    Source: EfficientNet's code: rounded to the nearest, and up where that loses more than a
    tenth.
    """
    wanted = filters * width_factor
    rounded = max(DIVISOR, int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded + DIVISOR * (rounded < 0.9 * wanted)


def blocks(
    num_blocks: Collection[int], width_factor: float
) -> list[tuple[int, dict[str, Any]]]:
    """(stage, arguments) of each block, as Keras' function builds them.

    The arguments are those of `keras_internals.efficientnet_network.stages`, with the
    channels of this width, and `squeezed`, the channels inside its squeeze-and-excitation.
    """
    found = []
    for i, (stage, number) in enumerate(
        zip(efficientnet_network.stages(), num_blocks, strict=True)
    ):
        inputs, outputs = (
            rounded_filters(stage[f"filters_{end}"], width_factor) for end in ("in", "out")
        )
        for unit in range(number):
            filters_in = outputs if unit else inputs
            block = {
                "filters_in": filters_in,
                "filters_out": outputs,
                "strides": 1 if unit else stage["strides"],
                "squeezed": max(1, int(filters_in * stage["se_ratio"])),
            }
            found.append((i, {**stage, **block}))
    return found


def _feature_map(images, c, policy):
    if c.include_preprocessing:
        images = rescaling(c)(images)
    images = to_channels_last(images, c)

    def copy(layer, name):
        new = layer.from_config({**layer.get_config(), "name": name, "dtype": policy})
        for attribute in _INITIALIZERS:
            if hasattr(new, attribute):
                setattr(new, attribute, initializer(getattr(new, attribute)))
        return new

    return efficientnet_network.feature_map(
        images,
        num_blocks=c.num_blocks,
        width_factor=c.width_factor,
        drop_path_rate=c.drop_path_rate,
        copy=copy,
    )


def _head(features, c, policy):
    if c.pooling is None:
        return features
    features = keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype=policy, name="pooling"
    )(features)
    if c.dropout_rate:
        features = keras.layers.Dropout(c.dropout_rate, dtype=policy, name="top_dropout")(
            features
        )
    return head(features, c) if c.classes else features
