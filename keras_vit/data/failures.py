"""Images that fail as a stream reads them, told in Python's own exceptions.

TensorFlow has one exception for all that goes wrong in a stream, with its own account of
where. What failed is noted here, and raised in its place where the stream is used.
"""

import contextlib
import re
import sys
from collections import deque
from collections.abc import Iterator

MOST = 1000  # kept; a user may read on after each
_noted: deque[str] = deque(maxlen=MOST)
_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|[0-7]{3}|.)")  # in TensorFlow's accounts


def noted(error: Exception) -> bytes:
    """Keeps what is wrong with an image, and gives it as text for TensorFlow."""
    message = (
        f"{error}. Load the data with bad_images='skip' to leave out such images."
    ).encode("utf-8", "backslashreplace")  # names that are no UTF-8, too
    _noted.append(message.decode())
    return message


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Raises a ValueError that names the image, where a stream ends in one that fails."""
    try:
        yield
    except Exception as error:
        text = _letters(_ESCAPE.sub("", str(error)))
        cause = next((said for said in reversed(_noted) if _letters(said) in text), None)
        if cause is None or not _is_of_tensorflow(error):
            raise
        raise ValueError(cause) from None


def _letters(text):
    """The letters and digits of a text, which no escaping changes."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


def _is_of_tensorflow(error) -> bool:
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(error, tf.errors.OpError)
