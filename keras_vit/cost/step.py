"""The steps of a forward pass, and those that all models have."""

from dataclasses import dataclass
from math import prod

FLOAT32 = 4  # bytes of a number


@dataclass(frozen=True)
class Step:
    """An operation of the forward pass of one image.

    Attributes:
        part: of the model, such as `"mlp"`.
        alive: bytes of the tensors that are in memory while it runs.
        multiply_accumulates: 0 where it is no matrix product.
    """

    part: str
    alive: int
    multiply_accumulates: int = 0


def of_images(c):
    """The images as they come, in float32, and as the first layer takes them."""
    numbers = prod(c.image_size) * c.channels
    yield Step("images", numbers * FLOAT32)
    if c.include_preprocessing:
        yield Step("images", 2 * numbers * FLOAT32)
    if c.number != FLOAT32:
        yield Step("images", numbers * (FLOAT32 + c.number))


def of_head(width, c):
    """The head, in float32, if there is one."""
    if c.classes:
        yield Step("head", (width + c.classes) * FLOAT32, width * c.classes)
