"""The error for a part of Keras that is not as this package assumes."""

import importlib
from typing import Any

import keras

WINDOW = ">=3.14,<3.16"  # the versions of Keras that were tried, as in pyproject.toml


class AssumptionError(RuntimeError):
    """An internal of Keras is not as a feature of this package assumes.

    Args:
        feature: what needs it, such as `"ExactResume"`.
        assumption: what was assumed, as a clause.
    """

    def __init__(self, feature: str, assumption: str):
        super().__init__(
            f"{feature} assumes that {assumption}. Received: Keras {keras.__version__}, "
            "where it is not so. Install a version that this was tried with: pip install "
            f"'keras{WINDOW}'."
        )


def internal(module: str, name: str, feature: str) -> Any:
    """An object of `keras.src`, imported where it is used.

    Args:
        module: its module, without `"keras.src."`.
        name: its name in the module.
        feature: what needs it, for the error.

    Raises:
        AssumptionError: if it does not exist.
    """
    try:
        return getattr(importlib.import_module(f"keras.src.{module}"), name)
    except (ImportError, AttributeError) as error:
        assumption = f"`keras.src.{module}` has `{name}`"
        raise AssumptionError(feature, assumption) from error


def private(owner: Any, name: str, feature: str) -> Any:
    """An attribute of an object or a class of Keras that is not public.

    Raises:
        AssumptionError: if there is none of that name.
    """
    try:
        return getattr(owner, name)
    except AttributeError as error:
        kind = owner if isinstance(owner, type) else type(owner)
        raise AssumptionError(feature, f"`{kind.__name__}` has `{name}`") from error
