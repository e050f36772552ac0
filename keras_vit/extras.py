"""Packages that are installed by extras, such as `keras-vit[data]`."""

import importlib
from types import ModuleType


def require(module: str, purpose: str, extra: str) -> ModuleType:
    """Imports a module of an extra.

    Args:
        module: name of the module.
        purpose: what needs it, the subject of the error.
        extra: name of the extra.

    Raises:
        ImportError: if it cannot be imported; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs `{module}`, which cannot be imported ({error}). "
            f"Run: pip install 'keras-vit[{extra}]'"
        ) from error
