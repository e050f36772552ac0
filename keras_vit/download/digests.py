"""Digests of files: what servers, names and records say, and what the files have."""

import base64
import binascii
import functools
import hashlib
import importlib
import os
import re
import uuid
from typing import Any, NamedTuple

_BLOCK = 1 << 20


class Digest(NamedTuple):
    """A digest that a file should have.

    Attributes:
        origin: who says so.
        algorithm: `"sha256"`, `"md5"`, `"crc32c"`, or `"git"` for Git's name of a blob.
        value: hexadecimal digits, all of the digest or the first of them.
    """

    origin: str
    algorithm: str
    value: str


def _crc32c_state():
    """The class that computes crc32c, of whichever module is installed; or `None`."""
    for module, name in (("google_crc32c", "Checksum"), ("crc32c", "CRC32CHash")):
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    return None


_STATES = {
    "sha256": hashlib.sha256,
    # Both against accidents, not attacks.
    "md5": functools.partial(hashlib.md5, usedforsecurity=False),
    "git": functools.partial(hashlib.sha1, usedforsecurity=False),
    "crc32c": lambda: _crc32c_state()(),
}


def digest(path: str, algorithm: str) -> str:
    """The digest of a file, in hexadecimal digits."""
    state = _STATES[algorithm]()
    if algorithm == "git":
        state.update(b"blob %d\0" % os.path.getsize(path))
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.digest().hex()


def mismatch(path: str, expected: list[Digest]) -> str:
    """The first digest that a file should have and has not, in words; `""` if none."""
    for origin, algorithm, value in expected:
        received = digest(path, algorithm)
        if not received.startswith(value):
            return f"{algorithm} is {received}, where {origin} says {value}"
    return ""


def check(path: str) -> None:
    """Compares a file with the record beside it, which is made where there is none.

    Raises:
        ValueError: if the file is not that of the record, or of its own name.
    """
    expected = recorded(path)
    wrong = mismatch(path, expected or named(path))
    if wrong:
        raise changed(wrong, path, f"{path}.sha256")
    if not expected:
        try:
            record(path)
        except OSError:  # A cache of read-only files serves as well as before.
            return


def changed(wrong: str, *paths: str) -> ValueError:
    """The error for a file in the cache that is not what was downloaded."""
    return ValueError(
        f"{paths[0]!r} is damaged or was changed after its download: its {wrong}. It is "
        "not loaded. Delete it to download it again"
        + "".join(f", together with {path!r}" for path in paths[1:])
        + "."
    )


def record(path: str, content: str | None = None) -> None:
    """Writes the sha256 of a file beside it, as `sha256sum` would.

    Args:
        path: path of the file.
        content: path at which the contents lie so far.
    """
    line = f"{digest(content or path, 'sha256')}  {os.path.basename(path)}\n"
    # Processes that hash the same file at the same time do not meet.
    new = f"{path}.sha256.{uuid.uuid4().hex}"
    try:
        with open(new, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(line)
        os.replace(new, f"{path}.sha256")
    finally:
        if os.path.exists(new):
            os.remove(new)


def recorded(path: str) -> list[Digest]:
    """The digest in the record beside a file; none without a record."""
    try:
        with open(f"{path}.sha256", encoding="utf-8", errors="surrogateescape") as file:
            line = file.read()
    except FileNotFoundError:
        return []
    value = (line.split() or [""])[0].lower()
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(
            f"'{path}.sha256' should begin with a sha256 of 64 hexadecimal digits. "
            f"Received: {line[:80]!r}. Delete it, and {path!r} too unless you know that "
            "file to be whole."
        )
    return [Digest(f"the record '{path}.sha256'", "sha256", value)]


def named(path: str) -> list[Digest]:
    """The beginning of the sha256 that the name of a `.pth` file tells, as in torch.hub."""
    # Eight digits may also be a date.
    pattern = r"-(?!(?:19|20)\d{6}\.)([0-9a-f]{8,64})\.pth"
    found = re.search(pattern + "$", os.path.basename(path))
    return [Digest("the file's name", "sha256", found[1])] if found else []


def published(response: Any) -> list[Digest]:
    """The digests in the headers of a response of `requests`, or of its redirections."""
    digests = []
    for answer in (*response.history, response):
        linked = answer.headers.get("X-Linked-ETag", "").strip('"').lower()
        if re.fullmatch("[0-9a-f]{64}", linked):
            digests.append(Digest("the server (X-Linked-ETag)", "sha256", linked))
    encodings = ("Content-Encoding", "x-goog-stored-content-encoding")
    # What is stored compressed was hashed compressed, and arrives otherwise.
    if all(response.headers.get(name, "identity") == "identity" for name in encodings):
        digests += _of_google(response.headers.get("x-goog-hash", ""))
    return digests


def _of_google(header):
    """The md5 in a header such as `crc32c=n03x6A==,md5=Ojk9c3dhfxgoKVVHYwFbHQ==`.

    Without an md5, the crc32c if a module computes it.
    """
    hashes = dict(part.strip().partition("=")[::2] for part in header.split(","))
    for algorithm in ("md5", "crc32c"):
        if algorithm in hashes and (algorithm == "md5" or _crc32c_state()):
            return [Digest("the server (x-goog-hash)", algorithm, _hex(hashes[algorithm]))]
    return []


def _hex(value):
    try:
        return base64.b64decode(value, validate=True).hex()
    except binascii.Error:
        return value  # Nothing has it; the message shows it.
