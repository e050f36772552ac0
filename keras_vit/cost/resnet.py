"""The forward pass of a BiT, and of the ResNet of a hybrid, as steps.

`held` is bytes of what steps that follow need besides.
"""

from collections.abc import Iterator
from math import prod

from keras_vit.cost.step import FLOAT32, Step, of_head, of_images
from keras_vit.layers.resnet import EXPANSION
from keras_vit.models.resnet_stem import checked_width


def of_bit(c) -> Iterator[Step]:
    """The steps of a model with these fields."""
    yield from of_images(c)
    rows, columns, channels = yield from of_resnet(
        c, c.num_units, c.width_factor, pre_activation=True
    )
    numbers = rows * columns * channels
    yield from _group_norm("norm", 0, numbers, c)
    yield Step("norm", 2 * numbers * c.number)
    if c.pooling:
        yield Step("pooling", (numbers + channels) * c.number)
        yield from of_head(channels, c)


def of_resnet(c, num_units, width_factor, *, pre_activation=False, part=None, **others):
    """Root and stages, each a part if they are not one; gives the map's shape."""
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
    """A 7 x 7 convolution and a 3 x 3 max-pooling, which halve the sides."""
    images = prod(c.image_size) * c.channels * c.number
    size = tuple(-(-side // 2) for side in c.image_size)
    numbers = prod(size) * filters
    padded = prod(_padded(c.image_size, 7, pre_activation)) * c.channels * c.number
    products = 49 * c.channels * numbers
    yield Step(part, images + padded)
    yield Step(part, padded + numbers * c.number, products)
    if not pre_activation:
        yield from _group_norm(part, 0, numbers, c)
        yield Step(part, 2 * numbers * c.number)
    padded = prod(_padded(size, 3, pre_activation)) * filters
    yield Step(part, (numbers + padded) * c.number)
    size = tuple(-(-side // 2) for side in size)
    yield Step(part, (padded + prod(size) * filters) * c.number)
    return size


def _padded(size, kernel, every_side):
    """Sides with zeros on each (BiT), or as many as TensorFlow's "same" at stride 2."""
    if every_side:
        return tuple(side + kernel - 1 for side in size)
    return tuple(max(side, 2 * -(-side // 2) + kernel - 2) for side in size)


def _group_norm(part, held, numbers, c):
    """Its product and its sum, in float32."""
    yield Step(part, held + 2 * numbers * FLOAT32)


def _bottleneck_unit(part, size, new, channels, filters, c):
    outputs = EXPANSION * filters
    inputs = prod(size) * channels * c.number
    shortcut = prod(new) * outputs
    kept = 0  # the images, if the shortcut is another tensor
    if size != new or channels != outputs:
        kept = inputs
        products = shortcut * channels
        yield Step(part, inputs + shortcut * c.number, products)
        yield from _group_norm(part, kept, shortcut, c)
    held = shortcut * c.number
    maps = _maps(size, new, channels, filters)
    for i, (numbers, products) in enumerate(maps):
        before = kept if i == 0 else maps[i - 1][0] * c.number
        yield Step(part, held + before + numbers * c.number, products)
        yield from _group_norm(part, held, numbers, c)
        yield Step(part, held + 2 * numbers * c.number)  # ReLU, at last the sum


def _pre_activation_unit(part, size, new, channels, filters, c):
    outputs = EXPANSION * filters
    inputs = prod(size) * channels
    held = inputs * c.number  # the shortcut
    has_projection = size != new or channels != outputs
    before = 0 if has_projection else held
    yield from _group_norm(part, before, inputs, c)
    yield Step(part, before + 2 * inputs * c.number)
    if has_projection:
        held = prod(new) * outputs * c.number
        yield Step(part, inputs * c.number + held, prod(new) * outputs * channels)
    before = inputs * c.number
    for i, (numbers, products) in enumerate(_maps(size, new, channels, filters)):
        if i:
            yield from _group_norm(part, held, before // c.number, c)
            yield Step(part, held + 2 * before)
        if i == 1:
            padded = prod(side + 2 for side in size) * filters * c.number
            yield Step(part, held + before + padded)
            before = padded
        yield Step(part, held + before + numbers * c.number, products)
        before = numbers * c.number
    yield Step(part, held + 2 * before)


def _maps(size, new, channels, filters):
    """Numbers and multiply-accumulates of the three convolutions of a unit."""
    first, second = prod(size) * filters, prod(new) * filters
    third = EXPANSION * second
    return [
        (first, first * channels),
        (second, second * 9 * filters),
        (third, third * filters),
    ]
