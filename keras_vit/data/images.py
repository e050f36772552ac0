"""Image files and their bytes into pixels: what every source decodes with."""

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
# Others that Pillow knows run programs (EPS) or are no pictures.
FORMATS = (
    *("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"),
)
# Packages that teach Pillow a format as they are imported or told to.
PLUGINS = {"HEIF": ("pillow_heif", "register_heif_opener"), "AVIF": ("pillow_avif", None)}
WHITE = 255
DEEP_WHITE = 65535

BITS, PHOTOMETRIC, BANDS, EXTRA_BANDS = 258, 262, 277, 338  # of TIFF's tags
STARTS, LENGTHS = (273, 324), (279, 325)  # of its strips or tiles
WHITE_IS_ZERO = 0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The meaning of the values in a file, where the file itself does not tell.

    Attributes:
        value_range: (black, white), the values in the file that become 0 and 255; what
            lies beyond is cut off. `None`: 0 and the largest number of 8 or 16 bits.
        alpha: `"drop"` leaves the last of two or four channels out, `"white"` takes it
            for opacity and lays the image over white. `None` is `"white"`; `load` then
            refuses images whose last channel looks like something else.
    """

    value_range: tuple[float, float] | None = None
    alpha: str | None = None

    def __post_init__(self):
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


AS_IT_IS = Reading()


@dataclass(frozen=True)
class Header:
    """Facts from the header of an image.

    Attributes:
        format: Pillow's name of the file's format.
        mode: Pillow's name of the kind of pixels.
        white: the value that is white, or `None` where nothing tells it.
        halved: whether Pillow reads 16 bits of each colour and gives the upper 8.
        inverted: whether Pillow gives values of which 0 is white.
        bands: channels in the file that are neither colour nor alpha.
        is_alpha: whether the last channel of an image with four (or two) is opacity.
    """

    format: str
    mode: str
    white: int | None
    halved: bool
    inverted: bool
    bands: int
    is_alpha: bool


def read_image(
    source: str | os.PathLike | bytes,
    channels: int = 3,
    *,
    value_range: tuple[float, float] | None = None,
    alpha: str | None = None,
) -> np.ndarray:
    """Decodes a BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF or WebP image with Pillow.

    AVIF and HEIC are read where Pillow has AVIF, and where `pillow_heif` is installed.
    The orientation that a camera noted in EXIF is applied. Palettes, CMYK, YCbCr and
    grey become RGB (or all become grey), alpha is laid over white, 16-bit grey is scaled
    to 8 bits, and of an animation the first frame is taken. Further channels, such as
    near infrared, are left out. Embedded colour profiles are ignored, as
    `tf.io.decode_image` does.

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
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded to the end, or has values of which nothing
            tells what is white, naming the file.
    """
    arguments.one_of(channels, CHANNELS, "channels")
    reading = Reading(value_range=value_range, alpha=alpha)
    return named_image(source, name_of(source), channels, reading)


def named_image(
    source: str | os.PathLike | bytes, name: str, channels: int, reading=AS_IT_IS
) -> np.ndarray:
    """As `read_image`, with the name that errors give to the image."""

    def decoded(image):
        header = _readable(image, reading)
        return _pixels(_upright(image), channels, header, reading)

    return _opened(source, name, decoded)


def check_header(source: str | os.PathLike, name: str, reading=AS_IT_IS) -> Header:
    """Reads as much of an image as tells its format, size and kind of pixels.

    Raises:
        ValueError: if that fails or the pixels cannot be read, naming the file.
    """
    return _opened(source, name, lambda image: _readable(image, reading))


def stored_values(
    source: str | os.PathLike | bytes, name: str
) -> tuple[Header, np.ndarray | None]:
    """The header, and the pixels (height, width) or (height, width, bands) as stored.

    Those of a JPEG file are left unread: what is looked for there is in no JPEG file.
    """

    def values(image):
        header = _header(image)
        if header.format in ("JPEG", "MPO"):
            return header, None
        image.load()
        if image.mode in ("1", "P", "PA"):  # whose numbers are no values
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        return header, np.asarray(image)

    return _opened(source, name, values)


def is_image(path: str | os.PathLike, without: tuple[str, ...] = ()) -> bool:
    """True if a file begins as an image of one of the `FORMATS`, but for some of them."""
    pillow = require("PIL.Image")
    formats = tuple(name for name in _formats() if name not in without)
    try:
        with pillow.open(path, formats=formats):
            return True
    # Pillow's readers raise whatever their parsing of damaged bytes runs into.
    except Exception:
        return False


def image_suffixes() -> tuple[str, ...]:
    """Suffixes of the files that this build of Pillow reads, in lower case."""
    formats = (*_formats(), "MPO")  # photographs of two pictures, which JPEG's reader opens
    registered = require("PIL.Image").registered_extensions()
    return tuple(sorted(s for s, name in registered.items() if name in formats))


def name_of(source: str | os.PathLike | bytes) -> str:
    """How errors name an image."""
    if isinstance(source, bytes):
        return f"an image of {len(source)} bytes"
    return os.fspath(source)


def _opened(source, name: str, use: Callable):
    pillow = require("PIL.Image")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    if file is source and os.path.exists(file) and not os.path.isfile(file):
        # A pipe would be waited for.
        raise ValueError(f"Cannot read the image {name!r}: it is a folder, pipe or device")
    try:
        with pillow.open(file, formats=_formats()) as image:
            return use(image)
    except FileNotFoundError:
        raise
    # Pillow's readers raise whatever their parsing of damaged bytes runs into.
    except Exception as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, pillow.UnidentifiedImageError):
            reason = f"it is damaged, or none of {', '.join(_formats())}"
        raise ValueError(f"Cannot read the image {name!r}: {reason}") from error


def _formats() -> tuple[str, ...]:
    """Formats that this build of Pillow reads, also by a plugin that came later."""
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
    """The header of an image that is open and not decoded."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    codes = " ".join(str(tile[3]) for tile in image.tile)
    deep_colors = ";16" in codes and not image.mode.startswith("I")
    # TIFF's standard wants alpha declared; Pillow takes any fourth channel for it.
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
    """The value that is white; `None` where the header does not tell it."""
    if image.mode.startswith("I;16"):
        bits = tags.get(BITS, (16,))[0]
        return 2**bits - 1 if bits < 16 else DEEP_WHITE
    if image.mode == "I" and image.format != "TIFF":  # scaled to 16 bits by Pillow
        return DEEP_WHITE
    return None if image.mode in ("I", "F") else WHITE


def _readable(image, reading: Reading) -> Header:
    """The header, or a ValueError if the pixels cannot become grey or colour."""
    header = _header(image)
    if header.white is None and reading.value_range is None:
        raise ValueError(
            f"its pixels are of Pillow's mode {header.mode!r}, and the value that is white "
            "is unknown; give the values that are black and white, value_range=(…, …), or "
            "save it with 8 or 16 bits a channel"
        )
    if header.halved and reading.value_range not in (None, (0, DEEP_WHITE)):
        raise ValueError(
            "it has 16 bits for each of several channels, of which Pillow reads the upper "
            f"8, so `value_range` can be (0, {DEEP_WHITE}) alone; save it with 8 bits a "
            "channel"
        )
    if not _becomes_rgb(header.mode):
        raise ValueError(f"Pillow makes no colours of its mode {header.mode!r}")
    if image.format in ("BMP", "TIFF"):
        _check_length(image)
    return header


def _check_length(image) -> None:
    """Raises a ValueError if the file is shorter than its header says."""
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
            f"it is cut off: {size} bytes of the {max(ends)} that its header tells"
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
    """The decoded image, turned as EXIF says."""
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
    if drop:  # so that no colour counts as transparent, either
        image = image.convert("L" if image.mode in ("L", "LA") else "RGB")
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _without_premultiplied(image):
    modes = {"La": "LA", "RGBa": "RGBA"}
    return image.convert(modes[image.mode]) if image.mode in modes else image


def _eight_bit(image, header: Header, reading: Reading):
    """Grey of more bits in 8, where Pillow itself would clip or refuse."""
    values = np.asarray(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("it has pixels that are no finite numbers")
    low, high = reading.value_range or (0, header.white)
    if reading.value_range is None and not low <= values.min() <= values.max() <= high:
        raise ValueError(
            f"its pixels are from {values.min()} to {values.max()}, and must be from 0 to "
            f"{high}; give the values that are black and white, value_range=(…, …)"
        )
    eight_bit = in_eight_bits(values, (low, high))
    if header.inverted:
        eight_bit = WHITE - eight_bit
    return require("PIL.Image").fromarray(eight_bit)


def in_eight_bits(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """uint8 array of which 0 is the first value and 255 the second, cut off beyond."""
    return np.round(stretched(values, value_range)).astype("uint8")


def stretched(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """float32 array of values from 0 to 255, which stand for black and white."""
    low, high = value_range
    # Differences of large integers need all of float64's digits.
    shares = (values.astype("float64") - low) / (high - low)
    return (np.clip(shares, 0, 1) * WHITE).astype("float32")


def _stretched(image, transparent: bool, value_range: tuple[float, float]):
    """The colours of an image of 8 bits from black to white; alpha stays."""
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
