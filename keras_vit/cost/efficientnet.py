"""Operations of the forward pass of an EfficientNet."""

from collections.abc import Iterator
from math import prod
from types import SimpleNamespace

from keras_vit.cost.operation import FLOAT32, Operation, head_operations, image_operations
from keras_vit.models.efficientnet import (
    STEM_FILTERS,
    TOP_FILTERS,
    blocks,
    rounded_filters,
)


def efficientnet_operations(c: SimpleNamespace) -> Iterator[Operation]:
    """Forward pass of an `EfficientNet` with these fields."""
    yield from image_operations(c)
    filters = rounded_filters(STEM_FILTERS, c.width_factor)
    size = tuple(-(-side // 2) for side in c.image_size)
    inputs = prod(c.image_size) * c.channels * c.number_bytes
    padded = _padded_bytes(c.image_size, c.channels, 3, c)
    yield Operation("stem", inputs + padded)
    numbers = prod(size) * filters
    products = 9 * c.channels * numbers
    yield Operation("stem", padded + numbers * c.number_bytes, products)
    yield from _norm_and_swish("stem", 0, numbers, c)
    for stage, block in blocks(c.num_blocks, c.width_factor):
        new = tuple(-(-side // block["strides"]) for side in size)
        yield from _block(f"stage_{stage}", size, new, block, c)
        size, filters = new, block["filters_out"]
    width = rounded_filters(TOP_FILTERS, c.width_factor)
    yield from _convolution("top", 0, prod(size), filters, width, c)
    numbers = prod(size) * width
    yield from _norm_and_swish("top", 0, numbers, c)
    if c.pooling:
        yield Operation("pooling", (numbers + width) * c.number_bytes)
        yield from head_operations(width, c)


def _block(part, size, new, block, c):
    """Expansion, depthwise convolution, squeeze-and-excitation, projection, and the sum."""
    inputs, outputs = block["filters_in"], block["filters_out"]
    strides, kernel = block["strides"], block["kernel_size"]
    has_shortcut = strides == 1 and inputs == outputs
    held = prod(size) * inputs * c.number_bytes * has_shortcut
    filters = inputs * block["expand_ratio"]
    before = prod(size) * filters * c.number_bytes
    if block["expand_ratio"] > 1:
        # A convolution's inputs are held already where they are the shortcut.
        yield from _convolution(part, 0, prod(size), inputs, filters, c)
        yield from _norm_and_swish(part, held, prod(size) * filters, c)
    elif has_shortcut:
        held = 0  # the inputs are both
    if strides == 2:
        padded = _padded_bytes(size, filters, kernel, c)
        yield Operation(part, held + before + padded)
        before = padded
    numbers = prod(new) * filters
    yield Operation(part, held + before + numbers * c.number_bytes, kernel**2 * numbers)
    if block["expand_ratio"] == 1 and has_shortcut:
        held = before
    yield from _norm_and_swish(part, held, numbers, c)
    held_here = held + numbers * c.number_bytes
    yield Operation(part, held_here + filters * c.number_bytes)
    yield from _convolution(part, held_here, 1, filters, block["squeezed"], c)
    yield Operation(part, held_here + 2 * block["squeezed"] * c.number_bytes)
    yield from _convolution(part, held_here, 1, block["squeezed"], filters, c)
    yield Operation(part, held_here + 2 * filters * c.number_bytes)
    yield Operation(part, held + (2 * numbers + filters) * c.number_bytes)
    yield from _convolution(part, held, prod(new), filters, outputs, c)
    results = prod(new) * outputs
    yield Operation(part, held + 2 * results * FLOAT32)
    if has_shortcut:
        yield Operation(part, held + 2 * results * c.number_bytes)


def _convolution(part, held, pixels, inputs, outputs, c):
    """A convolution of one pixel."""
    numbers = pixels * (inputs + outputs)
    yield Operation(part, held + numbers * c.number_bytes, pixels * inputs * outputs)


def _norm_and_swish(part, held, numbers, c):
    """A batch norm, in float32, and its activation."""
    yield Operation(part, held + 2 * numbers * FLOAT32)
    yield Operation(part, held + 2 * numbers * c.number_bytes)


def _padded_bytes(size, channels, kernel, c):
    """Bytes of an image padded as TensorFlow's "same" at stride 2."""
    padded = (2 * -(-side // 2) + kernel - 2 for side in size)
    return prod(padded) * channels * c.number_bytes
