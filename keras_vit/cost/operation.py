"""An operation of the forward pass, and the operations that all models share.

In this room `c` is a model's fields and cost options (see `inference.cost`), and `held` the
bytes of tensors that later operations still need.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace

FLOAT32 = 4  # bytes of a number


@dataclass(frozen=True)
class Operation:
    """An operation of the forward pass of one image.

    Attributes:
        part: part of the model, such as `"mlp"`.
        live_bytes: bytes of the tensors that are in memory while it runs.
        multiply_accumulates: 0 unless it is a matrix product or a convolution.
    """

    part: str
    live_bytes: int
    multiply_accumulates: int = 0


def image_operations(c: SimpleNamespace) -> Iterator[Operation]:
    """Reads images in float32, preprocesses and casts them for the first layer."""
    numbers = prod(c.image_size) * c.channels
    yield Operation("images", numbers * FLOAT32)
    if c.include_preprocessing:
        yield Operation("images", 2 * numbers * FLOAT32)
    if c.number_bytes != FLOAT32:
        yield Operation("images", numbers * (FLOAT32 + c.number_bytes))


def head_operations(width: int, c: SimpleNamespace) -> Iterator[Operation]:
    """The head, in float32; nothing without classes."""
    if c.classes:
        yield Operation("head", (width + c.classes) * FLOAT32, width * c.classes)
