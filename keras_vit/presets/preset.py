"""A published checkpoint: architecture, origin, preprocessing and score."""

import functools
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, NamedTuple

from keras_vit import arguments
from keras_vit.models.sizes import architecture_fields, count_parameters
from keras_vit.presets.timm_scores import DATA_SETS, timm_scores

MIB, GIB = 2**20, 2**30
_TIMM_HUB = "hf://timm/"
# Licenses that allow any use of the weights, also commercial.
PERMISSIVE = ("Apache-2.0", "MIT")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Preprocessing of images before the model, as its source describes it.

    Attributes:
        mean: value subtracted from each channel, for pixel values in [0, 1].
        std: value that each channel is then divided by. Mean and standard deviation of
            0.5 give [-1, 1].
        crop_fraction: side of the central crop as a fraction of the shorter side of the
            resized image; 1.0 crops nothing from that side; `None` if unknown.
        interpolation: `"bilinear"`, `"bicubic"` or `"area"`; `None` if unknown.
        squash: bool, whether the whole image is resized to a square, whatever its aspect
            ratio, instead of by its shorter side.
    """

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    crop_fraction: float | None = None
    interpolation: str | None = None
    squash: bool = False


class Score(NamedTuple):
    """A published score: top-1 in percent, and its source."""

    accuracy: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published checkpoint. `None` stands for what no source states.

    Attributes:
        architecture: name of the constructor, if there is one: `"ViT"`, a size of
            `models.sizes` and the patch size, such as `"ViTB16"`; or the name of a hybrid
            or a BiT.
        tag: value of the constructor's `weights`.
        family: name of the series of checkpoints.
        addresses: addresses of the file, the preferred one first, then mirrors of the
            same weights: `gs://…`, `https://…` or `hf://owner/name`; `….npz:img` is
            the sub-tree `img` of a file.
        resolution: height and width of the images in pixels, or (height, width).
        classes: outputs of the head, 0 for none. For CLIP: width of the embedding.
        fields: arguments of the model that differ from their defaults, besides size,
            patch size, resolution and classes.
        resized: bool, whether patches and positions of the file have another size, and
            are resized to that of the row (FlexiViT).
        preprocessing: preprocessing of the images.
        license: SPDX identifier of the license of the weights, or the Hub's identifier of
            one that has none there, such as `apple-ascl`.
        paper: title and arXiv identifier.
        accuracy: top-1 on the validation images of ImageNet-1k, in percent.
        accuracy_source: source of the accuracy, and the kind of evaluation if it does not
            use the checkpoint's own head.
        size_bytes: size of the file at the first address, as precise as its listing.
    """

    architecture: str
    tag: str
    family: str
    addresses: tuple[str, ...]
    resolution: int | tuple[int, int]
    classes: int
    fields: Mapping = field(default_factory=dict, hash=False)
    resized: bool = False
    preprocessing: Preprocessing = Preprocessing()
    license: str | None = None
    paper: str | None = None
    accuracy: float | None = None
    accuracy_source: str | None = None
    size_bytes: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))

    def __reduce__(self):
        # Python cannot copy a read-only mapping.
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return functools.partial(Preset, **(values | {"fields": dict(self.fields)})), ()

    @property
    def name(self) -> str:
        """`architecture.tag`, unique among the presets."""
        return f"{self.architecture}.{self.tag}"

    @property
    def address(self) -> str:
        """Preferred address."""
        return self.addresses[0]

    @property
    def parameters(self) -> int:
        """Exact number of parameters of the model that `config` describes."""
        return count_parameters(**self.config())

    @property
    def scores(self) -> dict[str, Score]:
        """Published scores on ImageNet-1k and the test sets of its classes, by data set.

        The names are `"imagenet2012"`, `"imagenet_real"`, `"imagenet_v2"`, `"imagenet_a"`,
        `"imagenet_r"` and `"imagenet_sketch"`; data sets without a score are left out. They
        are timm's, of these weights at this resolution, measured in one way. Where timm has
        none, `"imagenet2012"` is `accuracy`, of a classifier of 1000 classes.
        """
        timm = next((a for a in self.addresses if a.startswith(_TIMM_HUB)), "")
        key = (timm.removeprefix(_TIMM_HUB), self.resolution)
        scores = {
            name: Score(accuracy, f"timm's {DATA_SETS[name][1]}")
            for name, accuracy in timm_scores().get(key, {}).items()
        }
        if not scores and self.accuracy is not None and self.classes == 1000:
            scores["imagenet2012"] = Score(self.accuracy, self.accuracy_source)
        return scores

    def published(self, data_set: str) -> float | None:
        """Returns the published top-1 on a data set in percent, `None` if none is known.

        Args:
            data_set: name of a data set, as in `scores`, such as `"imagenet_real"`.

        Raises:
            ValueError: if there are no scores of the data set.
        """
        arguments.one_of(data_set, tuple(DATA_SETS), "data_set")
        score = self.scores.get(data_set)
        return None if score is None else score.accuracy

    @property
    def is_restricted(self) -> bool:
        """True if the license of the weights does not allow every use of them."""
        return self.license is not None and self.license not in PERMISSIVE

    @property
    def licence(self) -> str | None:
        """Old spelling of `license`."""
        _warn_of_licence(stacklevel=3)
        return self.license

    def config(self) -> dict:
        """Arguments of the model that the checkpoint fills."""
        return {
            "image_size": self.resolution,
            **architecture_fields(self.architecture),
            "classes": self.classes,
            **self.fields,
        }


# Sizes in timm's names → those of `models.sizes`.
_TIMM_SIZES = {
    **{
        "tiny": "Ti",
        "xsmall": "Xs",
        "small": "S",
        "medium": "M",
        "base": "B",
        "base_plus": "Bplus",
    },
    **{"large": "L", "huge": "H", "giant": "g", "gigantic": "G", "so400m": "So400m"},
    **{"so150m": "So150m", "so150m2": "So150m2_"},
}


def timm_fields(name: str) -> dict[str, Any]:
    """Architecture, address and resolution that timm's name of a checkpoint states.

    Args:
        name: such as `"vit_base_patch16_clip_384.openai_ft_in1k"`.
    """
    size, patch, plus, resolution = re.fullmatch(
        r"(?:vit|eva(?:02)?|beit(?:v2)?)_([a-z0-9]+)_patch(\d+)(_plus)?_(?:\w+_)?(\d+)\..*",
        name,
    ).groups()
    size = _TIMM_SIZES.get(f"{size}{plus or ''}", size)
    return {
        "architecture": f"ViT{size}{patch}",
        "addresses": (f"{_TIMM_HUB}{name}",),
        "resolution": int(resolution),
    }


# Data sets in timm's tags → in ours.
_TIMM_DATA = {
    **{"in1k": "imagenet2012", "in12k": "imagenet12k"},
    **{"in21k": "imagenet21k", "in22k": "imagenet21k"},
}


def timm_data(tag: str) -> list[str]:
    """Names here of the data sets that a tag of timm's names, in order."""
    return [_TIMM_DATA[part] for part in tag.split("_") if part in _TIMM_DATA]


def _accept_licence(init):
    """`Preset.__init__` that also accepts the old spelling of `license`."""

    @functools.wraps(init)
    def __init__(self, **values):  # noqa: N807
        if "licence" in values:
            _warn_of_licence(stacklevel=3)
            values["license"] = values.pop("licence")
        init(self, **values)

    return __init__


def _warn_of_licence(stacklevel):
    message = "`licence` is now called `license`. The old name works for one release."
    warnings.warn(message, FutureWarning, stacklevel=stacklevel)


Preset.__init__ = _accept_licence(Preset.__init__)
