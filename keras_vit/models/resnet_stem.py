"""ResNets: the stem of a hybrid Vision Transformer, and BiT."""

from collections.abc import Collection, Mapping
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.layers.resnet import (
    EXPANSION,
    GROUPS,
    BottleneckUnit,
    PreActivationUnit,
    ResNetRoot,
)
from keras_vit.layers.standardized_conv import STANDARDIZATIONS, default_epsilon
from keras_vit.types import Tensor

ROOT_FILTERS = 64
# Defaults of the description of a stem.
DEFAULTS = {
    "width_factor": 1,
    "group_norm_epsilon": 1e-6,
    "standardization": "std",
    "standardization_epsilon": None,
}


def checked_stem(stem: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The description of a stem with all of its keys.

    Raises:
        ValueError: if it is none.
    """
    if stem is None:
        return None
    if not isinstance(stem, Mapping) or "num_units" not in stem:
        raise ValueError(
            "`stem` must be None or a dictionary with 'num_units', the number of units of "
            f"each stage, such as {{'num_units': (3, 4, 9)}}. Received: stem={stem!r}"
        )
    if unknown := set(stem) - {"num_units", *DEFAULTS}:
        raise ValueError(
            f"`stem` may have 'num_units', {', '.join(map(repr, DEFAULTS))}. Received "
            f"also: {', '.join(map(repr, sorted(unknown)))}"
        )
    stem = {"num_units": (), **DEFAULTS, **stem}
    stem["num_units"] = checked_units(stem["num_units"])
    checked_width(stem["width_factor"])
    arguments.one_of(stem["standardization"], STANDARDIZATIONS, "standardization")
    if stem["standardization_epsilon"] is None:
        stem["standardization_epsilon"] = default_epsilon(stem["standardization"])
    return stem


def checked_units(num_units: Collection[int]) -> tuple[int, ...]:
    """`num_units` as a tuple of positive integers; a ValueError otherwise."""
    for units in (num_units := tuple(num_units)):
        arguments.positive(units, "num_units")
    return num_units


def checked_width(width_factor: float) -> int:
    """Channels of the root, `ROOT_FILTERS` times the factor.

    Raises:
        ValueError: if they cannot be split into the groups of a group norm.
    """
    filters = int(ROOT_FILTERS * width_factor)
    if filters <= 0 or filters % GROUPS:
        raise ValueError(
            f"`width_factor` must give the root ({ROOT_FILTERS} channels times it) a "
            f"multiple of {GROUPS} channels, as many groups as a group norm has. "
            f"Received: width_factor={width_factor}"
        )
    return filters


def resnet(
    images: Tensor,
    num_units: Collection[int],
    width_factor: float,
    *,
    pre_activation: bool = False,
    prefix: str = "",
    policy: keras.DTypePolicy,
    **options: Any,
) -> Tensor:
    """Passes images through a root and stages of units.

    Args:
        images: (batch, height, width, channels).
        num_units: number of units of each stage.
        width_factor: see `checked_width`.
        pre_activation: bool, True for BiT's root and units.
        prefix: str, before the names of the layers: `root`, `stage_0_unit_0`, ….
        policy: dtype policy of the layers.
        **options: arguments of root and units.

    Returns:
        The feature map, (batch, rows, columns, channels).
    """
    filters = checked_width(width_factor)
    options["dtype"] = policy
    unit_layer = PreActivationUnit if pre_activation else BottleneckUnit
    images = ResNetRoot(
        filters, pre_activation=pre_activation, name=f"{prefix}root", **options
    )(images)
    for stage, units in enumerate(num_units):
        for unit in range(units):
            images = unit_layer(
                filters * 2**stage,
                strides=2 if stage and not unit else 1,
                name=f"{prefix}stage_{stage}_unit_{unit}",
                **options,
            )(images)
    return images


def stride(stem: Mapping[str, Any] | None) -> int:
    """Pixels of the image for each pixel of a stem's feature map, in height and width."""
    return 2 ** (1 + max(1, len(stem["num_units"]))) if stem else 1


def map_size(
    image_size: tuple[int, int], stem: Mapping[str, Any] | None
) -> tuple[int, int]:
    """(height, width) of a stem's feature map, or of the image if there is no stem.

    Each halving rounds up, which comes to rounding up once.
    """
    return tuple(-(-pixels // stride(stem)) for pixels in image_size)


def count_resnet_parameters(
    num_units: Collection[int],
    width_factor: float,
    *,
    channels: int = 3,
    pre_activation: bool = False,
) -> tuple[int, int]:
    """Number of parameters of root and stages, and number of channels of their output."""
    filters = inputs = checked_width(width_factor)
    count = 7 * 7 * channels * filters + 2 * filters * (not pre_activation)
    for stage, units in enumerate(num_units):
        middle = filters * 2**stage
        outputs = EXPANSION * middle
        projects = stage > 0 or inputs != outputs  # its first unit
        count += _count_unit(inputs, middle, outputs, projects, pre_activation)
        count += (units - 1) * _count_unit(outputs, middle, outputs, False, pre_activation)
        inputs = outputs
    return count, inputs


def _count_unit(inputs, middle, outputs, projects, pre_activation):
    convolutions = inputs * middle + 9 * middle**2 + middle * outputs
    convolutions += inputs * outputs * projects
    norms = 2 * middle + (inputs if pre_activation else outputs * (1 + projects))
    return convolutions + 2 * norms
