"""Operations of the forward pass of a BiT, and of the ResNet of a hybrid."""

from collections.abc import Generator, Iterator
from math import prod
from types import SimpleNamespace
from typing import Any

from keras_vit.cost.operation import FLOAT32, Operation, head_operations, image_operations
from keras_vit.layers.resnet import EXPANSION
from keras_vit.models.resnet_stem import checked_width


def bit_operations(c: SimpleNamespace) -> Iterator[Operation]:
    """Forward pass of a `BiTResNet` with these fields."""
    yield from image_operations(c)
    rows, columns, channels = yield from resnet_operations(
        c, c.num_units, c.width_factor, pre_activation=True
    )
    numbers = rows * columns * channels
    yield from _group_norm("norm", 0, numbers, c)
    yield Operation("norm", 2 * numbers * c.number_bytes)
    if c.pooling:
        yield Operation("pooling", (numbers + channels) * c.number_bytes)
        yield from head_operations(channels, c)


def resnet_operations(
    c: SimpleNamespace,
    num_units: tuple[int, ...],
    width_factor: float,
    *,
    pre_activation: bool = False,
    part: str | None = None,
    **others: Any,
) -> Generator[Operation, None, tuple[int, int, int]]:
    """Root and stages; returns the shape of the feature map, (rows, columns, channels).

    Args:
        c: fields of the model.
        num_units: units of each stage.
        width_factor: factor of all widths.
        pre_activation: bool, whether it is a BiT rather than the ResNet of a hybrid.
        part: name of the part that all operations belong to; `None` makes the root and
            each stage a part.
        **others: further fields of the stem, which cost nothing.
    """
    filters = checked_width(width_factor)
    size = yield from _root(filters, pre_activation, part or "root", c)
    channels = filters
    unit = _pre_activation_unit if pre_activation else _bottleneck_unit
    for stage, units in enumerate(num_units):
        name = part or f"stage_{stage}"
        for i in range(units):
            strides = 2 if stage and not i else 1
            new = tuple(-(-side // strides) for side in size)
            yield from unit(name, size, new, channels, filters * 2**stage, c)
            size, channels = new, EXPANSION * filters * 2**stage
    return (*size, channels)


def _root(filters, pre_activation, part, c):
    """A 7 × 7 convolution and a 3 × 3 max-pooling; each halves the sides."""
    images = prod(c.image_size) * c.channels * c.number_bytes
    size = tuple(-(-side // 2) for side in c.image_size)
    numbers = prod(size) * filters
    padded = prod(_padded(c.image_size, 7, pre_activation)) * c.channels * c.number_bytes
    products = 49 * c.channels * numbers
    yield Operation(part, images + padded)
    yield Operation(part, padded + numbers * c.number_bytes, products)
    if not pre_activation:
        yield from _group_norm(part, 0, numbers, c)
        yield Operation(part, 2 * numbers * c.number_bytes)
    padded = prod(_padded(size, 3, pre_activation)) * filters
    yield Operation(part, (numbers + padded) * c.number_bytes)
    size = tuple(-(-side // 2) for side in size)
    yield Operation(part, (padded + prod(size) * filters) * c.number_bytes)
    return size


def _padded(size, kernel, every_side):
    """Sides after padding: on every side (BiT), or as TensorFlow's "same" at stride 2."""
    if every_side:
        return tuple(side + kernel - 1 for side in size)
    return tuple(max(side, 2 * -(-side // 2) + kernel - 2) for side in size)


def _group_norm(part, held, numbers, c):
    """Product and sum of a group norm, in float32."""
    yield Operation(part, held + 2 * numbers * FLOAT32)


def _bottleneck_unit(part, size, new, channels, filters, c):
    outputs = EXPANSION * filters
    inputs = prod(size) * channels * c.number_bytes
    shortcut = prod(new) * outputs
    kept = 0  # the unit's input, if the shortcut is another tensor
    if size != new or channels != outputs:
        kept = inputs
        products = shortcut * channels
        yield Operation(part, inputs + shortcut * c.number_bytes, products)
        yield from _group_norm(part, kept, shortcut, c)
    held = shortcut * c.number_bytes
    maps = _maps(size, new, channels, filters)
    for i, (numbers, products) in enumerate(maps):
        before = kept if i == 0 else maps[i - 1][0] * c.number_bytes
        yield Operation(part, held + before + numbers * c.number_bytes, products)
        yield from _group_norm(part, held, numbers, c)
        yield Operation(part, held + 2 * numbers * c.number_bytes)  # ReLU, or the last sum


def _pre_activation_unit(part, size, new, channels, filters, c):
    outputs = EXPANSION * filters
    inputs = prod(size) * channels
    held = inputs * c.number_bytes  # the shortcut
    has_projection = size != new or channels != outputs
    before = 0 if has_projection else held
    yield from _group_norm(part, before, inputs, c)
    yield Operation(part, before + 2 * inputs * c.number_bytes)
    if has_projection:
        held = prod(new) * outputs * c.number_bytes
        yield Operation(
            part, inputs * c.number_bytes + held, prod(new) * outputs * channels
        )
    before = inputs * c.number_bytes
    for i, (numbers, products) in enumerate(_maps(size, new, channels, filters)):
        if i:
            yield from _group_norm(part, held, before // c.number_bytes, c)
            yield Operation(part, held + 2 * before)
        if i == 1:
            padded = prod(side + 2 for side in size) * filters * c.number_bytes
            yield Operation(part, held + before + padded)
            before = padded
        yield Operation(part, held + before + numbers * c.number_bytes, products)
        before = numbers * c.number_bytes
    yield Operation(part, held + 2 * before)


def _maps(size, new, channels, filters):
    """Output numbers and multiply-accumulates of the three convolutions of a unit."""
    first, second = prod(size) * filters, prod(new) * filters
    third = EXPANSION * second
    return [
        (first, first * channels),
        (second, second * 9 * filters),
        (third, third * filters),
    ]
