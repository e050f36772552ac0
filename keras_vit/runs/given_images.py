"""Images that a user names: files, folders and addresses, of which some may fail."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit.data import Pipeline, load_images
from keras_vit.data.images import decode_image
from keras_vit.data.packages import tensorflow
from keras_vit.data.pixel_checks import check_values
from keras_vit.data.sources import ImageFiles
from keras_vit.data.threads import THREADS
from keras_vit.download.web import fetch_bytes
from keras_vit.runs.images import images_in

MOST_BYTES = 64 * 2**20  # of an image from the web


@dataclass(frozen=True, eq=False)
class GivenImage:
    """An image that a user has named.

    Attributes:
        name: path or address.
        pixels: the prepared image; `None` if it cannot be read.
        error: why it cannot be read; `""` if it can.
    """

    name: str
    pixels: np.ndarray | None = None
    error: str = ""


def expand(
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    say: Callable[[str], None],
) -> list[tuple[str, str]]:
    """(path or address, error) of each image; of a folder of all images below it.

    Args:
        images: a file, a folder or an address, or several of them.
        say: called with a sentence on files that are left out.
    """
    if isinstance(images, str | os.PathLike):
        images = [images]
    return list(_expanded(map(os.fspath, images), say))


def _expanded(images, say):
    for image in images:
        if not os.path.isdir(image):
            yield image, ""
            continue
        inside, others = images_in(image)
        yield from ((path, "") for path in inside)
        if not inside:
            left_out = f"; left out: {others}" if others else ""
            yield image, f"there is no image that can be read in this folder{left_out}"
        elif others:
            say(f"{image}: left out: {others}")


def unusual_values(sources: Iterable[tuple[str, str]], pipeline: Pipeline) -> str:
    """The reason why `data.load` would refuse the images' values, or `""`."""
    found = (s for s, error in sources if not error and os.path.isfile(s))
    paths = tuple(map(Path, found))
    files = ImageFiles(paths, np.zeros(len(paths), "int32"), Path())
    try:
        check_values({"IMAGE": files}, pipeline.reading, {"IMAGE": [None] * len(paths)})
    except ValueError as error:
        return str(error)
    return ""


def read_batches(
    sources: Sequence[tuple[str, str]], pipeline: Pipeline
) -> Iterator[list[GivenImage]]:
    """Yields the images in batches of the pipeline's size, and reads the next meanwhile.

    Args:
        sources: of `expand`.
        pipeline: prepares the images.
    """
    tensorflow()  # once, before threads need it
    size = pipeline.batch_size
    parts = [sources[start : start + size] for start in range(0, len(sources), size)]
    pool, coming = ThreadPoolExecutor(THREADS), []
    try:
        for part in parts:
            coming.append([pool.submit(_read, *source, pipeline) for source in part])
            if len(coming) > 1:
                yield [image.result() for image in coming.pop(0)]
        for part in coming:
            yield [image.result() for image in part]
    finally:
        pool.shutdown(cancel_futures=True)


def _read(name: str, error: str, pipeline: Pipeline) -> GivenImage:
    if error:
        return GivenImage(name, error=error)
    try:
        return GivenImage(name, load_images([_contents(name)], pipeline)[0])
    except FileNotFoundError:
        return GivenImage(name, error="there is no such file")
    except (ValueError, OSError) as error:  # ConnectionError is an OSError
        return GivenImage(name, error=" ".join(str(error).split()))


def _contents(name):
    is_address = name.startswith(("https://", "http://"))
    return fetch_bytes(name, MOST_BYTES) if is_address else name


def read_picture(name: str, pipeline: Pipeline) -> np.ndarray:
    """Reads an image to look at, uncropped, uint8 (height, width, channels).

    Raises:
        ValueError: if it cannot be decoded.
        OSError: if it cannot be read.
    """
    image = decode_image(_contents(name), name, pipeline.channels, pipeline.reading)
    return np.round(image).astype("uint8")
