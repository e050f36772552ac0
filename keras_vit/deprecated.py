"""Old names that keep working for one release, with a `FutureWarning`."""

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable)


def warn(old: str, new: str, stacklevel: int = 3) -> None:
    """Warns that `old` goes with the next release, and names what to use."""
    # Python hides a `DeprecationWarning` of other modules than the user's own.
    warnings.warn(
        f"{old} is deprecated and goes with the next release. Use {new}.",
        FutureWarning,
        stacklevel=stacklevel,
    )


def renamed_arguments(**names: str) -> Callable[[T], T]:
    """Decorator of a function or dataclass that also takes old keyword arguments.

    Args:
        **names: new names by old ones. Where both are given, the old one counts.
    """

    def decorate(target):
        function = target.__init__ if isinstance(target, type) else target

        @functools.wraps(function)
        def call(*args, **kwargs):
            for old, new in names.items():
                if old in kwargs:
                    warn(f"The argument `{old}`", f"`{new}`")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        if not isinstance(target, type):
            return call
        target.__init__ = call
        return target

    return decorate


def module_getattr(module: str, moved: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` that finds names which are public no longer.

    Args:
        module: `__name__` of the module.
        moved: where each name is now, `"package.module.name"`, by the old name.
    """

    def getattr_of_module(name):
        if name not in moved:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn(f"{module}.{name}", moved[name])
        path, _, attribute = moved[name].rpartition(".")
        return getattr(importlib.import_module(path), attribute)

    return getattr_of_module
