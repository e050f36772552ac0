"""What is done to training images, as a record."""

import dataclasses
from dataclasses import dataclass

from keras_vit import arguments
from keras_vit.models.notes import EVALUATION_CROPS, RESIZE_FACTOR

CROPS = ("inception", "random", "square", "resize")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to an image between its decoding and the batch.

    Source: the transfer of BigVision (which continues the ViT paper's code) and AugReg
    (arXiv 2106.10270). `Augmentation(crop="resize", flip=False)` does nothing but resize.

    Attributes:
        crop: `"inception"`, a random part of `crop_area` of the image and of `crop_ratio`
            (width by height), resized; `"random"`, the smaller side resized to
            `resize_factor` times the image size, then a random part; `"square"`, the
            whole image resized to `resize_factor` times the image size, then a random
            part (BiT); `"resize"`, the whole image resized, whatever becomes of its
            shape.
        crop_area: (smallest, largest) share of the image.
        crop_ratio: (smallest, largest) width by height.
        resize_factor: float, 1 or more; 448 pixels for a crop of 384 by default.
        flip: bool, whether every second image, at random, is mirrored left to right.
        randaugment: (layers, magnitude), operations applied to each image and their
            strength, of which 10 is the full one of the RandAugment paper; `None` for
            none. AugReg's light1 to strong2 are (2, 0), (2, 10), (2, 15), (2, 20).
        mixup_alpha: float, both parameters of the Beta distribution of MixUp's weight,
            one weight for each batch; 0 for none.
        cutmix_alpha: float, the same of the area that CutMix leaves. Where both are
            positive, one of them is applied to each batch, at random.
        evaluation_crop: `"center"`, the smaller side resized to `resize_factor` times the
            image size, then the part in the middle; `"resize"`, the whole image resized.
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

    def __post_init__(self):
        arguments.one_of(self.crop, CROPS, "crop")
        arguments.one_of(self.evaluation_crop, EVALUATION_CROPS, "evaluation_crop")
        object.__setattr__(self, "crop_area", _range(self.crop_area, 1, "crop_area"))
        ratio = _range(self.crop_ratio, float("inf"), "crop_ratio")
        object.__setattr__(self, "crop_ratio", ratio)
        if not 1 <= self.resize_factor < float("inf"):
            raise ValueError(
                "`resize_factor` must be 1 or more, as a crop is taken from what it gives. "
                f"Received: resize_factor={self.resize_factor}"
            )
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"`{name}` must be positive, or 0 for none. Received: "
                    f"{name}={getattr(self, name)}"
                )
        if self.randaugment is not None:
            object.__setattr__(self, "randaugment", _randaugment(self.randaugment))

    def replace(self, **changes) -> "Augmentation":
        """The same with other fields, such as `flip=False`."""
        return dataclasses.replace(self, **changes)

    @property
    def mixes(self) -> bool:
        """Whether examples are mixed with others, and labels with theirs."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


def _range(value, largest: float, name: str) -> tuple[float, float]:
    values = tuple(float(v) for v in value)
    if len(values) != 2 or not 0 < values[0] <= values[1] <= largest:
        raise ValueError(
            f"`{name}` must be a pair (smallest, largest) of positive numbers"
            f"{' up to 1' if largest == 1 else ''}. Received: {name}={value}"
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
