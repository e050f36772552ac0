"""Augmentation of training images, as a record of settings."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from keras_vit import arguments
from keras_vit.models.notes import EVALUATION_CROPS, INTERPOLATIONS, RESIZE_FACTOR

CROPS = ("inception", "random", "square", "resize")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Crops, flips and mixing of training images, and the crop of evaluation images.

    Source: transfer in BigVision (which continues the ViT paper's code) and AugReg
    (arXiv 2106.10270). `Augmentation(crop="resize", flip=False)` only resizes.

    Attributes:
        crop: `"inception"`: a random part with `crop_area` and `crop_ratio`, resized;
            `"random"`: the smaller side resized to `resize_factor` times the image size,
            then a random part; `"square"`: the whole image resized to `resize_factor` times
            the image size, then a random part (BiT); `"resize"`: the whole image resized to
            the image size, also if that changes its proportions.
        crop_area: (smallest, largest) share of the image's area.
        crop_ratio: (smallest, largest) ratio of width to height.
        resize_factor: 1 or more; the default is 448 pixels for a crop of 384.
        flip: `True` mirrors every second image, at random, left to right.
        randaugment: (layers, magnitude): number of operations on each image, and their
            strength, where 10 is the full strength of the RandAugment paper; `None` for
            none. AugReg's light1 to strong2 are (2, 0), (2, 10), (2, 15), (2, 20).
        mixup_alpha: both parameters of the Beta distribution of MixUp's weight, which is
            drawn once per batch; 0 for none.
        cutmix_alpha: the same for the area that CutMix leaves; 0 for none. If both are
            positive, each batch uses one of the two, at random.
        evaluation_crop: `"center"`: the smaller side resized to `resize_factor` times the
            image size, then the middle part; `"square"`: the whole image resized to
            `resize_factor` times the image size, then the middle part; `"resize"`: the
            whole image resized to the image size.
        evaluation_interpolation: `"bilinear"` or `"bicubic"`, both antialiased as Pillow's,
            or `"area"`, the mean of the pixels below a pixel; for evaluation images.
    """

    crop: str = "inception"
    crop_area: tuple[float, float] = (0.05, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    resize_factor: float = RESIZE_FACTOR
    flip: bool = True
    randaugment: tuple[int, float] | None = None
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    evaluation_crop: str = "center"
    evaluation_interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        arguments.one_of(self.crop, CROPS, "crop")
        arguments.one_of(self.evaluation_crop, EVALUATION_CROPS, "evaluation_crop")
        chosen = self.evaluation_interpolation
        arguments.one_of(chosen, INTERPOLATIONS, "evaluation_interpolation")
        object.__setattr__(self, "crop_area", checked_range(self.crop_area, 1, "crop_area"))
        ratio = checked_range(self.crop_ratio, float("inf"), "crop_ratio")
        object.__setattr__(self, "crop_ratio", ratio)
        if not 1 <= self.resize_factor < float("inf"):
            raise ValueError(
                "`resize_factor` must be 1 or more: the crop is a part of the resized "
                f"image. Received: resize_factor={self.resize_factor}"
            )
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"`{name}` must be positive, or 0 for none. Received: "
                    f"{name}={getattr(self, name)}"
                )
        if self.randaugment is not None:
            object.__setattr__(self, "randaugment", _randaugment(self.randaugment))

    def replace(self, **changes: Any) -> "Augmentation":
        """Returns a copy with other fields, such as `flip=False`."""
        return dataclasses.replace(self, **changes)

    @property
    def mixes(self) -> bool:
        """`True` if MixUp or CutMix mixes examples and their labels."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


def checked_range(value: Iterable[float], largest: float, name: str) -> tuple[float, float]:
    """Returns a pair (smallest, largest) as two floats.

    Raises:
        ValueError: if it is no pair of positive numbers up to `largest`.
    """
    values = tuple(float(v) for v in value)
    if len(values) != 2 or not 0 < values[0] <= values[1] <= largest:
        limit = "" if largest == math.inf else f" up to {largest}"
        raise ValueError(
            f"`{name}` must be a pair (smallest, largest) of positive numbers{limit}. "
            f"Received: {name}={value}"
        )
    return values


def _randaugment(value) -> tuple[int, float]:
    values = tuple(value)
    if len(values) != 2 or not 0 <= values[1] < float("inf"):
        raise ValueError(
            "`randaugment` must be a pair (layers, magnitude), such as (2, 10), or None. "
            f"Received: randaugment={value}"
        )
    return arguments.positive(values[0], "randaugment layers"), float(values[1])
