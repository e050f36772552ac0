"""Image files and their bytes into pixels: what every source decodes with."""

import functools
import io
import os
from collections.abc import Callable

import numpy as np

from keras_vit.data.packages import require
from keras_vit.layers import arguments

CHANNELS = (1, 3)
# Others that Pillow knows run programs (EPS) or are no pictures.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
WHITE = 255


def read_image(source: str | os.PathLike | bytes, channels: int = 3) -> np.ndarray:
    """Decodes a BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF or WebP image with Pillow.

    The orientation that a camera noted in EXIF is applied. Palettes, CMYK, YCbCr and
    grey become RGB (or all become grey), alpha is laid over white, 16-bit grey is scaled
    to 8 bits, and of an animation the first frame is taken. Embedded colour profiles are
    ignored, as `tf.io.decode_image` does.

    Args:
        source: path of a file, or its contents.
        channels: 3 for RGB, or 1 for grey (ITU-R 601 luma).

    Returns:
        uint8 array (height, width, channels).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded to the end, naming the file.
    """
    arguments.one_of(channels, CHANNELS, "channels")
    return named_image(source, name_of(source), channels)


def named_image(source: str | os.PathLike | bytes, name: str, channels: int) -> np.ndarray:
    """As `read_image`, with the name that errors give to the image."""
    return _opened(source, name, lambda image: _pixels(_upright(image), channels))


def check_header(source: str | os.PathLike, name: str) -> None:
    """Reads as much of an image as tells its format and size.

    Raises:
        ValueError: if that fails, naming the file.
    """
    _opened(source, name, lambda image: image.size)


def name_of(source: str | os.PathLike | bytes) -> str:
    """How errors name an image."""
    if isinstance(source, bytes):
        return f"an image of {len(source)} bytes"
    return os.fspath(source)


def _opened(source, name: str, use: Callable):
    pillow = require("PIL.Image")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with pillow.open(file, formats=_formats()) as image:
            return use(image)
    except FileNotFoundError:
        raise
    # Pillow's readers raise whatever their parsing of damaged bytes runs into.
    except Exception as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, pillow.UnidentifiedImageError):
            reason = f"it is damaged, or none of {', '.join(FORMATS)}"
        raise ValueError(f"Cannot read the image {name!r}: {reason}") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those that this build of Pillow reads."""
    pillow = require("PIL.Image")
    pillow.init()
    return tuple(name for name in FORMATS if name in pillow.OPEN)


def _upright(image):
    """The decoded image, turned as EXIF says."""
    image.load()
    return require("PIL.ImageOps").exif_transpose(image)


def _pixels(image, channels: int) -> np.ndarray:
    image = _eight_bit(image)
    if image.has_transparency_data:
        image = _over_white(image.convert("RGBA"))
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _eight_bit(image):
    """Grey of 16 bits in 8, where Pillow itself would clip or refuse."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"its pixels are of Pillow's mode {image.mode!r}, from {values.min()} to "
            f"{values.max()}, and the value that is white is unknown; save it with 8 or "
            "16 bits a channel"
        )
    eight_bit = np.round(values.astype("float32") / 257).astype("uint8")
    return require("PIL.Image").fromarray(eight_bit)


def _over_white(image):
    background = require("PIL.Image").new("RGBA", image.size, (WHITE,) * 4)
    background.alpha_composite(image)
    return background.convert("RGB")
