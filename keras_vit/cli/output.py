"""Output on any terminal: letters that its encoding lacks never end the work."""

import codecs
import sys

_HANDLER = "keras_vit.legible"
_SIMPLER = str.maketrans({"×": "x", "–": "-", "…": "...", "·": "-", "━": "=", "╸": "-"})


def print_anywhere() -> None:
    """Has the standard streams write something for letters that their encoding lacks.

    A pipe on Windows in many countries and Python in the locale C are such streams.
    """
    codecs.register_error(_HANDLER, _legible)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where they are caught, in a notebook
            stream.reconfigure(errors=_HANDLER)


def _legible(error):
    r"""A similar letter for a sign of ours, else `\u0434`; a file name's byte as it is."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter, end = error.object[error.start], error.start + 1
    if "\udc80" <= letter <= "\udcff":  # a byte of a file name that is no text
        return bytes([ord(letter) - 0xDC00]), end
    return letter.translate(_SIMPLER).encode("ascii", "backslashreplace").decode(), end
