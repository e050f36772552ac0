"""One spelling of each name: "é" is one character for some systems and two for others."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from keras_vit.data.wording import listed
from keras_vit.log import log

FORMS = ("NFC", "NFD")


def one_spelling(name: str) -> str:
    """A class's name in the form NFC, without blanks around it."""
    return unicodedata.normalize("NFC", name).strip()


def spelled_on_disk(path: Path) -> Path:
    """A path as the disk has it, where it has another spelling of its letters.

    Paths with the separator of Windows and with blanks at the end are found, too.
    """
    text = os.fspath(path)
    forms = [unicodedata.normalize(form, text) for form in FORMS]
    spellings = (text, *forms, text.strip(), text.replace("\\", "/"))
    # `Path.exists` fails where a name is too long to be one.
    return Path(next(filter(os.path.exists, spellings), text))


def check_utf8(names: Iterable[str]) -> None:
    """Checks that every name of a file can be written as UTF-8.

    Raises:
        ValueError: listing those that cannot.
    """
    strange = [name for name in names if not _is_utf8(name)]
    if strange:
        # As Python writes the bytes that are no UTF-8: "caf\\udce9".
        raise ValueError(
            f"Names of files and folders must be UTF-8. Received {len(strange)} that are "
            f"not: {listed(map(ascii, strange))}. Rename them."
        )


def say_look_alikes(class_names: Iterable[str]) -> None:
    """Logs names of classes that differ in case, blanks or the width of letters alone."""
    found = {}
    for name in dict.fromkeys(class_names):  # two classes of one name differ in nothing
        folded = unicodedata.normalize("NFKC", name).casefold()
        found.setdefault("".join(folded.split()), []).append(name)
    alike = [" and ".join(map(repr, names)) for names in found.values() if len(names) > 1]
    if alike:
        log.warning(
            "Names of classes differ in case or blanks alone: %s. They stay classes of "
            "their own.",
            listed(alike),
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
