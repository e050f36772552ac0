"""What is known of a published checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType

from keras_vit.models.sizes import architecture_fields, count_parameters

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What images pass before the model, where its source says so.

    Attributes:
        mean: what is subtracted from each channel, of pixel values in [0, 1].
        std: what each channel is divided by after that. Mean and standard deviation of
            0.5 give [-1, 1].
        crop_fraction: the side of the central crop as a fraction of the resized image's
            shorter side; 1.0 where the crop takes all of it; `None` if unknown.
        interpolation: `"bilinear"`, `"bicubic"` or `"area"`; `None` if unknown.
        squash: bool, whether the image is resized to a square, whatever its aspect
            ratio, instead of by its shorter side.
    """

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    crop_fraction: float | None = None
    interpolation: str | None = None
    squash: bool = False


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published checkpoint; `None` where no source tells.

    Attributes:
        architecture: `"ViT"`, the name of a size of `models.sizes` and the patch size,
            such as `"ViTB16"`, or the name of a hybrid or a BiT: the name of the
            constructor, where there is one.
        tag: what the constructor's `weights` takes.
        family: which series of checkpoints it belongs to.
        addresses: where its files lie, the preferred one first, then mirrors of the
            same weights: `gs://…`, `https://…` or `hf://owner/name`; `….npz:img` is
            the sub-tree `img` of a file.
        resolution: the images' height and width in pixels, or (height, width).
        classes: outputs of the head, 0 for none. Of CLIP: the width of its embedding.
        fields: arguments of the model, besides those of the size, the patch,
            the resolution and the classes, that differ from their defaults.
        resized: bool, whether the file holds patches and positions of another size,
            which are resized to those of the row (FlexiViT).
        preprocessing: what images pass before.
        licence: SPDX identifier of the weights' licence.
        paper: title and arXiv identifier.
        accuracy: top-1 on ImageNet-1k's validation images, in percent.
        accuracy_source: who states the accuracy, and of what where it is not the
            checkpoint's own head.
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
    licence: str | None = None
    paper: str | None = None
    accuracy: float | None = None
    accuracy_source: str | None = None
    size_bytes: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))

    def __reduce__(self):
        # Python cannot copy a read-only mapping.
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return partial(Preset, **(values | {"fields": dict(self.fields)})), ()

    @property
    def name(self) -> str:
        """`architecture.tag`, unique among the presets."""
        return f"{self.architecture}.{self.tag}"

    @property
    def address(self) -> str:
        """The preferred address."""
        return self.addresses[0]

    @property
    def parameters(self) -> int:
        """Exact number of parameters of the model that `config` describes."""
        return count_parameters(**self.config())

    def config(self) -> dict:
        """The arguments of the model that the checkpoint fills."""
        return {
            "image_size": self.resolution,
            **architecture_fields(self.architecture),
            "classes": self.classes,
            **self.fields,
        }
