"""Assumption: `keras.src` tells whether a stateless or a symbolic scope is open.

`keras.StatelessScope` is public; whether one is open, is not. Keras opens one where it
traces a step on JAX, and a symbolic one where it asks for shapes alone.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from keras_vit.keras_internals.assumption import internal


def in_stateless_scope() -> bool:
    """True where variables are not changed, as in a step that Keras traces."""
    name, feature = "in_stateless_scope", "Building a layer on JAX"
    return internal("backend.common.stateless_scope", name, feature)()


def in_symbolic_scope() -> bool:
    """True where Keras computes shapes and dtypes alone."""
    name, feature = "in_symbolic_scope", "Splitting a model over devices"
    return internal("backend.common.symbolic_scope", name, feature)()
