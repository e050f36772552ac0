"""Argument checks that every room shares, with one wording of their errors."""

import numbers
from collections.abc import Collection, Iterable
from typing import TypeVar

import keras

T = TypeVar("T")


def pair(value: int | Collection[int], name: str) -> tuple[int, int]:
    """Returns `value` as (height, width); an int stands for both.

    Raises:
        ValueError: if `value` is not one or two positive integers.
    """
    values = tuple(value) if isinstance(value, Collection) else (value, value)
    if len(values) != 2 or not all(isinstance(v, int) and v > 0 for v in values):
        raise ValueError(
            f"`{name}` must be a positive integer or a pair (height, width) of "
            f"positive integers. Received: {name}={value!r}"
        )
    return values


def positive(value: int, name: str) -> int:
    """Returns `value`, if it is a positive integer; raises a ValueError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return value


def rate(value: float, name: str) -> float:
    """Returns `value`, if it is a rate in [0, 1); raises a ValueError otherwise."""
    if not isinstance(value, numbers.Real) or not 0 <= value < 1:
        raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={value!r}")
    return value


def per_channel(
    value: float | Iterable[float], channels: int, name: str
) -> float | tuple[float, ...]:
    """Returns `value` as one number, or as one for each of several channels.

    Raises:
        ValueError: if the number of values is not the number of channels.
    """
    if isinstance(value, int | float):
        return float(value)
    values = tuple(float(v) for v in value)
    if len(values) != channels:
        raise ValueError(
            f"`{name}` must be one number, or one for each of the {channels} channels. "
            f"Received: {name}={values}"
        )
    return values[0] if len(set(values)) == 1 else values


def one_of(value: T, choices: Collection[T], name: str) -> T:
    """Returns `value`, if it is among `choices`; raises a ValueError that lists them."""
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. "
            f"Received: {name}={value!r}"
        )
    return value


def image_data_format(value: str | None) -> str:
    """Returns `value`, or Keras' default for `None`; raises a ValueError if unknown."""
    value = value or keras.config.image_data_format()
    one_of(value, ("channels_last", "channels_first"), "data_format")
    return value


def head_dim(hidden_dim: int, num_heads: int) -> int:
    """Returns the width of a head; raises a ValueError if heads do not divide the width."""
    if hidden_dim % num_heads:
        raise ValueError(
            "`hidden_dim` must be divisible by `num_heads`, as each head takes an "
            f"equal share. Received: hidden_dim={hidden_dim}, num_heads={num_heads}"
        )
    return hidden_dim // num_heads
