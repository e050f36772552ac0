"""The name of images by formula, with options: `"formula:count=5000,size=32"`."""

from typing import Any

from keras_vit.data.formula.kinds import KINDS

NAME = "formula"
_NUMBERS = ("count", "size", "seed", "classes")
_OPTIONS = (*_NUMBERS, "kinds", "in_memory")


def is_formula(source: Any) -> bool:
    """Returns `True` for the name of images by formula, with or without options."""
    return isinstance(source, str) and source.partition(":")[0] == NAME


def formula_options(source: str) -> dict[str, Any]:
    """Reads the options of a name, as arguments of `formula_images`.

    Raises:
        ValueError: if an option is unknown or has no such value.
    """
    text = source.partition(":")[2]
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    options = {}
    for name, _, value in pairs:
        if name not in _OPTIONS or name in options:
            raise _error(source)
        options[name] = _value(name, value, source)
    return options


def _value(name, value, source):
    if name == "kinds":
        return tuple(value.split("+"))
    if name == "in_memory" and value in ("true", "false"):
        return value == "true"
    if name in _NUMBERS and value.isascii() and value.isdecimal():
        return int(value)
    raise _error(source)


def _error(source):
    return ValueError(
        "Options of 'formula' follow a colon, each once: count, size, seed and classes are "
        "whole numbers, in_memory is true or false, and kinds are joined by +, of "
        f"{', '.join(KINDS)}. Write such as 'formula:count=5000,kinds=fractals+strokes'. "
        f"Received: {source!r}"
    )
