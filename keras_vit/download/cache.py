"""Files from the network, into Keras' cache folder."""

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
# What a browser shows of a repository; files proper are at `…/resolve/…`.
_HUB_PAGE = re.compile(
    rf"https://huggingface\.co/(?P<name>{_NAME})"
    r"(?:/(?:tree|blob)/(?P<revision>[^/?#]+)(?:/(?P<file>[^?#]*))?)?/?(?:[?#].*)?",
    re.ASCII,
)
_OWN_SUFFIXES = (".lock", ".part", ".part.json", ".sha256")


def fetch(address: str) -> str:
    """Path of the local copy of a file, which is downloaded once.

    Later calls make no request. They compare the file with the digest that it had, as
    the hub names it or as recorded at `<path>.sha256`. With the environment variable
    `KERAS_VIT_OFFLINE=1` no call makes a request.

    Args:
        address: `https://…`, `http://…` or `gs://bucket/…` (public objects);
            `hf://owner/name[@revision]/file`; or `hf://owner/name[@revision]`, also as
            the page `https://huggingface.co/owner/name`, for the folder with the
            checkpoint of that repository. The library of the hub honours `HF_ENDPOINT`
            and `HF_TOKEN`.

    Returns:
        The path of a file, or of a folder in the last case.

    Raises:
        ValueError: if the address is of another kind, or if the file in the cache is not
            the one that was downloaded.
        ConnectionError: if the file cannot be downloaded, or another arrives than the
            server says.
        OSError: if the file cannot be written.
    """
    try:
        match = _HUB.fullmatch(address) or _HUB_PAGE.fullmatch(address)
        return _fetch_of_hub(address, match) if match else _fetch_file(address)
    except DownloadError as error:
        raise ConnectionError(
            f"{address} could not be downloaded: {error}. With a copy of the file from "
            "elsewhere, give its path instead."
        ) from error.__cause__ or error


def _fetch_file(address):
    url = _url(address)
    path = os.path.join(_cache_folder(), *_names(url, address))
    if not os.path.isfile(path):
        if web.is_offline():
            raise DownloadError(_forbidden(f"it is not at {path!r}", "KERAS_VIT_OFFLINE"))
        _download(url.geturl(), path)
    else:
        digests.check(path)
    return path


def _download(address, path):
    import filelock

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        if not os.path.isfile(path):  # Another process may have been first.
            web.download(address, path)


def _fetch_of_hub(address, match):
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
        "it, or put there what another machine has in its cache"
    )


def _cache_folder():
    """The folder that Keras would take, looked for at each call."""
    home = os.environ.get("KERAS_HOME")
    if not home:
        user = os.path.expanduser("~")
        home = os.path.join(user if os.access(user, os.W_OK) else "/tmp", ".keras")
    return os.path.join(os.path.expanduser(home), "keras_vit")


def _url(address):
    """The parts of a web address."""
    place = address
    if re.match("gs://[^/]+/", address):
        # `+` is a space to some servers.
        name = urllib.parse.quote(address.removeprefix("gs://"))
        place = f"https://storage.googleapis.com/{name}"
    if not place.startswith(("https://", "http://")):
        raise ValueError(
            "An address must begin with https://, http:// or gs://bucket/, or be "
            f"hf://owner/name[@revision][/file]. Received: {address!r}. Download the file "
            "by another tool and give its path."
        )
    try:
        url = urllib.parse.urlsplit(place)._replace(fragment="")
        valid = url.hostname and "@" not in url.netloc and (url.port or True)
    except ValueError:  # no number of a port, no IPv6 address
        valid = False
    if not valid:
        raise ValueError(
            "An address names a host, without user and password. Received: "
            f"{_without_password(address)!r}. Credentials belong in ~/.netrc."
        )
    return url


def _without_password(address):
    return re.sub("//.*@", "//…@", address)


def _names(url, address):
    """Host, folders and name of a file in the cache."""
    host = url.hostname if url.port is None else f"{url.hostname}_{url.port}"
    # Files of the same name lie in different folders of a bucket.
    names = [host.replace(":", "_"), *url.path.split("/")[1:]]
    if len(names) == 1:
        names.append("")
    names = [
        _check_name(urllib.parse.unquote(name, errors="surrogateescape"), address)
        for name in names
    ]
    if names[-1].endswith(_OWN_SUFFIXES):
        raise ValueError(
            f"Names in {', '.join(_OWN_SUFFIXES)} belong to the cache. Received: "
            f"{address!r}. Download the file by another tool and give its path."
        )
    if url.query:
        digest = hashlib.sha256(url.query.encode()).hexdigest()
        names.insert(-1, f"query-{digest[:16]}")
    return names


def _check_name(name, address):
    """A name for a file or folder, in which what separates folders is encoded."""
    if name in ("", ".", "..") or re.search(r"[\x00-\x1f\x7f]", name):
        raise ValueError(
            "Each part of an address between slashes must be a name: not empty, not `.` "
            f"or `..`, without control characters. Received: {address!r}"
        )
    return re.sub(r'[%/\\:*?"<>|]', lambda found: f"%{ord(found[0]):02X}", name)
