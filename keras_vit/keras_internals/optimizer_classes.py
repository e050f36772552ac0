"""Assumption: Keras' own classes are in modules of `keras.src`, those of a backend in
`keras.src.backend`.

On torch `keras.optimizers.Adam(…)` makes an object of another class, which updates all
variables at once, has the same name and is not public.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import keras


def public_class(optimizer: keras.optimizers.Optimizer, ours: type) -> type:
    """The class of an optimizer that is the same on each backend.

    Args:
        optimizer: of a class of Keras, or of a subclass.
        ours: a class whose subclasses are passed over.
    """
    return next(
        base
        for base in type(optimizer).__mro__
        if issubclass(base, keras.optimizers.Optimizer)
        and not issubclass(base, ours)
        and not base.__module__.startswith("keras.src.backend.")
    )


def is_of_keras(optimizer_class: type) -> bool:
    """True if Keras itself defines a class."""
    return optimizer_class.__module__.startswith("keras.src.")
