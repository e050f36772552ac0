"""What checkpoints there are, as tables to read."""

from collections.abc import Sequence
from dataclasses import fields

from keras_vit.presets import PRESETS, Preset, find_preset, is_augreg_name, parse_augreg
from keras_vit.tables import table

_MIB = 2**20


class PresetList(Sequence):
    """A sequence of presets that prints as a table.

    Example:

    >>> list_presets("MAE")
    name        parameters     resolution  classes  family  MiB  top-1
    ViTB16.mae   85,798,656     224 × 224        0  MAE       -   67.8
    …
    """

    def __init__(self, presets):
        self._presets = tuple(presets)

    def __len__(self):
        return len(self._presets)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return PresetList(self._presets[index])
        return self._presets[index]

    def __repr__(self):
        header = ("name", "parameters", "resolution", "classes", "family", "MiB", "top-1")
        return table([header, *map(_summary, self._presets)], left=(0, 4))


class Description:
    """Everything that is known of a preset; prints as a table of two columns.

    Attributes:
        preset: the `Preset`; its attributes are the description's too.
        recipe: of AugReg's checkpoints the `AugRegRecipe`, else `None`.
    """

    def __init__(self, preset: Preset):
        self.preset = preset
        self.recipe = None
        if "/augreg/" in preset.address and is_augreg_name(preset.address):
            self.recipe = parse_augreg(preset.address)

    def __getattr__(self, name):
        if name == "preset":  # before __init__, when an object is copied
            raise AttributeError(name)
        return getattr(self.preset, name)

    def __repr__(self):
        return table(_details(self.preset) + _recipe_details(self.recipe), left=(0, 1))


def list_presets(family: str | None = None) -> PresetList:
    """The published checkpoints that have a name here.

    Args:
        family: one of the families, such as `"AugReg"` or `"DINOv2"`, in any case;
            `None` for all.

    Returns:
        A sequence of presets that prints as a table. Top-1 is that of ImageNet-1k in
        percent, of which `describe` tells the source: scores of zero-shot and linear
        classification stand beside those of fine-tuned models.

    Raises:
        ValueError: if the family is unknown.

    Example:

    >>> print(list_presets("DINOv2"))
    >>> [preset.name for preset in list_presets() if preset.parameters < 10_000_000]
    """
    families = dict.fromkeys(preset.family for preset in PRESETS.values())
    if family is None:
        return PresetList(PRESETS.values())
    chosen = [p for p in PRESETS.values() if p.family.lower() == str(family).lower()]
    if not chosen:
        raise ValueError(
            f"Unknown `family`: {family!r}. Families: {', '.join(map(repr, families))}, "
            "or None for all."
        )
    return PresetList(chosen)


def describe(preset: str | Preset) -> Description:
    """What is known of a checkpoint: its origin, architecture, preprocessing and score.

    Args:
        preset: name of a preset, such as `"ViTB16.imagenet21k"`; the name of any file of
            AugReg or of BiT fine-tuned on VTAB, with or without folder and `.npz`; or a
            `Preset`.

    Returns:
        An object that prints as a table and has the preset's attributes.

    Raises:
        ValueError: if there is no such preset, or the name of a file is malformed.

    Example:

    >>> print(describe("ViTB16.siglip2-256"))
    """
    return Description(preset if isinstance(preset, Preset) else find_preset(preset))


def _summary(preset):
    size, accuracy = preset.size_bytes, preset.accuracy
    return (
        preset.name,
        f"{preset.parameters:,}",
        _pixels(preset.resolution),
        str(preset.classes),
        preset.family,
        "-" if size is None else f"{size / _MIB:,.0f}",
        "-" if accuracy is None else f"{accuracy:.1f}",
    )


def _details(preset):
    size, accuracy = preset.size_bytes, preset.accuracy
    lines = [
        ("name", preset.name),
        ("family", preset.family),
        ("paper", preset.paper),
        ("licence", preset.licence),
        ("address", preset.address),
        *(("mirror", address) for address in preset.addresses[1:]),
        ("size of the file", None if size is None else f"{size / _MIB:,.1f} MiB"),
        ("parameters", f"{preset.parameters:,}"),
        ("ImageNet-1k top-1", None if accuracy is None else f"{accuracy} %"),
    ]
    if preset.accuracy_source:
        lines.append(("as stated by", preset.accuracy_source))
    lines += [*_preprocessing(preset), *preset.config().items()]
    return [(key, "unknown" if value is None else str(value)) for key, value in lines]


def _preprocessing(preset):
    steps = preset.preprocessing
    if steps.crop_fraction is not None:
        resized = "the whole image" if steps.squash else "the shorter side"
        crop = f"{steps.interpolation}, {resized}; central crop of {steps.crop_fraction}"
    else:
        crop = None
    return [("resize", crop), ("mean", steps.mean), ("std", steps.std)]


def _recipe_details(recipe):
    if recipe is None:
        return []
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    return [
        (f"recipe: {key}", str(value))
        for key, value in values.items()
        if value is not None and key not in ("file", "architecture")
    ]


def _pixels(resolution):
    size = (resolution, resolution) if isinstance(resolution, int) else resolution
    return " × ".join(map(str, size))
