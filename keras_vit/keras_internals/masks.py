"""Assumption: `keras.src.backend` reads and sets the mask of a tensor.

Masks travel with tensors in Keras; reading and setting them is not public.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from typing import Any

from keras_vit.keras_internals.assumption import internal

_FEATURE = "Putting together the outputs of several devices"


def mask(tensor: Any) -> Any:
    """The mask of a tensor, or `None`."""
    return internal("backend", "get_keras_mask", _FEATURE)(tensor)


def set_mask(tensor: Any, mask: Any) -> None:
    """Gives a tensor a mask."""
    internal("backend", "set_keras_mask", _FEATURE)(tensor, mask)
