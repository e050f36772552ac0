"""Output on any terminal, and the lines that several sub-commands print."""

import argparse
import codecs
import sys

from keras_vit.report.statistics import absent_note, accuracy_text
from keras_vit.runs import EvaluationResult
from keras_vit.tables import percent

_HANDLER = "keras_vit.legible"
_SIMPLER = str.maketrans({"×": "x", "–": "-", "…": "...", "·": "-", "━": "=", "╸": "-"})


def print_anywhere() -> None:
    """Makes the standard streams replace letters that their encoding lacks.

    Pipes on Windows in many countries, and Python in the locale C, lack some letters.
    """
    codecs.register_error(_HANDLER, _legible)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's streams have no encoding
            stream.reconfigure(errors=_HANDLER)


def _legible(error):
    r"""Replaces a letter: by a similar one, by `\u0434`, or by a file name's own byte."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter, end = error.object[error.start], error.start + 1
    if "\udc80" <= letter <= "\udcff":  # a byte of a file name that is no text
        return bytes([ord(letter) - 0xDC00]), end
    return letter.translate(_SIMPLER).encode("ascii", "backslashreplace").decode(), end


def warn(text: str) -> None:
    """Prints a line on stderr."""
    print(f"keras-vit: {one_line(text.replace(chr(10), ' '))}", file=sys.stderr)


def one_line(text: str) -> str:
    """Replaces characters that a terminal would not print on one line."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def verbosity(args: argparse.Namespace) -> int:
    """Keras' `verbose` of a command: 1 on a terminal, 0 with `--json` or in a pipe."""
    return 1 if sys.stdout.isatty() and not args.json else 0


def print_result(result: EvaluationResult) -> None:
    """Prints accuracy with its interval, balanced accuracy, macro F1 and loss."""
    evaluation = result.evaluation
    print(f"{result.accuracy_name} {accuracy_text(evaluation)}")
    print(
        f"balanced accuracy {percent(evaluation.balanced_accuracy)}, "
        f"macro F1 {percent(evaluation.macro_f1)}"
    )
    top_5 = evaluation.top_5_accuracy
    more = "" if top_5 is None else f"top-5 accuracy {percent(top_5)}, "
    note = f" ({result.loss_note})" if result.loss_note else ""
    print(f"{more}loss {evaluation.loss:.4f}{note}")
    if note := absent_note(evaluation):
        print(note)
