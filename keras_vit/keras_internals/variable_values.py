"""Assumption: a `keras.Variable` keeps its array in `_value`, its dtype in `_dtype` and
its layout in `_layout`.

`Variable.value` is public, but is cast in an autocast scope and replaced in a stateless
one; `assign` converts, and splits the array again as the distribution says. There is no
public way to the array itself, to put another object in its place, or to the layout.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from typing import Any

import keras

from keras_vit.keras_internals.assumption import private

_FEATURE = "Reading the array of a variable"


def raw_value(variable: keras.Variable) -> Any:
    """The array of a variable, as it is stored."""
    return private(variable, "_value", _FEATURE)


def set_raw_value(variable: keras.Variable, value: Any) -> None:
    """Puts an object in the place of a variable's array, unchanged."""
    raw_value(variable)
    variable._value = value


def raw_dtype(variable: keras.Variable) -> str:
    """The dtype of a variable's array, whatever autocast makes of it."""
    return private(variable, "_dtype", _FEATURE)


def layout(variable: keras.Variable) -> Any:
    """The layout that a variable was given; `None` without one.

    Keras 3.15 keeps its `TensorLayout`, Keras 3.14 the sharding of JAX in it.
    """
    return getattr(variable, "_layout", None)


def sharding(variable: keras.Variable) -> Any:
    """The sharding of JAX that a variable was given; `None` without one."""
    given = layout(variable)
    return getattr(given, "backend_layout", given)
