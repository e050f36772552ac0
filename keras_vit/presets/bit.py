"""Checkpoints of *Big Transfer* and of its distilled models (`gs://bit_models`).

Sources: README, `bit_hyperrule.py` and `bit_pytorch/train.py` of
google-research/big_transfer (addresses, names of the VTAB files, resolution and resizing
in fine-tuning); `configs/bit_i1k.py` and `configs/proj/distill` of
google-research/big_vision (teachers, scores, evaluation at 224 and 128 pixels);
`resnetv2.py` and `results-imagenet.csv` of huggingface/pytorch-image-models (timm:
mirrors, their resolution, crops and scores), as recorded in November 2026. No source
states the sizes of the files.

`vtab_preset` makes a row for any of the 285 files of BiT-M fine-tuned on VTAB-1k from its
name.
"""

import re

from keras_vit.presets.google import CLASSES_1K, CLASSES_21K, RESIZED, TIMM_RESULTS
from keras_vit.presets.preset import Preprocessing, Preset

FAMILY = "BiT"
BUCKET = "gs://bit_models"
_BIT = {
    "family": FAMILY,
    "license": "Apache-2.0",
    "paper": "Big Transfer (BiT): General Visual Representation Learning "
    "(arXiv 1912.11370)",
}
_DISTILLED = {
    "family": FAMILY,
    "license": "Apache-2.0",
    "paper": "Knowledge distillation: A good teacher is patient and consistent "
    "(arXiv 2106.05237)",
}

# BiT-S has no mirror; it is evaluated at the same resolution and crop.
_PRETRAINED = Preprocessing(crop_fraction=0.875, interpolation="bilinear")
_FINETUNED = Preprocessing(crop_fraction=1.0, interpolation="bilinear")

# ResNet, timm's name, resolution of its evaluation and top-1 of the fine-tuned file.
_RESNETS = [
    ("R50x1", "resnetv2_50x1_bit", 448, 80.378),
    ("R50x3", "resnetv2_50x3_bit", 448, 83.992),
    ("R101x1", "resnetv2_101x1_bit", 448, 82.332),
    ("R101x3", "resnetv2_101x3_bit", 448, 84.430),
    ("R152x2", "resnetv2_152x2_bit", 448, 84.480),
    ("R152x4", "resnetv2_152x4_bit", 480, 84.924),
]

# Students and teachers: tag, file, resolution, classes, preprocessing, timm's name, top-1.
# No source states a crop that is None.
_AREA_224 = Preprocessing(crop_fraction=0.875, interpolation="area")
_AREA_128 = Preprocessing(crop_fraction=0.8, interpolation="area")
_STUDENTS_AND_TEACHERS = [
    (
        "distilled_imagenet2012-224",
        "R50x1_224",
        224,
        CLASSES_1K,
        _AREA_224,
        "resnetv2_50x1_bit.goog_distilled_in1k",
        82.8,
    ),
    (
        "distilled_imagenet2012-160",
        "R50x1_160",
        160,
        CLASSES_1K,
        Preprocessing(),
        None,
        80.5,
    ),
    (
        "teacher_imagenet21k+imagenet2012-224",
        "R152x2_T_224",
        224,
        CLASSES_1K,
        _AREA_224,
        "resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k",
        83.0,
    ),
    (
        "teacher_imagenet21k+imagenet2012-384",
        "R152x2_T_384",
        384,
        CLASSES_1K,
        Preprocessing(crop_fraction=1.0, interpolation="bicubic"),
        "resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k_384",
        84.3,
    ),
    *(
        (f"teacher_{task}-128", f"R152x2_T_{name}128", 128, classes, _AREA_128, None, None)
        for name, task, classes in [
            ("flowers", "oxford_flowers102", 102),
            ("pet", "oxford_iiit_pet", 37),
            ("food", "food101", 101),
            ("sun", "sun397", 397),
        ]
    ),
]

# Classes of VTAB's tasks, as file names spell them.
_VTAB_CLASSES = {
    "caltech101": 102,
    "cifar100": 100,
    "dtd": 47,
    "oxford_flowers102": 102,
    "oxford_iiit_pet": 37,
    "sun397": 397,
    "svhn": 10,
    "patch_camelyon": 2,
    "eurosat": 10,
    "resisc45": 45,
    "diabetic_retinopathy": 5,
    "clevr-count": 8,
    "clevr-distance": 6,
    "dmlab": 6,
    "kitti-distance": 4,
    "dsprites-xpos": 16,
    "dsprites-orientation": 16,
    "smallnorb-azimuth": 18,
    "smallnorb-elevation": 9,
}
# BiT's rule: images of less than 96 × 96 pixels are fine-tuned at 128, others at 480.
_VTAB_SMALL = {"cifar100", "svhn", "eurosat", "dsprites-xpos", "dsprites-orientation"}
_VTAB_RESNETS = ("R50x1", "R101x1", "R50x3", "R101x3", "R152x4")
_VTAB_RUNS = ("0", "1", "2")


def is_vtab_name(text: str) -> bool:
    """True if a text without its folders begins like the names of BiT's VTAB files.

    Such a name may still be malformed; `vtab_preset` checks it.
    """
    return re.match(r"BiT-M-R\d+x\d+-run", _stem(text)) is not None


def vtab_preset(name: str) -> Preset:
    """Row of a BiT-M fine-tuned on VTAB-1k, made from the name of its file.

    Args:
        name: `BiT-M-{ResNet}-run{0, 1 or 2}-{task}`, with or without folder and `.npz`.

    Returns:
        A `Preset`. No source states the resolution of these files: the row has that of
        BiT's rule, 128 pixels for tasks of small images and 480 for the others.

    Raises:
        ValueError: if the name is malformed, or has an unknown ResNet, run or task.
    """
    file = _stem(name)
    match = re.fullmatch(r"BiT-M-(R\d+x\d+)-run(\d+)-([\w-]+)", file)
    if not match:
        raise ValueError(
            f"Not the name of a VTAB checkpoint of BiT: {name!r}. Expected "
            "BiT-M-{ResNet}-run{0, 1 or 2}-{task}, such as 'BiT-M-R50x1-run0-caltech101'"
        )
    for part, received, known in zip(
        ("ResNet", "run", "task"),
        match.groups(),
        (_VTAB_RESNETS, _VTAB_RUNS, _VTAB_CLASSES),
        strict=True,
    ):
        if received not in known:
            raise ValueError(
                f"Unknown {part} {received!r} in {file!r}. The VTAB checkpoints of BiT "
                f"are of: {', '.join(known)}."
            )
    resnet, _, task = match.groups()
    return Preset(
        architecture=f"BiT{resnet}",
        tag=file,
        addresses=(f"{BUCKET}/vtab/{file}.npz",),
        resolution=128 if task in _VTAB_SMALL else 480,
        classes=_VTAB_CLASSES[task],
        preprocessing=RESIZED,
        **_BIT,
    )


def _stem(text):
    return text.rsplit("/", 1)[-1].removesuffix(".npz")


PRESETS = [
    *(
        Preset(
            architecture=f"BiT{resnet}",
            tag="imagenet21k+imagenet2012",
            addresses=(
                f"{BUCKET}/BiT-M-{resnet}-ILSVRC2012.npz",
                f"hf://timm/{timm}.goog_in21k_ft_in1k",
            ),
            resolution=resolution,
            classes=CLASSES_1K,
            preprocessing=_FINETUNED,
            accuracy=accuracy,
            accuracy_source=TIMM_RESULTS,
            **_BIT,
        )
        for resnet, timm, resolution, accuracy in _RESNETS
    ),
    *(
        Preset(
            architecture=f"BiT{resnet}",
            tag="imagenet21k",
            addresses=(f"{BUCKET}/BiT-M-{resnet}.npz", f"hf://timm/{timm}.goog_in21k"),
            resolution=224,
            classes=CLASSES_21K,
            preprocessing=_PRETRAINED,
            **_BIT,
        )
        for resnet, timm, _, _ in _RESNETS
    ),
    *(
        Preset(
            architecture=f"BiT{resnet}",
            tag="imagenet2012",
            addresses=(f"{BUCKET}/BiT-S-{resnet}.npz",),
            resolution=224,
            classes=CLASSES_1K,
            preprocessing=_PRETRAINED,
            **_BIT,
        )
        for resnet, *_ in _RESNETS
    ),
    *(
        Preset(
            architecture="BiT" + file.split("_")[0],
            tag=tag,
            addresses=(
                f"{BUCKET}/distill/{file}.npz",
                *((f"hf://timm/{timm}",) if timm else ()),
            ),
            resolution=resolution,
            classes=classes,
            preprocessing=preprocessing,
            accuracy=accuracy,
            accuracy_source=accuracy
            and "configs/proj/distill/README.md of google-research/big_vision",
            **_DISTILLED,
        )
        for tag, file, resolution, classes, preprocessing, timm, accuracy in (
            _STUDENTS_AND_TEACHERS
        )
    ),
]
