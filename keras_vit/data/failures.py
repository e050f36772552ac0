"""Errors of images in a stream, raised as Python's exceptions that name the image.

TensorFlow raises one kind of exception for every error in a stream, with its own text. The
original message is kept here, and raised in place of TensorFlow's where the stream is used.
"""

import contextlib
import re
import sys
from collections import deque
from collections.abc import Iterator

MOST = 1000  # messages kept; a user may read on after each
_noted: deque[str] = deque(maxlen=MOST)
_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|[0-7]{3}|.)")  # in TensorFlow's messages


def noted(error: Exception) -> bytes:
    """Keeps the error of an image, and returns its message for TensorFlow."""
    message = (
        f"{error}. Load the data with bad_images='skip' to leave out such images."
    ).encode("utf-8", "backslashreplace")  # a name may not be UTF-8
    _noted.append(message.decode())
    return message


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Turns TensorFlow's error of a stream into a ValueError that names the image."""
    try:
        yield
    except Exception as error:
        text = _letters(_ESCAPE.sub("", str(error)))
        cause = next((said for said in reversed(_noted) if _letters(said) in text), None)
        if cause is None or not _is_of_tensorflow(error):
            raise
        raise ValueError(cause) from None


def _letters(text):
    """Returns the letters and digits of a text, which escaping does not change."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


def _is_of_tensorflow(error) -> bool:
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(error, tf.errors.OpError)
