"""Files from the network, into Keras' cache folder."""

import os
import urllib.parse

import keras


def fetch(address: str) -> str:
    """Path of the local copy of a file, which is downloaded once.

    Args:
        address: `https://…`, `http://…` or `gs://bucket/…` (public objects).

    Raises:
        ValueError: if the address is of another kind.
        ConnectionError: if the file cannot be downloaded.
    """
    if address.startswith("gs://"):
        # `+` is a space to some servers.
        name = urllib.parse.quote(address.removeprefix("gs://"))
        address = f"https://storage.googleapis.com/{name}"
    if not address.startswith(("https://", "http://")):
        raise ValueError(
            "An address must begin with https://, http:// or gs://. Received: "
            f"{address!r}. Download the file by another tool and give its path."
        )
    url = urllib.parse.urlsplit(address)
    folder, name = os.path.split(urllib.parse.unquote(url.path).lstrip("/"))
    folders = [part for part in folder.split("/") if part not in ("", ".", "..")]
    # Files of the same name lie in different folders of a bucket.
    cache = os.path.join("keras_vit", url.netloc.replace(":", "_"), *folders)
    try:
        return keras.utils.get_file(name, address, cache_subdir=cache)
    except Exception as error:  # `get_file` raises a bare Exception
        raise ConnectionError(
            f"{address} could not be downloaded: {error}. With a copy of the file from "
            "elsewhere, give its path instead."
        ) from error
