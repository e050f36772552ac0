"""Decoding of image files and their bytes into pixels."""

import contextlib
import functools
import importlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keras_vit import arguments
from keras_vit.data.packages import require
from keras_vit.models.notes import ALPHA

CHANNELS = (1, 3)
# Pillow's other formats run programs (EPS) or are no pictures.
FORMATS = (
    *("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"),
)
# Packages that add a format to Pillow when imported, or by a function.
PLUGINS: dict[str, tuple[str, str | None]] = {
    "HEIF": ("pillow_heif", "register_heif_opener"),
    "AVIF": ("pillow_avif", None),
}
WHITE = 255
DEEP_WHITE = 65535

BITS, PHOTOMETRIC, BANDS, EXTRA_BANDS = 258, 262, 277, 338  # numbers of TIFF's tags
STARTS, LENGTHS = (273, 324), (279, 325)  # tags of strips and of tiles
WHITE_IS_ZERO = 0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Meaning of the values in a file, where the file itself does not tell.

    Attributes:
        value_range: (black, white), the values in the file that become 0 and 255; values
            beyond are clipped. `None`: 0 and the largest number of 8 or 16 bits.
        alpha: `"drop"` leaves the last of two or four channels out; `"white"` takes it for
            opacity and lays the image over white. `None` is `"white"`, and `load` refuses
            images whose last channel does not look like opacity.
    """

    value_range: tuple[float, float] | None = None
    alpha: str | None = None

    def __post_init__(self) -> None:
        arguments.one_of(self.alpha, (None, *ALPHA), "alpha")
        if self.value_range is None:
            return
        with contextlib.suppress(TypeError, ValueError):
            low, high = map(float, self.value_range)
            if np.isfinite([low, high]).all() and low < high:
                object.__setattr__(self, "value_range", (low, high))
                return
        raise ValueError(
            "`value_range` must be a pair (black, white) of numbers, the smaller first. "
            f"Received: value_range={self.value_range}"
        )


DEFAULT_READING = Reading()


@dataclass(frozen=True)
class Header:
    """Facts from the header of an image.

    Attributes:
        format: Pillow's name of the file format.
        mode: Pillow's name of the kind of pixels.
        white: the value of white; `None` where the header does not tell it.
        halved: `True` if Pillow reads 16 bits of each colour and gives the upper 8.
        inverted: `True` if Pillow gives values of which 0 is white.
        bands: number of channels in the file that are neither colour nor alpha.
        is_alpha: `True` if the last channel of an image with four (or two) is opacity.
    """

    format: str
    mode: str
    white: int | None
    halved: bool
    inverted: bool
    bands: int
    is_alpha: bool


def read_image(
    source: str | os.PathLike[str] | bytes,
    channels: int = 3,
    *,
    value_range: tuple[float, float] | None = None,
    alpha: str | None = None,
) -> np.ndarray:
    """Decodes a BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF or WebP image with Pillow.

    AVIF and HEIC are read where Pillow has AVIF, and where `pillow_heif` is installed.
    The orientation in EXIF is applied. Palettes, CMYK, YCbCr and grey become RGB (or all
    become grey), alpha is laid over white, 16-bit grey is scaled to 8 bits, and an
    animation gives its first frame. Further channels, such as near infrared, are left out.
    Embedded colour profiles are ignored, as in `tf.io.decode_image`.

    Args:
        source: path of a file, or its contents.
        channels: 3 for RGB, or 1 for grey (ITU-R 601 luma).
        value_range: (black, white), the values in the file that become 0 and 255, such
            as (0, 4095) for 12 bits in a file of 16 and (0, 1) for a mask; `None` for 0
            and the largest number of 8 or 16 bits.
        alpha: `"drop"` if the last of two or four channels is no opacity; `None` or
            `"white"` lays the image over white.

    Returns:
        uint8 array (height, width, channels).

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the image cannot be decoded to the end, or the value of white is
            unknown; the message names the file.
    """
    arguments.one_of(channels, CHANNELS, "channels")
    reading = Reading(value_range=value_range, alpha=alpha)
    return decode_image(source, image_name(source), channels, reading)


def decode_image(
    source: str | os.PathLike[str] | bytes,
    name: str,
    channels: int,
    reading: Reading = DEFAULT_READING,
) -> np.ndarray:
    """Decodes an image as `read_image` does; `name` names the image in errors."""

    def decoded(image):
        header = _readable(image, reading)
        return _pixels(_upright(image), channels, header, reading)

    return _opened(source, name, decoded)


def check_header(
    source: str | os.PathLike[str], name: str, reading: Reading = DEFAULT_READING
) -> Header:
    """Reads the header of an image: its format, size and kind of pixels.

    Raises:
        ValueError: if that fails or the pixels cannot be read; the message names the file.
    """
    return _opened(source, name, lambda image: _readable(image, reading))


def stored_values(
    source: str | os.PathLike[str] | bytes, name: str
) -> tuple[Header, np.ndarray | None]:
    """Reads the header and the pixels (height, width[, bands]) as they are stored.

    The pixels of a JPEG file are not read (`None`): it always has 8 bits and no alpha.
    """

    def values(image):
        header = _header(image)
        if header.format in ("JPEG", "MPO"):
            return header, None
        image.load()
        if image.mode in ("1", "P", "PA"):  # bits, or indices of a palette
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        return header, np.asarray(image)

    return _opened(source, name, values)


def is_image(path: str | os.PathLike[str], without: tuple[str, ...] = ()) -> bool:
    """Returns `True` if a file begins as one of the `FORMATS` except those in `without`."""
    pillow = require("PIL.Image")
    formats = tuple(name for name in _formats() if name not in without)
    try:
        with pillow.open(path, formats=formats):
            return True
    # Pillow's readers may raise any exception on damaged bytes.
    except Exception:
        return False


def image_suffixes() -> tuple[str, ...]:
    """Returns the suffixes, in lower case, of files that this build of Pillow reads."""
    formats = (*_formats(), "MPO")  # several pictures in one, opened by JPEG's reader
    registered = require("PIL.Image").registered_extensions()
    return tuple(sorted(s for s, name in registered.items() if name in formats))


def image_name(source: str | os.PathLike[str] | bytes) -> str:
    """Returns the name of an image in errors."""
    if isinstance(source, bytes):
        return f"an image of {len(source)} bytes"
    return os.fspath(source)


def _opened(source, name: str, use: Callable):
    pillow = require("PIL.Image")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    if file is source and os.path.exists(file) and not os.path.isfile(file):
        # Opening a pipe would wait.
        raise ValueError(f"Cannot read the image {name!r}: it is a folder, pipe or device")
    try:
        with pillow.open(file, formats=_formats()) as image:
            return use(image)
    except FileNotFoundError:
        raise
    # Pillow's readers may raise any exception on damaged bytes.
    except Exception as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, pillow.UnidentifiedImageError):
            reason = f"it is damaged, or none of {', '.join(_formats())}"
        raise ValueError(f"Cannot read the image {name!r}: {reason}") from error


def _formats() -> tuple[str, ...]:
    """Formats that this build of Pillow reads, also by plugins."""
    _with_plugins()
    return tuple(name for name in FORMATS if name in require("PIL.Image").OPEN)


@functools.cache
def _with_plugins() -> None:
    pillow = require("PIL.Image")
    pillow.init()
    for name, (module, register) in PLUGINS.items():
        if name not in pillow.OPEN:
            with contextlib.suppress(ImportError):
                plugin = importlib.import_module(module)
                if register:
                    getattr(plugin, register)()


def _header(image) -> Header:
    """Returns the header of an image that is open and not decoded."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    codes = " ".join(str(tile[3]) for tile in image.tile)
    deep_colors = ";16" in codes and not image.mode.startswith("I")
    # In a TIFF file alpha must be declared; Pillow takes any fourth channel for alpha.
    is_alpha = image.mode != "RGBA" or image.format != "TIFF" or EXTRA_BANDS in tags
    meant = len(image.getbands()) - (not is_alpha)
    return Header(
        format=image.format,
        mode=image.mode,
        white=_white(image, tags),
        halved=deep_colors,
        inverted=image.mode.startswith("I;16") and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO,
        bands=max(tags.get(BANDS, meant) - meant, 0),
        is_alpha=is_alpha,
    )


def _white(image, tags) -> int | None:
    """Value of white; `None` where the header does not tell it."""
    if image.mode.startswith("I;16"):
        bits = tags.get(BITS, (16,))[0]
        return 2**bits - 1 if bits < 16 else DEEP_WHITE
    if image.mode == "I" and image.format != "TIFF":  # scaled to 16 bits by Pillow
        return DEEP_WHITE
    return None if image.mode in ("I", "F") else WHITE


def _readable(image, reading: Reading) -> Header:
    """Returns the header; raises a ValueError if the pixels cannot become grey or RGB."""
    header = _header(image)
    if header.white is None and reading.value_range is None:
        raise ValueError(
            f"its pixels are of Pillow's mode {header.mode!r}, and the value of white is "
            "unknown; give the values of black and white, value_range=(…, …), or save it "
            "with 8 or 16 bits a channel"
        )
    if header.halved and reading.value_range not in (None, (0, DEEP_WHITE)):
        raise ValueError(
            "it has 16 bits for each of several channels, of which Pillow reads the upper "
            f"8, so `value_range` must be (0, {DEEP_WHITE}); save it with 8 bits a channel "
            "to use another"
        )
    if not _becomes_rgb(header.mode):
        raise ValueError(f"Pillow cannot convert its mode {header.mode!r} to RGB")
    if image.format in ("BMP", "TIFF"):
        _check_length(image)
    return header


def _check_length(image) -> None:
    """Raises a ValueError if the file is shorter than its header claims."""
    tags = getattr(image, "tag_v2", {})
    starts, lengths = (
        next((tags[tag] for tag in pair if tag in tags), ()) for pair in (STARTS, LENGTHS)
    )
    ends = [start + length for start, length in zip(starts, lengths, strict=False)]
    if image.format == "BMP":
        ends = [
            offset + form[1] * box[3]  # bytes in a row, and rows
            for codec, box, offset, form in image.tile
            if codec == "raw"
        ]
    place = image.fp.tell()
    size = image.fp.seek(0, io.SEEK_END)
    image.fp.seek(place)
    if max(ends, default=0) > size:
        raise ValueError(
            f"it is cut off: {size} bytes of the {max(ends)} that its header claims"
        )


@functools.cache
def _becomes_rgb(mode: str) -> bool:
    if mode.startswith(("I", "F")):
        return True
    try:
        _without_premultiplied(require("PIL.Image").new(mode, (1, 1))).convert("RGB")
    except ValueError:
        return False
    return True


def _upright(image):
    """Decodes an image and applies the orientation in EXIF."""
    image.load()
    return require("PIL.ImageOps").exif_transpose(image)


def _pixels(image, channels: int, header: Header, reading: Reading) -> np.ndarray:
    if image.mode.startswith(("I", "F")):
        image = _eight_bit(image, header, reading)
    image = _without_premultiplied(image)
    drop = reading.alpha == "drop" or not header.is_alpha
    transparent = image.has_transparency_data and not drop
    is_shallow = header.white == WHITE and not header.halved
    if reading.value_range is not None and is_shallow:
        image = _stretched(image, transparent, reading.value_range)
    if transparent:
        image = _over_white(image.convert("RGBA"))
    if drop:  # also drops a transparent colour of a palette
        image = image.convert("L" if image.mode in ("L", "LA") else "RGB")
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _without_premultiplied(image):
    modes = {"La": "LA", "RGBa": "RGBA"}
    return image.convert(modes[image.mode]) if image.mode in modes else image


def _eight_bit(image, header: Header, reading: Reading):
    """Scales grey of more bits to 8, where Pillow itself would clip or refuse."""
    values = np.asarray(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("it has pixels that are NaN or infinity")
    low, high = reading.value_range or (0, header.white)
    if reading.value_range is None and not low <= values.min() <= values.max() <= high:
        raise ValueError(
            f"its pixels are from {values.min()} to {values.max()}, and must be from 0 to "
            f"{high}; give the values of black and white, value_range=(…, …)"
        )
    eight_bit = in_eight_bits(values, (low, high))
    if header.inverted:
        eight_bit = WHITE - eight_bit
    return require("PIL.Image").fromarray(eight_bit)


def in_eight_bits(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Scales values to uint8: `value_range` becomes 0 to 255, values beyond are clipped."""
    return np.round(stretched(values, value_range)).astype("uint8")


def stretched(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Scales values to float32: `value_range` becomes 0 to 255, values beyond clipped."""
    low, high = value_range
    # Differences of large integers need the digits of float64.
    shares = (values.astype("float64") - low) / (high - low)
    return (np.clip(shares, 0, 1) * WHITE).astype("float32")


def _stretched(image, transparent: bool, value_range: tuple[float, float]):
    """Stretches the colours of an 8-bit image from black to white; alpha stays."""
    if transparent:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")
    table = in_eight_bits(np.arange(256), value_range).tolist()
    tables = [list(range(256)) if b == "A" else table for b in image.getbands()]
    return image.point([value for table in tables for value in table])


def _over_white(image):
    background = require("PIL.Image").new("RGBA", image.size, (WHITE,) * 4)
    background.alpha_composite(image)
    return background.convert("RGB")
