"""Images that would come out all but black, or over white, though they are neither.

A header does not tell that 12 bits lie in a file of 16, that a mask holds 0 and 1, or
that a fourth channel is near infrared. A few images of each split do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_vit.data.images import DEEP_WHITE, WHITE, Header, Reading, stretched
from keras_vit.data.sources import Source
from keras_vit.data.threads import map_indices
from keras_vit.log import log

MOST = 32  # images of a kind and a split that are looked at
BITS = (1, 8, 10, 12, 14)  # in files of 16
DARK = 16  # of 255
PARTIAL, SHADES = 0.5, 8  # of pixels, and of what opacity seldom has so many


@dataclass(frozen=True)
class Sample:
    """Facts from the pixels of one image.

    Attributes:
        header: a `Header`.
        high: the largest value of a colour.
        looks_opaque: `False` if the last channel varies as no opacity does, or is 0
            throughout.
    """

    header: Header
    high: float
    looks_opaque: bool


def check_values(
    sources: Mapping[str, Source], reading: Reading, headers: Mapping[str, list]
) -> None:
    """Looks at some images of each split and of each kind.

    Args:
        sources: by split.
        reading: how their values are meant.
        headers: of each split the images' headers, or `None` for each.

    Raises:
        ValueError: if they use a small part of the values, or have a last channel that
            seems to be no opacity, and `reading` does not say how they are meant.
    """
    for split, source in sources.items():
        samples = _samples(source, headers[split])
        if reading.alpha is None:
            _check_alpha(samples, split)
        if reading.value_range is None:
            _check_deep(samples, split)
            _check_shallow(samples, split)
        else:
            _say_if_black(samples, split, reading.value_range)
        _say_bands(samples, split)


def _samples(source: Source, headers: list) -> list[Sample]:
    kinds = {}
    for index, header in enumerate(headers):
        kinds.setdefault(header, []).append(index)
    chosen = [i for same in kinds.values() for i in same[:: -(-len(same) // MOST)]]
    found = map_indices(lambda i: _sample(source, chosen[i]), len(chosen))
    # Those that cannot be decoded are found elsewhere.
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
            f"The last channel of the images of {split!r} seems to be no opacity, as it "
            f"varies, or is 0 throughout, in {strange} of {len(samples)} that were looked "
            "at; near infrared does. Leave it out with alpha='drop', or lay the images "
            "over white with alpha='white'."
        )


def _check_deep(samples: list[Sample], split: str) -> None:
    """Grey of 16 bits, and colours, of which Pillow gives the upper 8 bits."""
    grey = [s.high for s in samples if s.header.white == DEEP_WHITE]
    colors = [s.high for s in samples if s.header.halved]
    if grey and 0 < max(grey) < 2 ** BITS[-1]:
        high = int(max(grey))
        bits = next(bits for bits in BITS if high < 2**bits)
        raise ValueError(
            f"The 16-bit images of {split!r} hold values up to {high} of {DEEP_WHITE} (of "
            f"{len(grey)} looked at), so they seem to be of {bits} bits, and would be all "
            f"but black. Give the values that are black and white: value_range=(0, "
            f"{2**bits - 1}), or value_range=(0, {DEEP_WHITE}) if they are that dark."
        )
    if colors and 0 < max(colors) < 2 ** (BITS[-1] - 8):
        raise ValueError(
            f"The images of {split!r} with 16 bits for each colour hold values below "
            f"{256 * (int(max(colors)) + 1)} of {DEEP_WHITE} (of {len(colors)} looked at), "
            "so they seem to be of fewer bits, and would be all but black. Pillow reads "
            "the upper 8 bits alone: save them with 8 bits a channel, or give "
            f"value_range=(0, {DEEP_WHITE}) if they are that dark."
        )


def _check_shallow(samples: list[Sample], split: str) -> None:
    highs = [s.high for s in samples if s.header.white == WHITE and not s.header.halved]
    masks = sum(high == 1 for high in highs)
    if masks and masks >= 0.5 * len(highs):
        raise ValueError(
            f"Images of {split!r} hold the values 0 and 1 of {WHITE} alone ({masks} of "
            f"{len(highs)} looked at), so they seem to be masks, and would be all but "
            "black. Give the values that are black and white: value_range=(0, 1), or "
            f"value_range=(0, {WHITE}) if they are that dark."
        )
    if not highs or max(highs) >= DARK:
        return
    log.warning(
        "The images of %r hold values up to %d of %d (of %d looked at), so they are all "
        "but black. If that is not meant so, give a value range.",
        split,
        max(highs),
        WHITE,
        len(highs),
    )


def _say_if_black(samples: list[Sample], split: str, value_range) -> None:
    """As where images of 8 bits lie among those that a range of 12 bits is meant for."""
    modes = {sample.header.mode for sample in samples}
    for mode in sorted(modes):
        highs = [_high(sample) for sample in samples if sample.header.mode == mode]
        high = max(highs)
        if stretched(np.array(high), value_range) < DARK:
            log.warning(
                "By the value range from %g to %g, images of %r of Pillow's mode %r are "
                "all but black: they hold values up to %g. Keep images of several depths "
                "apart.",
                *value_range,
                split,
                mode,
                high,
            )


def _high(sample: Sample) -> float:
    """The largest value as it is in the file."""
    return int(sample.high) * 256 if sample.header.halved else sample.high


def _say_bands(samples: list[Sample], split: str) -> None:
    bands = [s.header.bands for s in samples if s.header.bands]
    if bands:
        log.warning(
            "Of the images of %r, %d of %d that were looked at have channels beside the "
            "colours (up to %d), such as near infrared. They are left out.",
            split,
            len(bands),
            len(samples),
            max(bands),
        )
