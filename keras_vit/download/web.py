"""Downloads from web servers, which resume after interruptions and are verified."""

import contextlib
import datetime
import email.utils
import http
import json
import os
import re
import sys
import time

from keras_vit.download import digests
from keras_vit.download.retry import DownloadError, with_retries

_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces
_BLOCK = 1 << 16  # bytes lost when the connection breaks
FORBIDDEN = "the environment variable KERAS_VIT_OFFLINE forbids the network"
_VALIDATORS = {"etag": "ETag", "generation": "x-goog-generation"}


def download(address: str, path: str) -> None:
    """Downloads a file and records its sha256 beside it.

    Until the file is complete and verified, it is at `<path>.part`, with a description at
    `<path>.part.json`, so that the next attempt, or the next process, resumes it.

    Args:
        address: `https://…` or `http://…`.
        path: path to write the file to, in an existing folder.

    Raises:
        DownloadError: if the file cannot be downloaded, or has an unexpected digest.
        OSError: if it cannot be written.
    """
    import requests

    part = f"{path}.part"
    expected = digests.in_record(path) + digests.in_name(path)
    with requests.Session() as session:
        # A compressed response has another length and other digests than the file.
        session.headers["Accept-Encoding"] = "identity"
        with_retries(lambda: _attempt(session, address, part, expected))
    digests.write_record(path, part)
    os.replace(part, path)
    _forget(part)


def fetch_bytes(address: str, most: int, seconds: float = 60) -> bytes:
    """Downloads a file into memory, in one attempt.

    Args:
        address: `https://…` or `http://…`.
        most: int, largest allowed size in bytes.
        seconds: time limit.

    Raises:
        ConnectionError: if it cannot be downloaded in this time.
        ValueError: if it is larger.
    """
    import requests

    if is_offline():
        raise ConnectionError(FORBIDDEN)
    deadline, content = time.monotonic() + seconds, bytearray()
    try:
        with requests.get(address, stream=True, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            for block in response.iter_content(_BLOCK):
                content += block
                if len(content) > most:
                    raise ValueError(f"it has more than {most / 2**20:.0f} MiB")
                if time.monotonic() > deadline:
                    raise ConnectionError(f"it takes longer than {seconds:.0f} s")
            length = _length(response)
    except requests.RequestException as error:
        raise ConnectionError(f"it cannot be downloaded: {error}") from error
    if length not in (None, len(content)):
        raise ConnectionError(
            f"the connection broke after {len(content):,} of {length:,} bytes"
        )
    return bytes(content)


def is_offline() -> bool:
    """True if `KERAS_VIT_OFFLINE` forbids requests."""
    return os.environ.get("KERAS_VIT_OFFLINE", "").lower() in ("1", "true", "yes")


def _attempt(session, address, part, expected):
    import requests

    temporary = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ContentDecodingError,
    )
    note = _read_note(part)
    offset = os.path.getsize(part) if note else 0
    try:
        with session.get(
            address, headers=_range(note, offset), stream=True, timeout=_TIMEOUT
        ) as response:
            _check_status(response, part)
            if response.status_code == http.HTTPStatus.PARTIAL_CONTENT:
                _check_continues(response, note, offset, part)
            else:
                offset = 0
                _begin(response, part)
            _receive(response, part, offset)
    except requests.RequestException as error:
        raise DownloadError(str(error), retry=isinstance(error, temporary)) from error
    wrong = digests.mismatch(part, expected + digests.in_headers(response))
    if wrong:
        _discard(part)
        raise DownloadError(f"its {wrong}", retry=True)


def _range(note, offset):
    """Headers that ask for the rest of the file, if it is still the same file."""
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and "etag" in note:
        headers["If-Range"] = note["etag"]
    return headers


def _check_status(response, part):
    status = response.status_code
    if status in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
        return
    if status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        _discard(part)
        raise DownloadError("the file on the server became shorter", retry=True)
    hint = ""
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        hint = (
            ". There may be no such file, or its page asks for a license to be accepted "
            "first. Credentials are read from ~/.netrc. A file of the Hugging Face Hub is "
            "fetched with the token in the environment variable HF_TOKEN if its address is "
            "hf://owner/name/file"
        )
    raise DownloadError(
        f"the server answered {status} {response.reason}{hint}",
        retry=status in (408, 429) or status >= 500,
        pause=_seconds(response.headers.get("Retry-After", "")),
    )


def _seconds(text):
    """Seconds that a `Retry-After` header asks for, or `None`."""
    if text.strip().isdigit():
        return float(text)
    try:
        time = email.utils.parsedate_to_datetime(text)
        return (time - datetime.datetime.now(datetime.UTC)).total_seconds()
    except (TypeError, ValueError):  # no header, no date, or one without a time zone
        return None


def _check_continues(response, note, offset, part):
    """Checks that the response continues the part of the same file."""
    received = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", received)
    start, end, size = map(int, match.groups()) if match else (None, None, None)
    continues = offset and start == offset and end + 1 == size
    known = note.get("size", size) == size
    same = all(
        response.headers.get(header) == note[key]
        for key, header in _VALIDATORS.items()
        if key in note
    )
    if not (continues and known and same):
        _discard(part)
        raise DownloadError(
            f"the server does not continue the file after {offset:,} bytes, it answered "
            f"Content-Range {received!r}",
            retry=True,
        )


def _begin(response, part):
    """Creates an empty part, and the note that lets a later attempt resume it."""
    # In this order, the note never belongs to an older part.
    with open(part, "wb"):
        _forget(part)
    note = {
        key: response.headers[header]
        for key, header in _VALIDATORS.items()
        if header in response.headers
    }
    if note.get("etag", '"')[0] != '"':
        del note["etag"]  # Files with the same weak ETag may differ.
    size = _length(response)
    if note and size is not None:
        with open(f"{part}.json", "w", encoding="utf-8") as file:
            json.dump({**note, "size": size}, file)


def _read_note(part):
    """Description of the file that the part belongs to; empty if it cannot be resumed."""
    try:
        with open(f"{part}.json", encoding="utf-8") as file:
            note = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) and os.path.isfile(part) else {}


def _receive(response, part, offset):
    from tqdm import tqdm

    length = _length(response)
    size = None if length is None else offset + length
    terminal = sys.stderr is not None and sys.stderr.isatty()
    bar = tqdm(
        desc=os.path.basename(part).removesuffix(".part"),
        total=size,
        initial=offset,
        unit="B",
        unit_scale=True,
        disable=not terminal,
    )
    with bar, open(part, "ab") as file:
        for block in response.iter_content(_BLOCK):
            file.write(block)
            bar.update(len(block))
    received = os.path.getsize(part)
    if size is not None and received != size:
        raise DownloadError(
            f"the connection broke after {received:,} of {size:,} bytes", retry=True
        )


def _length(response):
    """Length of a response in bytes, `None` if it does not say."""
    length = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return int(length) if length.isdigit() and not encoded else None


def _discard(part):
    _forget(part)
    with contextlib.suppress(FileNotFoundError):
        os.remove(part)


def _forget(part):
    with contextlib.suppress(FileNotFoundError):
        os.remove(f"{part}.json")
