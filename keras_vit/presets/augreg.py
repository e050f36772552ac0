"""Checkpoints of *How to train your ViT?*, and the parser of their file names.

Sources: README, `checkpoint.py` and `vit_jax_augreg.ipynb` of
google-research/vision_transformer (the recommended ones, sizes, scores); BigVision's
`VANITY_NAMES` (B/8); `vision_transformer.py`, `vision_transformer_hybrid.py` and
`results-imagenet.csv` of huggingface/pytorch-image-models (timm: mirrored files and their
scores), as recorded in November 2026. The bucket holds more than 50,000 files;
`augreg_preset` makes a row for any of them from its name.
"""

import re
from dataclasses import dataclass

from keras_vit.presets.google import (
    BUCKET,
    CLASSES_1K,
    CLASSES_21K,
    RESIZED,
    TIMM_RESULTS,
)
from keras_vit.presets.preset import MIB, Preprocessing, Preset

FAMILY = "AugReg"
_STORY = {
    "family": FAMILY,
    "license": "Apache-2.0",
    "paper": "How to train your ViT? (arXiv 2106.10270)",
}

# Classes of the data sets of pre-training and fine-tuning, as file names spell them: the
# paper's four tasks, and CIFAR-10. kitti is the distance task of VTAB.
_CLASSES = {
    "i1k": CLASSES_1K,
    "i21k": CLASSES_21K,
    "imagenet2012": CLASSES_1K,
    "cifar10": 10,
    "cifar100": 100,
    "oxford_iiit_pet": 37,
    "pets37": 37,
    "resisc45": 45,
    "kitti": 4,
}

# The paper's hybrids, as file names spell them.
_HYBRIDS = {"R_Ti_16": "RViTTi16", "R26_S_32": "R26ViTS32", "R50_L_32": "R50ViTL32"}

_PATTERN = (
    "{model}_{patch}-{i1k or i21k}-{epochs}ep-lr_{rate}-aug_{augmentation}-wd_{decay}"
    "-do_{dropout}-sd_{depth}[--{task}-steps_{thousands}k-lr_{rate}-res_{pixels}]"
)
_NUMBER = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"
_MODEL = r"(R\d*_)?(Ti|S|B|L)_(\d+)"
_NAME = re.compile(
    rf"{_MODEL}-(i1k|i21k)-(\d+)ep-lr_{_NUMBER}"
    rf"-aug_(none|(?:light|medium|strong)[012])-wd_{_NUMBER}-do_{_NUMBER}-sd_{_NUMBER}"
    rf"(?:--(\w+)-steps_(\d+)k-lr_{_NUMBER}-res_(\d+))?"
)


@dataclass(frozen=True, kw_only=True)
class AugRegRecipe:
    """Training of an AugReg checkpoint, as its file name states it.

    Attributes:
        file: file name, without folder and `.npz`.
        architecture: name of the architecture, such as `"ViTB16"` or `"R50ViTL32"`.
        dataset: data set of the pre-training, `"i1k"` (ImageNet-1k) or `"i21k"`
            (ImageNet-21k).
        epochs: epochs of the pre-training.
        learning_rate: base learning rate of the pre-training.
        augmentation: `"none"`, or `"light"`, `"medium"` or `"strong"` with a digit.
        weight_decay: weight decay of the pre-training.
        dropout: dropout rate of the pre-training.
        stochastic_depth: drop rate of the stochastic depth of the pre-training.
        task: data set of the fine-tuning, `None` without one.
        steps: steps of the fine-tuning, rounded down to thousands in the name.
        finetuning_learning_rate: base learning rate of the fine-tuning.
        resolution: pixels of the fine-tuning, or 224 without one.
    """

    file: str
    architecture: str
    dataset: str
    epochs: int
    learning_rate: float
    augmentation: str
    weight_decay: float
    dropout: float
    stochastic_depth: float
    task: str | None = None
    steps: int | None = None
    finetuning_learning_rate: float | None = None
    resolution: int = 224


def is_augreg_name(text: str) -> bool:
    """True if a text without its folders begins like the names of AugReg files.

    Such a name may still be malformed; `parse_augreg` checks it.
    """
    return re.match(rf"{_MODEL}-i2?1k-", _stem(text)) is not None


def parse_augreg(name: str) -> AugRegRecipe:
    """Reads the name of an AugReg file, with or without folder and `.npz`.

    Raises:
        ValueError: if the name is malformed, or has an unknown hybrid or task.
    """
    file = _stem(name)
    match = _NAME.fullmatch(file)
    if not match:
        raise ValueError(
            f"Not the name of an AugReg checkpoint: {name!r}. Expected {_PATTERN}, such "
            f"as {_RECOMMENDED['ViTB16'][0]!r}"
        )
    resnet, size, patch, dataset, epochs, rate, augmentation = match.groups()[:7]
    decay, dropout, depth, task, steps, finetuning_rate, pixels = match.groups()[7:]
    architecture = f"ViT{size}{patch}"
    if resnet:
        hybrid = f"{resnet}{size}_{patch}"
        if hybrid not in _HYBRIDS:
            raise ValueError(
                f"Unknown hybrid {hybrid!r} in {file!r}. The hybrids of AugReg, a ResNet "
                f"below a ViT, are {', '.join(_HYBRIDS)}."
            )
        architecture = _HYBRIDS[hybrid]
    if task is not None and task not in _CLASSES:
        raise ValueError(
            f"Unknown task {task!r} in {file!r}, so its number of classes is unknown. "
            f"Known: {', '.join(_CLASSES)}. `keras_vit.from_pretrained` reads it from the "
            f"file, given its address: {BUCKET}/augreg/{file}.npz"
        )
    finetuning = {}
    if task is not None:
        finetuning = {
            "task": task,
            "steps": 1000 * int(steps),
            "finetuning_learning_rate": float(finetuning_rate),
            "resolution": int(pixels),
        }
    return AugRegRecipe(
        file=file,
        architecture=architecture,
        dataset=dataset,
        epochs=int(epochs),
        learning_rate=float(rate),
        augmentation=augmentation,
        weight_decay=float(decay),
        dropout=float(dropout),
        stochastic_depth=float(depth),
        **finetuning,
    )


def augreg_preset(name: str) -> Preset:
    """Row of any AugReg file; made from its name unless there is one.

    Raises:
        ValueError: see `parse_augreg`.
    """
    recipe = parse_augreg(name)
    address = f"{BUCKET}/augreg/{recipe.file}.npz"
    for row in PRESETS:
        if row.address == address:
            return row
    return Preset(
        architecture=recipe.architecture,
        tag=recipe.file,
        addresses=(address,),
        resolution=recipe.resolution,
        classes=_CLASSES[recipe.task or recipe.dataset],
        preprocessing=RESIZED,
        **_STORY,
    )


def _stem(text):
    return text.rsplit("/", 1)[-1].removesuffix(".npz")


# The recommended checkpoint of each size: its pre-training, its fine-tuning, the size of
# the pre-trained file, and the fine-tuned one's top-1.
_RECOMMENDED = {
    "ViTTi16": (
        "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.03-res_384",
        37,
        78.22,
    ),
    "ViTS32": (
        "S_32-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.01-res_384",
        118,
        79.58,
    ),
    "ViTS16": (
        "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.03-res_384",
        115,
        83.73,
    ),
    "ViTB32": (
        "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.01-res_384",
        398,
        83.59,
    ),
    "ViTB16": (
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.03-res_384",
        391,
        85.49,
    ),
    "ViTB8": (
        "B_8-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.03-res_224",
        None,
        None,
    ),
    "ViTL16": (
        "L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.01-res_384",
        1243,
        85.59,
    ),
    "RViTTi16": (
        "R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.03-res_384",
        40,
        75.40,
    ),
    "R26ViTS32": (
        "R26_S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.01-res_384",
        170,
        83.85,
    ),
    "R50ViTL32": (
        "R50_L_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1",
        "imagenet2012-steps_20k-lr_0.01-res_384",
        1337,
        85.99,
    ),
}

# Which of the recommended files timm mirrors.
_TIMM_PRETRAINED = {
    "ViTTi16": "vit_tiny_patch16_224",
    "ViTS16": "vit_small_patch16_224",
    "ViTB16": "vit_base_patch16_224",
    "RViTTi16": "vit_tiny_r_s16_p8_224",
}
_TIMM_FINETUNED = {
    "ViTTi16": "vit_tiny_patch16_384",
    "ViTS16": "vit_small_patch16_384",
    "RViTTi16": "vit_tiny_r_s16_p8_384",
}

# The other files that timm mirrors. The tag tells the difference from the recommended
# file: `-224` another resolution, `timm` only another recipe.
_TIMM = [
    (
        "augreg_imagenet21k+imagenet2012-224",
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.03-res_224",
        75.452,
    ),
    (
        "augreg_imagenet21k+imagenet2012-224",
        "vit_small_patch32_224.augreg_in21k_ft_in1k",
        "S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.03-res_224",
        75.996,
    ),
    (
        "augreg_timm_imagenet21k+imagenet2012",
        "vit_small_patch32_384.augreg_in21k_ft_in1k",
        "S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.03-res_384",
        80.482,
    ),
    (
        "augreg_imagenet21k+imagenet2012-224",
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
        "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.03-res_224",
        81.414,
    ),
    (
        "augreg_imagenet21k+imagenet2012-224",
        "vit_base_patch32_224.augreg_in21k_ft_in1k",
        "B_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.03-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.03-res_224",
        80.736,
    ),
    (
        "augreg_timm_imagenet21k+imagenet2012",
        "vit_base_patch32_384.augreg_in21k_ft_in1k",
        "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.03-res_384",
        83.352,
    ),
    (
        "augreg_imagenet21k+imagenet2012-224",
        "vit_base_patch16_224.augreg_in21k_ft_in1k",
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.01-res_224",
        84.532,
    ),
    (
        "augreg_timm_imagenet21k+imagenet2012",
        "vit_base_patch16_384.augreg_in21k_ft_in1k",
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.01-res_384",
        86.006,
    ),
    (
        "augreg_timm_imagenet21k+imagenet2012",  # the recommended one is 224 px as well
        "vit_base_patch8_224.augreg_in21k_ft_in1k",
        "B_8-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.01-res_224",
        85.836,
    ),
    (
        "augreg_imagenet21k+imagenet2012-224",
        "vit_large_patch16_224.augreg_in21k_ft_in1k",
        "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1"
        "--imagenet2012-steps_20k-lr_0.01-res_224",
        85.850,
    ),
    (
        "augreg_timm_imagenet21k+imagenet2012",
        "vit_large_patch16_384.augreg_in21k_ft_in1k",
        "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1"
        "--imagenet2012-steps_20k-lr_0.01-res_384",
        87.094,
    ),
    (
        "augreg_imagenet2012",
        "vit_small_patch16_384.augreg_in1k",
        "S_16-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.01-res_384",
        81.134,
    ),
    (
        "augreg_imagenet2012-224",
        "vit_small_patch16_224.augreg_in1k",
        "S_16-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.01-res_224",
        78.842,
    ),
    (
        "augreg_imagenet2012",
        "vit_base_patch32_384.augreg_in1k",
        "B_32-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.1-sd_0.1"
        "--imagenet2012-steps_20k-lr_0.01-res_384",
        78.754,
    ),
    (
        "augreg_imagenet2012-224",
        "vit_base_patch32_224.augreg_in1k",
        "B_32-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.1-sd_0.1"
        "--imagenet2012-steps_20k-lr_0.01-res_224",
        74.906,
    ),
    (
        "augreg_imagenet2012",
        "vit_base_patch16_384.augreg_in1k",
        "B_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1"
        "--imagenet2012-steps_20k-lr_0.01-res_384",
        81.096,
    ),
    (
        "augreg_imagenet2012-224",
        "vit_base_patch16_224.augreg_in1k",
        "B_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1"
        "--imagenet2012-steps_20k-lr_0.01-res_224",
        79.142,
    ),
    (
        "augreg_timm_imagenet21k",
        "vit_small_patch32_224.augreg_in21k",
        "S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0",
        None,
    ),
    (
        "augreg_timm_imagenet21k",
        "vit_base_patch32_224.augreg_in21k",
        "B_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.03-do_0.0-sd_0.0",
        None,
    ),
    (
        "augreg_timm_imagenet21k",
        "vit_base_patch8_224.augreg_in21k",
        "B_8-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0",
        None,
    ),
    (
        "augreg_timm_imagenet21k",
        "vit_large_patch16_224.augreg_in21k",
        "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1",
        None,
    ),
    (
        "augreg_imagenet21k+imagenet2012-224",
        "vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k",
        "R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.03-res_224",
        71.820,
    ),
    (
        "augreg_imagenet21k+imagenet2012-224",
        "vit_small_r26_s32_224.augreg_in21k_ft_in1k",
        "R26_S_32-i21k-300ep-lr_0.001-aug_light0-wd_0.03-do_0.1-sd_0.1"
        "--imagenet2012-steps_20k-lr_0.03-res_224",
        81.844,
    ),
    (
        "augreg_timm_imagenet21k+imagenet2012",
        "vit_small_r26_s32_384.augreg_in21k_ft_in1k",
        "R26_S_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.03-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.03-res_384",
        84.074,
    ),
    (
        "augreg_imagenet21k+imagenet2012-224",
        "vit_large_r50_s32_224.augreg_in21k_ft_in1k",
        "R50_L_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1"
        "--imagenet2012-steps_20k-lr_0.01-res_224",
        84.432,
    ),
    (
        "augreg_timm_imagenet21k+imagenet2012",
        "vit_large_r50_s32_384.augreg_in21k_ft_in1k",
        "R50_L_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0"
        "--imagenet2012-steps_20k-lr_0.01-res_384",
        86.184,
    ),
    (
        "augreg_timm_imagenet21k",
        "vit_small_r26_s32_224.augreg_in21k",
        "R26_S_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.03-do_0.0-sd_0.0",
        None,
    ),
    (
        "augreg_timm_imagenet21k",
        "vit_large_r50_s32_224.augreg_in21k",
        "R50_L_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0",
        None,
    ),
]

# ImageNet-21k weights that timm fine-tuned itself, with the exact GELU.
_AUGREG2 = [
    ("ViTB16", "vit_base_patch16_224.augreg2_in21k_ft_in1k", 85.110),
    ("ViTB8", "vit_base_patch8_224.augreg2_in21k_ft_in1k", 86.228),
]


def _timm_crop(resolution):
    return Preprocessing(
        crop_fraction=1.0 if resolution == 384 else 0.9, interpolation="bicubic"
    )


def _timm_row(tag, mirror, file, accuracy):
    recipe = parse_augreg(file)
    return Preset(
        architecture=recipe.architecture,
        tag=tag,
        addresses=(f"{BUCKET}/augreg/{file}.npz", f"hf://timm/{mirror}"),
        resolution=recipe.resolution,
        classes=_CLASSES[recipe.task or recipe.dataset],
        preprocessing=_timm_crop(recipe.resolution),
        accuracy=accuracy,
        accuracy_source=TIMM_RESULTS if accuracy else None,
        **_STORY,
    )


def _mirror(names, architecture, tag):
    return (f"hf://timm/{names[architecture]}.{tag}",) if architecture in names else ()


PRESETS = [
    *(
        Preset(
            architecture=architecture,
            tag="augreg_imagenet21k+imagenet2012",
            addresses=(
                f"{BUCKET}/augreg/{pretrained}--{finetuned}.npz",
                *_mirror(_TIMM_FINETUNED, architecture, "augreg_in21k_ft_in1k"),
            ),
            resolution=int(finetuned.rpartition("res_")[2]),
            classes=CLASSES_1K,
            preprocessing=RESIZED,
            accuracy=accuracy,
            accuracy_source=accuracy and "README of google-research/vision_transformer",
            **_STORY,
        )
        for architecture, (pretrained, finetuned, _, accuracy) in _RECOMMENDED.items()
    ),
    *(
        Preset(
            architecture=architecture,
            tag="augreg_imagenet21k",
            addresses=(
                f"{BUCKET}/augreg/{pretrained}.npz",
                *_mirror(_TIMM_PRETRAINED, architecture, "augreg_in21k"),
            ),
            resolution=224,
            classes=CLASSES_21K,
            preprocessing=RESIZED,
            size_bytes=mib and mib * MIB,
            **_STORY,
        )
        for architecture, (pretrained, _, mib, _) in _RECOMMENDED.items()
    ),
    *(_timm_row(*row) for row in _TIMM),
    *(
        Preset(
            architecture=architecture,
            tag="augreg2_imagenet21k+imagenet2012-224",
            addresses=(f"hf://timm/{name}",),
            resolution=224,
            classes=CLASSES_1K,
            fields={"gelu_approximate": False, "position_interpolation": "bicubic"},
            preprocessing=_timm_crop(224),
            accuracy=accuracy,
            accuracy_source=TIMM_RESULTS,
            **_STORY,
        )
        for architecture, name, accuracy in _AUGREG2
    ),
]
