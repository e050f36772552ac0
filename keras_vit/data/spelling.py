"""Unicode spellings of names: "é" is one character on some systems, two on others."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from keras_vit.data.wording import listed
from keras_vit.log import log

FORMS = ("NFC", "NFD")


def one_spelling(name: str) -> str:
    """Returns the name of a class in the form NFC, without blanks around it."""
    return unicodedata.normalize("NFC", name).strip()


def spelled_on_disk(path: Path) -> Path:
    """Returns a path as it is spelled on the disk.

    It also finds paths with Windows' separator, or with blanks at the end.
    """
    text = os.fspath(path)
    forms = [unicodedata.normalize(form, text) for form in FORMS]
    spellings = (text, *forms, text.strip(), text.replace("\\", "/"))
    # `Path.exists` raises if a name is too long.
    return Path(next(filter(os.path.exists, spellings), text))


def check_utf8(names: Iterable[str]) -> None:
    """Checks that names of files are UTF-8.

    Raises:
        ValueError: if some are not; the message lists them.
    """
    strange = [name for name in names if not _is_utf8(name)]
    if strange:
        # `ascii` shows bytes that are not UTF-8 as "caf\\udce9".
        raise ValueError(
            f"Names of files and folders must be UTF-8. Received {len(strange)} that are "
            f"not: {listed(map(ascii, strange))}. Rename them."
        )


def log_look_alikes(class_names: Iterable[str]) -> None:
    """Logs names of classes that differ only in case, blanks or the width of letters."""
    found = {}
    for name in dict.fromkeys(class_names):  # without equal names
        folded = unicodedata.normalize("NFKC", name).casefold()
        found.setdefault("".join(folded.split()), []).append(name)
    alike = [" and ".join(map(repr, names)) for names in found.values() if len(names) > 1]
    if alike:
        log.warning(
            "Names of classes differ only in case or blanks: %s. They stay different "
            "classes.",
            listed(alike),
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
