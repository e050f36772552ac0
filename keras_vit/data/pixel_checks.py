"""Checks of pixels: images that would become almost black, or wrongly transparent.

A header does not tell that a file of 16 bits holds 12, that a mask holds 0 and 1, or that a
fourth channel is near infrared. The pixels of a few images of each split do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_vit.data.images import DEEP_WHITE, WHITE, Header, Reading, stretched
from keras_vit.data.sources import Source
from keras_vit.data.threads import map_indices
from keras_vit.log import log

MOST = 32  # images that are checked, of each kind and split
BITS = (1, 8, 10, 12, 14)  # depths in files of 16 bits
DARK = 16  # of 255
# Opacity seldom is partial in a larger share of pixels, in as many shades.
PARTIAL, SHADES = 0.5, 8


@dataclass(frozen=True)
class Sample:
    """Facts from the pixels of one image.

    Attributes:
        header: header of the image.
        high: largest value of a colour.
        looks_opaque: `False` if the last channel varies more than opacity does, or is 0
            everywhere.
    """

    header: Header
    high: float
    looks_opaque: bool


def check_values(
    sources: Mapping[str, Source],
    reading: Reading,
    headers: Mapping[str, list[Header | None]],
) -> None:
    """Checks the pixels of some images of each split and kind.

    Args:
        sources: source of each split.
        reading: meaning of the values.
        headers: headers of the images of each split; `None` where unknown.

    Raises:
        ValueError: if images use a small part of the values, or have a last channel that
            does not look like opacity, and `reading` does not say what they mean.
    """
    for split, source in sources.items():
        samples = _samples(source, headers[split])
        if reading.alpha is None:
            _check_alpha(samples, split)
        if reading.value_range is None:
            _check_deep(samples, split)
            _check_shallow(samples, split)
        else:
            _warn_if_black(samples, split, reading.value_range)
        _warn_of_bands(samples, split)


def _samples(source: Source, headers: list) -> list[Sample]:
    kinds = {}
    for index, header in enumerate(headers):
        kinds.setdefault(header, []).append(index)
    chosen = [i for same in kinds.values() for i in same[:: -(-len(same) // MOST)]]
    found = map_indices(lambda i: _sample(source, chosen[i]), len(chosen))
    # Images that cannot be decoded are reported elsewhere.
    return [sample for sample in found if sample is not None]


def _sample(source: Source, index: int) -> Sample | None:
    try:
        stored = source.stored(index)
    except (ValueError, OSError):
        return None
    if stored is None or stored[1] is None:
        return None
    header, values = stored
    if header.mode == "CMYK":
        return Sample(header, WHITE - values.min(), looks_opaque=True)  # values are ink
    bands = values.shape[2] if values.ndim == 3 else 1
    if bands not in (2, 4):
        return Sample(header, values.max(), looks_opaque=True)
    looks_opaque = not header.is_alpha or _looks_opaque(values[..., -1])
    return Sample(header, values[..., :-1].max(), looks_opaque)


def _looks_opaque(alpha: np.ndarray) -> bool:
    partial = alpha[(alpha > 0) & (alpha < WHITE)]
    if not alpha.any():
        return False
    return partial.size <= PARTIAL * alpha.size or len(np.unique(partial)) < SHADES


def _check_alpha(samples: list[Sample], split: str) -> None:
    strange = sum(not sample.looks_opaque for sample in samples)
    if strange > 0.5 * len(samples):
        raise ValueError(
            f"The last channel of the images of {split!r} does not look like opacity: in "
            f"{strange} of {len(samples)} images that were checked it varies, as near "
            "infrared does, or is 0 everywhere. Leave it out with alpha='drop', or lay the "
            "images over white with alpha='white'."
        )


def _check_deep(samples: list[Sample], split: str) -> None:
    """Refuses 16-bit images, grey or colour, that use few of the bits."""
    grey = [s.high for s in samples if s.header.white == DEEP_WHITE]
    colors = [s.high for s in samples if s.header.halved]
    if grey and 0 < max(grey) < 2 ** BITS[-1]:
        high = int(max(grey))
        bits = next(bits for bits in BITS if high < 2**bits)
        raise ValueError(
            f"The 16-bit images of {split!r} hold values up to {high} of {DEEP_WHITE} "
            f"({len(grey)} were checked). They seem to have {bits} bits, and would be "
            f"almost black. Give the values of black and white: value_range=(0, "
            f"{2**bits - 1}), or value_range=(0, {DEEP_WHITE}) if they are that dark."
        )
    if colors and 0 < max(colors) < 2 ** (BITS[-1] - 8):
        raise ValueError(
            f"The images of {split!r} with 16 bits for each colour hold values below "
            f"{256 * (int(max(colors)) + 1)} of {DEEP_WHITE} ({len(colors)} were checked). "
            "They seem to have fewer bits, and would be almost black. Pillow reads only "
            "the upper 8 bits: save them with 8 bits a channel, or give "
            f"value_range=(0, {DEEP_WHITE}) if they are that dark."
        )


def _check_shallow(samples: list[Sample], split: str) -> None:
    highs = [s.high for s in samples if s.header.white == WHITE and not s.header.halved]
    masks = sum(high == 1 for high in highs)
    if masks and masks >= 0.5 * len(highs):
        raise ValueError(
            f"Images of {split!r} hold only the values 0 and 1 of {WHITE} ({masks} of "
            f"{len(highs)} that were checked). They seem to be masks, and would be almost "
            "black. Give the values of black and white: value_range=(0, 1), or "
            f"value_range=(0, {WHITE}) if they are that dark."
        )
    if not highs or max(highs) >= DARK:
        return
    log.warning(
        "The images of %r hold values up to %d of %d (%d were checked), so they are almost "
        "black. If they should not be, give a value range.",
        split,
        max(highs),
        WHITE,
        len(highs),
    )


def _warn_if_black(samples: list[Sample], split: str, value_range) -> None:
    """Warns of dark images, such as 8-bit images where the value range is of 12 bits."""
    modes = {sample.header.mode for sample in samples}
    for mode in sorted(modes):
        highs = [_high(sample) for sample in samples if sample.header.mode == mode]
        high = max(highs)
        if stretched(np.array(high), value_range) < DARK:
            log.warning(
                "With the value range from %g to %g, images of %r of Pillow's mode %r are "
                "almost black: they hold values up to %g. Keep images of different depths "
                "apart.",
                *value_range,
                split,
                mode,
                high,
            )


def _high(sample: Sample) -> float:
    """Largest value in the file."""
    return int(sample.high) * 256 if sample.header.halved else sample.high


def _warn_of_bands(samples: list[Sample], split: str) -> None:
    bands = [s.header.bands for s in samples if s.header.bands]
    if bands:
        log.warning(
            "In %r, %d of %d images that were checked have channels beside the colours (up "
            "to %d), such as near infrared. These channels are left out.",
            split,
            len(bands),
            len(samples),
            max(bands),
        )
