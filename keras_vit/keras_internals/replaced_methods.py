"""Assumption: methods of Keras' classes can be replaced, and Keras calls the new ones.

Keras offers no hooks in its training loop. Whatever has to happen inside it takes the place
of a method, and calls the original one.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import functools
from collections.abc import Callable, Mapping

from keras_vit.keras_internals.assumption import private


def replace_methods(methods: Mapping[type, Mapping[str, Callable]], feature: str) -> None:
    """Has classes call `function(original, self, …)` in the place of their methods.

    Args:
        methods: functions by the name of the method, by class.
        feature: what needs it, for the error.

    Raises:
        AssumptionError: if a class has no such method; then nothing is replaced.
    """
    found = [
        (owner, name, private(owner, name, feature), function)
        for owner, functions in methods.items()
        for name, function in functions.items()
    ]
    for owner, name, original, function in found:
        setattr(owner, name, _instead(original, function))


def _instead(original, function):
    @functools.wraps(original)
    def method(self, *arguments, **named):
        return function(original, self, *arguments, **named)

    return method
