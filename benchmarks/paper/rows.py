"""Models, data sets and published numbers of the ViT paper's table of results.

Source: arXiv 2010.11929, table 2 (accuracies of fine-tuned models in percent, compute in
TPUv3-core-days), section 4.1 and table 4. Of Noisy Student (arXiv 1911.04252) the table
has ImageNet and ReaL alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGENET, REAL, VTAB = "imagenet2012", "imagenet_real", "vtab"


@dataclass(frozen=True)
class Column:
    """A data set of the table.

    Attributes:
        name: its name here.
        title: its name in print.
        data: its name in TensorFlow Datasets, a folder or a CSV file to fine-tune on;
            `None` for ReaL and VTAB.
        options: arguments of `runs.fine_tune`.
        num_examples: number of training images.
        image_size: typical (height, width) of its images, in pixels.
    """

    name: str
    title: str
    data: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    num_examples: int = 1000
    image_size: tuple[int, int] = (500, 500)


# The images whose accuracy is published choose no checkpoint: a part of the training does.
IMAGENET_SPLITS = {
    "train": "train[:99%]",
    "validation": "train[99%:]",
    "test": "validation",
}
COLUMNS = (
    Column(
        IMAGENET,
        "ImageNet",
        "imagenet2012",
        # Section 4.1: averaged weights.
        {"splits": IMAGENET_SPLITS, "ema_momentum": 0.9999},
        1_268_355,
    ),
    Column(REAL, "ImageNet-ReaL"),
    Column("cifar10", "CIFAR-10", "cifar10", {}, 49_000, (32, 32)),
    Column("cifar100", "CIFAR-100", "cifar100", {}, 49_000, (32, 32)),
    Column("oxford_iiit_pet", "Oxford-IIIT Pets", "oxford_iiit_pet", {}, 3_606),
    Column("oxford_flowers102", "Oxford Flowers-102", "oxford_flowers102", {}, 1_020),
    Column(VTAB, "VTAB (19 tasks)"),
)
_NAMES = tuple(column.name for column in COLUMNS)


@dataclass(frozen=True)
class Model:
    """A row of the table.

    Attributes:
        name: name in print.
        data: data that it was pre-trained on.
        preset: the published checkpoint, or another source of `keras_vit.from_pretrained`;
            `None` if its weights are not published.
        published: accuracies in percent, by column.
        core_days: TPUv3-core-days of the published pre-training, or `None`.
        recipe: `"vit"` or `"bit"`, as in `runs.fine_tune`; `None` for a checkpoint that is
            a classifier of ImageNet already, and is not fine-tuned.
        imagenet_size: pixels of ImageNet's images in fine-tuning, where the recipe has
            another size (section 4.1).
        image_size: pixels of all other images, where the patch does not divide the
            recipe's: the original code leaves a margin of 384 pixels out.
    """

    name: str
    data: str
    preset: str | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    core_days: float | None = None
    recipe: str | None = "vit"
    imagenet_size: int | None = None
    image_size: int | None = None


def _percents(*percents: float) -> dict[str, float]:
    return dict(zip(_NAMES, percents, strict=True))


MODELS = (
    Model(
        "ViT-H/14",
        "JFT-300M",
        published=_percents(88.55, 90.72, 99.50, 94.55, 97.56, 99.68, 77.63),
        core_days=2500,
    ),
    Model(
        "ViT-L/16",
        "JFT-300M",
        published=_percents(87.76, 90.54, 99.42, 93.90, 97.32, 99.74, 76.28),
        core_days=680,
    ),
    Model(
        "ViT-H/14",
        "ImageNet-21k",
        "ViTH14.imagenet21k",
        imagenet_size=518,
        image_size=378,
    ),
    Model(
        "ViT-L/16",
        "ImageNet-21k",
        "ViTL16.imagenet21k",
        published=_percents(85.30, 88.62, 99.15, 93.25, 94.67, 99.61, 72.72),
        core_days=230,
        imagenet_size=512,
    ),
    Model(
        "BiT-L R152x4",
        "JFT-300M",
        published=_percents(87.54, 90.54, 99.37, 93.51, 96.62, 99.63, 76.29),
        core_days=9900,
        recipe="bit",
    ),
    Model("BiT-M R152x4", "ImageNet-21k", "BiTR152x4.imagenet21k", recipe="bit"),
    Model(
        "Noisy Student EfficientNet-L2",
        "JFT-300M without labels, ImageNet",
        "EfficientNetL2.noisy_student",
        published={IMAGENET: 88.4, REAL: 90.55},
        core_days=12_300,
        recipe=None,
    ),
)


@dataclass(frozen=True)
class FewShotModel:
    """A point of few-shot accuracy against the size of the pre-training data (figure 4).

    Attributes:
        name: architecture in print.
        data: data that it was pre-trained on.
        num_examples: number of its images.
        preset: the published checkpoint.
    """

    name: str
    data: str
    num_examples: int
    preset: str


FEW_SHOT_MODELS = tuple(
    FewShotModel(f"ViT-{size}", data, count, f"ViT{size.replace('/', '')}.{tag}")
    for data, count, tag in (
        ("ImageNet", 1_281_167, "augreg_imagenet2012-224"),
        ("ImageNet-21k", 14_197_122, "augreg_imagenet21k"),
    )
    for size in ("B/32", "B/16")
)
# Table 8: B/16 with learned positions of one axis, 5 shots a class. The paper draws figure
# 4 and prints no numbers of it.
SHOTS = 5
