"""Digests of files: expected by servers, file names and records, or computed."""

import base64
import binascii
import contextlib
import functools
import hashlib
import importlib
import os
import re
import uuid
from typing import Any, NamedTuple

_BLOCK = 1 << 20


class Digest(NamedTuple):
    """Expected digest of a file.

    Attributes:
        origin: source that states it, for messages.
        algorithm: `"sha256"`, `"md5"`, `"crc32c"`, or `"git"` for Git's name of a blob.
        value: all hexadecimal digits, or the first of them.
    """

    origin: str
    algorithm: str
    value: str


def _crc32c_state():
    """Class that computes crc32c, from an installed package; `None` without one."""
    for module, name in (("google_crc32c", "Checksum"), ("crc32c", "CRC32CHash")):
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    return None


_STATES = {
    "sha256": hashlib.sha256,
    # md5 and sha1 protect against accidents, not attacks.
    "md5": functools.partial(hashlib.md5, usedforsecurity=False),
    "git": functools.partial(hashlib.sha1, usedforsecurity=False),
    "crc32c": lambda: _crc32c_state()(),
}


def digest(path: str, algorithm: str) -> str:
    """Computes the digest of a file, in hexadecimal digits."""
    state = _STATES[algorithm]()
    if algorithm == "git":
        state.update(b"blob %d\0" % os.path.getsize(path))
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.digest().hex()


def mismatch(path: str, expected: list[Digest]) -> str:
    """Describes the first expected digest that a file does not have; `""` if none."""
    for origin, algorithm, value in expected:
        received = digest(path, algorithm)
        if not received.startswith(value):
            return f"{algorithm} is {received}, where {origin} says {value}"
    return ""


def check_record(path: str) -> None:
    """Compares a file with the record beside it; writes the record if there is none.

    Raises:
        ValueError: if the file has another digest than the record or its name states.
    """
    expected = in_record(path)
    wrong = mismatch(path, expected or in_name(path))
    if wrong:
        raise damage_error(wrong, path, f"{path}.sha256")
    if not expected:
        # A read-only cache works without records.
        with contextlib.suppress(OSError):
            write_record(path)


def damage_error(wrong: str, *paths: str) -> ValueError:
    """Error for a file in the cache that has changed since its download."""
    return ValueError(
        f"{paths[0]!r} is damaged or was changed after its download: its {wrong}. It is "
        "not loaded. Delete it to download it again"
        + "".join(f", together with {path!r}" for path in paths[1:])
        + "."
    )


def write_record(path: str, content: str | None = None) -> None:
    """Writes the sha256 of a file beside it, in the format of `sha256sum`.

    Args:
        path: path of the file.
        content: path of the contents, if they are not at `path` yet.
    """
    line = f"{digest(content or path, 'sha256')}  {os.path.basename(path)}\n"
    # Several processes may record the same file at the same time.
    new = f"{path}.sha256.{uuid.uuid4().hex}"
    try:
        with open(new, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(line)
        os.replace(new, f"{path}.sha256")
    finally:
        if os.path.exists(new):
            os.remove(new)


def in_record(path: str) -> list[Digest]:
    """Digest in the record beside a file; empty without a record."""
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
            "file to be complete."
        )
    return [Digest(f"the record '{path}.sha256'", "sha256", value)]


def in_name(path: str) -> list[Digest]:
    """First digits of the sha256 in the name of a `.pth` file, as in torch.hub."""
    # Eight digits may also be a date.
    pattern = r"-(?!(?:19|20)\d{6}\.)([0-9a-f]{8,64})\.pth"
    found = re.search(pattern + "$", os.path.basename(path))
    return [Digest("the file's name", "sha256", found[1])] if found else []


def in_headers(response: Any) -> list[Digest]:
    """Digests in the headers of a response of `requests` or of its redirections."""
    digests = []
    for answer in (*response.history, response):
        linked = answer.headers.get("X-Linked-ETag", "").strip('"').lower()
        if re.fullmatch("[0-9a-f]{64}", linked):
            digests.append(Digest("the server (X-Linked-ETag)", "sha256", linked))
    encodings = ("Content-Encoding", "x-goog-stored-content-encoding")
    # A file stored compressed was hashed compressed, but arrives decompressed.
    if all(response.headers.get(name, "identity") == "identity" for name in encodings):
        digests += _google_digest(response.headers.get("x-goog-hash", ""))
    return digests


def _google_digest(header):
    """Digest in a header such as `crc32c=n03x6A==,md5=Ojk9c3dhfxgoKVVHYwFbHQ==`.

    The md5, or without one the crc32c, if an installed package computes it.
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
        return value  # No file matches it; the message shows it.
