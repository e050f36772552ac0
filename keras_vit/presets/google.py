"""Google's checkpoints of the pure ViTs (google-research/vision_transformer, Apache-2.0).

Sources: the repository's README and notebooks, as recorded in November 2026.
"""

from typing import NamedTuple


class Preset(NamedTuple):
    """A published checkpoint.

    Attributes:
        architecture: name of the constructor.
        tag: what its `weights` takes.
        address: where the file lies.
        resolution: height and width of the images, in pixels.
        classes: outputs of the head.
    """

    architecture: str
    tag: str
    address: str
    resolution: int
    classes: int

    @property
    def name(self) -> str:
        return f"{self.architecture}.{self.tag}"


_BUCKET = "gs://vit_models"
_21K, _1K = 21843, 1000

# AugReg (arXiv 2106.10270), the recommended checkpoint of each size: the recipe of the
# pre-training, then that of the fine-tuning, as the file names spell them.
_AUGREG = {
    "ViTTi16": (
        "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.03-res_384",
    ),
    "ViTS32": (
        "S_32-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.01-res_384",
    ),
    "ViTS16": (
        "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.03-res_384",
    ),
    "ViTB32": (
        "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.01-res_384",
    ),
    "ViTB16": (
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.03-res_384",
    ),
    "ViTB8": (
        "B_8-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.03-res_224",
    ),
    "ViTL16": (
        "L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0",
        "imagenet2012-steps_20k-lr_0.01-res_384",
    ),
}

_PAPER = {
    "ViTB8": "ViT-B_8",
    "ViTB16": "ViT-B_16",
    "ViTB32": "ViT-B_32",
    "ViTL16": "ViT-L_16",
    "ViTL32": "ViT-L_32",
    "ViTH14": "ViT-H_14",
}

# An architecture's first row is the default of its constructor's `weights`.
_ROWS = [
    *(
        Preset(
            architecture,
            "augreg_imagenet21k+imagenet2012",
            f"{_BUCKET}/augreg/{pretrained}--{finetuned}.npz",
            int(finetuned.rpartition("res_")[2]),
            _1K,
        )
        for architecture, (pretrained, finetuned) in _AUGREG.items()
    ),
    *(
        Preset(
            architecture,
            "augreg_imagenet21k",
            f"{_BUCKET}/augreg/{pretrained}.npz",
            224,
            _21K,
        )
        for architecture, (pretrained, _) in _AUGREG.items()
    ),
    *(
        Preset(
            architecture,
            "imagenet21k+imagenet2012",
            f"{_BUCKET}/imagenet21k+imagenet2012/{file}.npz",
            384,
            _1K,
        )
        for architecture, file in _PAPER.items()
        if architecture != "ViTH14"
    ),
    *(
        Preset(
            architecture,
            "imagenet21k+imagenet2012-224",
            f"{_BUCKET}/imagenet21k+imagenet2012/{_PAPER[architecture]}-224.npz",
            224,
            _1K,
        )
        for architecture in ("ViTB16", "ViTL16")
    ),
    *(
        Preset(
            architecture,
            "imagenet21k",
            f"{_BUCKET}/imagenet21k/{file}.npz",
            224,
            _21K,
        )
        for architecture, file in _PAPER.items()
    ),
    *(
        Preset(architecture, "sam_imagenet2012", f"{_BUCKET}/sam/{file}.npz", 224, _1K)
        for architecture, file in _PAPER.items()
        if architecture in ("ViTB16", "ViTB32", "ViTL16", "ViTL32")
    ),
]

PRESETS = {row.name: row for row in _ROWS}
