"""Initial values, which a model that is about to be filled can do without."""

import contextlib
import contextvars

import keras

_WAITS = contextvars.ContextVar("waits_for_values", default=False)


@contextlib.contextmanager
def waiting_for_values():
    """Layers built inside start with zeros instead of drawing random numbers.

    For models that a checkpoint fills next: drawing takes longer than reading one
    (JAX compiles it for each shape).
    """
    token = _WAITS.set(True)
    try:
        yield
    finally:
        _WAITS.reset(token)


def initializer(usual) -> keras.initializers.Initializer:
    """The initializer `usual`, or that of zeros where values are to come."""
    return keras.initializers.get("zeros" if _WAITS.get() else usual)
