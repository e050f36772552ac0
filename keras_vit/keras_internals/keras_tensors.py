"""Assumption: a symbolic tensor tells in `_keras_history` which layer it comes from.

Keras has no public way to tell a `keras.Input` from the output of another layer.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from typing import Any

import keras


def is_input(tensor: Any) -> bool:
    """True if a tensor is what `keras.Input` returns."""
    operation = getattr(tensor, "_keras_history", (None,))[0]
    return isinstance(operation, keras.layers.InputLayer)
