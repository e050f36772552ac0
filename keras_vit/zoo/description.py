"""Description of a checkpoint, an architecture or a model, with its cost."""

import os
from collections.abc import Mapping
from dataclasses import fields

import keras

from keras_vit import arguments
from keras_vit.cost import cost
from keras_vit.models import ImageModel
from keras_vit.models.sizes import architecture_fields
from keras_vit.presets import (
    Preset,
    UnknownPresetError,
    find_preset,
    is_augreg_name,
    parse_augreg,
)
from keras_vit.presets.preset import MIB
from keras_vit.presets.timm_scores import DATA_SETS
from keras_vit.tables import shape_text, table


class Description:
    """Facts about a model and the cost of its inference; prints as a table.

    The attributes of its preset, if it has one, are attributes of the description too.

    Attributes:
        name: name of the preset, architecture or model.
        preset: the `Preset`, or `None`.
        recipe: the `AugRegRecipe` of a checkpoint of AugReg, else `None`.
        image_size: (height, width) of the images that the costs are computed for.
        batch_size: number of images that the costs are computed for.
        dtype: dtype that the layers compute in.
        parameters: number of parameters, at this image size.
        multiply_accumulates: multiply-accumulates of the whole batch; FLOPs are twice as
            many.
        multiply_accumulates_by_part: a dictionary of the same by part of the model.
        peak_activation_bytes: memory of the inference besides the weights, as
            `keras_vit.cost.cost` defines it.
    """

    def __init__(
        self,
        name: str,
        config: Mapping,
        preset: Preset | None = None,
        *,
        image_size: int | tuple[int, int] | None = None,
        batch_size: int = 1,
        dtype: str = "float32",
        flash_attention: bool = False,
    ):
        self.preset = preset
        self.name = name
        self.recipe = None
        if preset and "/augreg/" in preset.address and is_augreg_name(preset.address):
            self.recipe = parse_augreg(preset.address)
        self._config = dict(config)
        if image_size is None:
            image_size = config["image_size"]
        self.image_size = arguments.pair(image_size, "image_size")
        self.batch_size, self.dtype = batch_size, dtype
        costs = cost(
            config,
            image_size=image_size,
            batch_size=batch_size,
            dtype=dtype,
            flash_attention=flash_attention,
        )
        self.parameters = costs.parameters
        self.multiply_accumulates = costs.multiply_accumulates
        self.multiply_accumulates_by_part = costs.multiply_accumulates_by_part
        self.peak_activation_bytes = costs.peak_activation_bytes

    def config(self) -> dict:
        """Arguments of the model."""
        return dict(self._config)

    def __getattr__(self, name):
        # "preset" is missing before __init__, when an object is copied.
        if name == "preset" or self.preset is None:
            raise AttributeError(f"This description has no attribute {name!r}.")
        return getattr(self.preset, name)

    def __repr__(self):
        lines = [("name", self.name)]
        if self.preset:
            lines += _origin(self.preset)
        lines.append(("parameters", f"{self.parameters:,}"))
        if self.preset:
            lines += [*_score(self.preset), *_preprocessing(self.preset)]
        rows = [(key, "unknown" if value is None else str(value)) for key, value in lines]
        rows += [*_arguments(self._config), *_costs(self)]
        return table(rows + _recipe_details(self.recipe), left=(0, 1))


def describe(
    source: str | Preset | ImageModel,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 1,
    dtype: str | None = None,
    flash_attention: bool = False,
) -> Description:
    """Describes a checkpoint or an architecture, and the cost of its inference.

    The costs are computed from the architecture: nothing is downloaded, no model built.

    Args:
        source: name of a preset, such as `"ViTB16.imagenet21k"`; name of any file of
            AugReg, or of BiT fine-tuned on VTAB, with or without folder and `.npz`; a
            `Preset`; name of an architecture with 1000 classes, such as `"ViTB16"`,
            `"R50ViTB16"` or `"BiTR50x1"`; or a model.
        image_size: int or (height, width) in pixels, for the costs; `None` for the
            source's, 224 for an architecture.
        batch_size: int, number of images, for the costs.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`, the dtype that layers compute in,
            or a policy such as `"mixed_bfloat16"`; `None` for the model's, or float32.
        flash_attention: bool, whether attention never holds all of its scores in memory.
            `keras_vit.cost.cost` defines this, and the memory.

    Returns:
        A `Description`, which prints as a table. A preset's has its origin, architecture,
        preprocessing and score, and its attributes.

    Raises:
        ValueError: if there is no such preset, the name of a file is malformed, or the
            model cannot take images of this size.

    Example:

    >>> print(describe("ViTB16.siglip2-256"))
    >>> describe("ViTB16", image_size=384).multiply_accumulates / 1e9
    51.576471552
    """
    options = {"image_size": image_size, "batch_size": batch_size}
    options |= {"dtype": dtype or "float32", "flash_attention": flash_attention}
    if isinstance(source, ImageModel):
        options["dtype"] = dtype or source.dtype_policy.compute_dtype
        return Description(source.name, source.get_config(), **options)
    if isinstance(source, str) and (config := _architecture_config(source)):
        return Description(source, config, **options)
    preset = source if isinstance(source, Preset) else _find_preset(source)
    return Description(preset.name, preset.config(), preset, **options)


def _architecture_config(name):
    """Arguments of the model of an architecture, or `None` if there is none."""
    try:
        fields = architecture_fields(name)
    except ValueError:
        return None
    return {"image_size": 224, **fields, "classes": 1000}


def _find_preset(name):
    if not isinstance(name, str):
        raise ValueError(
            "`describe` takes a name, a `Preset`, or a model of this package. "
            f"Received: {name!r}"
        )
    try:
        return find_preset(name)
    except UnknownPresetError as error:
        if os.path.exists(name):
            raise ValueError(
                "`describe` takes a name or a model. Received: the file or folder "
                f"{name!r}. `keras-vit inspect` shows its contents."
            ) from error
        raise UnknownPresetError(
            f"{error} Or give the name of an architecture, such as 'ViTB16'."
        ) from None


def _origin(preset):
    size = preset.size_bytes
    return [
        ("family", preset.family),
        ("paper", preset.paper),
        ("license", preset.license),
        ("address", preset.address),
        *(("mirror", address) for address in preset.addresses[1:]),
        ("size of the file", None if size is None else f"{size / MIB:,.1f} MiB"),
    ]


def _score(preset):
    accuracy = preset.accuracy
    lines = [("ImageNet-1k top-1", None if accuracy is None else f"{accuracy} %")]
    if preset.accuracy_source:
        lines.append(("as stated by", preset.accuracy_source))
    scores = dict(preset.scores)
    first = scores.pop("imagenet2012", None)
    if first and first.source != preset.accuracy_source:
        lines.append(("ImageNet-1k top-1 by timm", f"{first.accuracy} %"))
    for name, score in scores.items():
        lines.append((f"{DATA_SETS[name][0]} top-1", f"{score.accuracy} %"))
    if scores:
        lines.append(("as stated by", "timm's tables of results"))
    return lines


def _preprocessing(preset):
    steps = preset.preprocessing
    if steps.crop_fraction is not None:
        resized = "the whole image" if steps.squash else "the shorter side"
        crop = f"{steps.interpolation}, {resized}; central crop of {steps.crop_fraction}"
    else:
        crop = None
    return [("resize", crop), ("mean", steps.mean), ("std", steps.std)]


def _arguments(config):
    """Arguments of the model; `none` for parts that it does not have."""
    rows = {key: value for key, value in config.items() if key != "name"}
    if not isinstance(rows.get("dtype", ""), str | None):
        rows["dtype"] = keras.dtype_policies.get(rows["dtype"]).name
    return [(key, "none" if value is None else str(value)) for key, value in rows.items()]


def _costs(description):
    images = "image" if description.batch_size == 1 else "images"
    parts = description.multiply_accumulates_by_part.items()
    size, dtype = shape_text(description.image_size), description.dtype
    return [
        ("cost of", f"{description.batch_size} {images} of {size} pixels in {dtype}"),
        ("multiply-accumulates", f"{description.multiply_accumulates:,}"),
        *((f"  {part}", f"{number:,}") for part, number in parts),
        ("peak activation memory", f"{description.peak_activation_bytes / MIB:,.1f} MiB"),
    ]


def _recipe_details(recipe):
    if recipe is None:
        return []
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    return [
        (f"recipe: {key}", str(value))
        for key, value in values.items()
        if value is not None and key not in ("file", "architecture")
    ]
