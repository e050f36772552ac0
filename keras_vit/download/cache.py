"""Downloads of files into Keras' cache folder."""

import hashlib
import os
import re
import urllib.parse

from keras_vit.download import digests, hub, web
from keras_vit.download.retry import DownloadError

_NAME = r"\w[\w.-]*/\w[\w.-]*"
_HUB = re.compile(
    rf"hf://(?P<name>{_NAME})(?:@(?P<revision>[^/]+))?(?:/(?P<file>.*))?", re.ASCII
)
# Pages of a repository for browsers; the files themselves are at `…/resolve/…`.
_HUB_PAGE = re.compile(
    rf"https://huggingface\.co/(?P<name>{_NAME})"
    r"(?:/(?:tree|blob)/(?P<revision>[^/?#]+)(?:/(?P<file>[^?#]*))?)?/?(?:[?#].*)?",
    re.ASCII,
)
_OWN_SUFFIXES = (".lock", ".part", ".part.json", ".sha256")


def fetch(address: str) -> str:
    """Downloads a file once; returns the path of the local copy.

    Later calls make no request. They compare the file with the digest in the hub's name
    for it, or with the one recorded at `<path>.sha256`. With the environment variable
    `KERAS_VIT_OFFLINE=1`, no call makes a request.

    Args:
        address: `https://…`, `http://…` or `gs://bucket/…` (public objects);
            `hf://owner/name[@revision]/file`; or `hf://owner/name[@revision]`, or its
            page `https://huggingface.co/owner/name`, for a folder with the checkpoint of
            the repository. `huggingface_hub` reads `HF_ENDPOINT` and `HF_TOKEN`.

    Returns:
        The path of a file, or of a folder in the last case.

    Raises:
        ValueError: if the address is malformed, or the file in the cache has changed
            since its download.
        ConnectionError: if the file cannot be downloaded, or does not have the digest
            that the server states.
        OSError: if the file cannot be written.
    """
    try:
        match = _HUB.fullmatch(address) or _HUB_PAGE.fullmatch(address)
        return _fetch_from_hub(address, match) if match else _fetch_file(address)
    except DownloadError as error:
        raise ConnectionError(
            f"{address} could not be downloaded: {error}. If you have a copy of the file, "
            "give its path instead."
        ) from error.__cause__ or error


def _fetch_file(address):
    url = _url(address)
    path = os.path.join(_cache_folder(), *_names(url, address))
    if not os.path.isfile(path):
        if web.is_offline():
            raise DownloadError(_forbidden(f"it is not at {path!r}", "KERAS_VIT_OFFLINE"))
        _download(url.geturl(), path)
    else:
        digests.check_record(path)
    return path


def _download(address, path):
    import filelock

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        if not os.path.isfile(path):  # Another process may have been first.
            web.download(address, path)


def _fetch_from_hub(address, match):
    name, revision, file = (part and urllib.parse.unquote(part) for part in match.groups())
    for part in [*(revision or "main").split("/"), *(file or "file").split("/")]:
        if _check_name(part, address) != part:
            raise ValueError(
                f'Names in the hub hold none of % \\ : * ? " < > |. Received: {address!r}'
            )
    cache = os.path.join(_cache_folder(), "huggingface")
    variable = "KERAS_VIT_OFFLINE" if web.is_offline() else ""
    variable = variable or ("HF_HUB_OFFLINE" if hub.is_forbidden() else "")
    repository = hub.Repository(name, revision or "main", cache, offline=bool(variable))
    try:
        return repository.file(file) if file else repository.checkpoint()
    except DownloadError as error:
        if variable:
            raise DownloadError(_forbidden(error, variable)) from error
        raise


def _forbidden(reason, variable):
    return (
        f"{reason}, and the environment variable {variable} forbids the network. Unset "
        "it, or copy the file there from the cache of another machine"
    )


def _cache_folder():
    """Folder of this package in Keras' cache folder, which may change between calls."""
    home = os.environ.get("KERAS_HOME")
    if not home:
        user = os.path.expanduser("~")
        home = os.path.join(user if os.access(user, os.W_OK) else "/tmp", ".keras")
    return os.path.join(os.path.expanduser(home), "keras_vit")


def _url(address):
    """Parts of the web address, checked."""
    place = address
    if re.match("gs://[^/]+/", address):
        # Some servers read `+` as a space.
        name = urllib.parse.quote(address.removeprefix("gs://"))
        place = f"https://storage.googleapis.com/{name}"
    if not place.startswith(("https://", "http://")):
        raise ValueError(
            "An address must begin with https://, http:// or gs://bucket/, or be "
            f"hf://owner/name[@revision][/file]. Received: {address!r}. Download the file "
            "with another tool and give its path."
        )
    try:
        url = urllib.parse.urlsplit(place)._replace(fragment="")
        valid = url.hostname and "@" not in url.netloc and (url.port or True)
    except ValueError:  # malformed port or IPv6 address
        valid = False
    if not valid:
        raise ValueError(
            "An address must name a host, without user and password. Received: "
            f"{_without_password(address)!r}. Credentials belong in ~/.netrc."
        )
    return url


def _without_password(address):
    return re.sub("//.*@", "//…@", address)


def _names(url, address):
    """Path of a file in the cache, as a list: host, folders, name."""
    host = url.hostname if url.port is None else f"{url.hostname}_{url.port}"
    # Folders of a bucket may hold files of the same name.
    names = [host.replace(":", "_"), *url.path.split("/")[1:]]
    if len(names) == 1:
        names.append("")
    names = [
        _check_name(urllib.parse.unquote(name, errors="surrogateescape"), address)
        for name in names
    ]
    if names[-1].endswith(_OWN_SUFFIXES):
        raise ValueError(
            f"Names that end in {', '.join(_OWN_SUFFIXES)} are reserved for the cache. "
            f"Received: {address!r}. Download the file with another tool and give its path."
        )
    if url.query:
        digest = hashlib.sha256(url.query.encode()).hexdigest()
        names.insert(-1, f"query-{digest[:16]}")
    return names


def _check_name(name, address):
    """Name of a file or folder in the cache, with separators percent-encoded."""
    if name in ("", ".", "..") or re.search(r"[\x00-\x1f\x7f]", name):
        raise ValueError(
            "Each part of an address between slashes must be a name: not empty, not `.` "
            f"or `..`, without control characters. Received: {address!r}"
        )
    return re.sub(r'[%/\\:*?"<>|]', lambda found: f"%{ord(found[0]):02X}", name)
