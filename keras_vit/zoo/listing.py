"""List of the published checkpoints."""

from collections.abc import Iterable, Sequence

from keras_vit import arguments
from keras_vit.presets import PRESETS, Preset
from keras_vit.presets.preset import MIB
from keras_vit.presets.timm_scores import DATA_SETS
from keras_vit.tables import shape_text, table


class PresetList(Sequence):
    """A sequence of presets that prints as a table.

    Example:

    >>> list_presets("MAE")
    name         parameters  resolution  classes  family  license       MiB  top-1
    ViTB16.mae   85,798,656   224 × 224        0  MAE     CC-BY-NC-4.0    -   67.8
    …
    """

    def __init__(self, presets: Iterable[Preset]):
        self._presets = tuple(presets)

    def __len__(self):
        return len(self._presets)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return PresetList(self._presets[index])
        return self._presets[index]

    def __repr__(self):
        header = ("name", "parameters", "resolution", "classes", "family", "license")
        header += ("MiB", "top-1")
        return table([header, *map(_row, self._presets)], left=(0, 4, 5))

    def scores(self) -> str:
        """Table of the published scores, top-1 in percent, of the presets that have any."""
        header = ("name", *(title for title, _ in DATA_SETS.values()))
        rows = [
            (preset.name, *_scores(preset)) for preset in self._presets if preset.scores
        ]
        return table([header, *rows], left=(0,))


def list_presets(family: str | None = None) -> PresetList:
    """Lists the published checkpoints that have a name here.

    Args:
        family: name of a family, such as `"AugReg"` or `"DINOv2"`, in any case; `None`
            for all families.

    Returns:
        A sequence of presets that prints as a table. Top-1 is the accuracy on ImageNet-1k
        in percent. Zero-shot and linear classification stand beside fine-tuned models:
        `describe` names the source of each score. `scores()` of the sequence is a table
        of the scores on ImageNet-1k and the test sets of its classes.

    Raises:
        ValueError: if the family is unknown.

    Example:

    >>> print(list_presets("DINOv2"))
    >>> print(list_presets("BEiT").scores())  # on ImageNet's other test sets, too
    >>> [preset.name for preset in list_presets() if preset.parameters < 10_000_000]
    """
    if family is None:
        return PresetList(PRESETS.values())
    chosen = [p for p in PRESETS.values() if p.family.lower() == str(family).lower()]
    if not chosen:
        families = dict.fromkeys(preset.family for preset in PRESETS.values())
        raise ValueError(
            f"Unknown `family`: {family!r}. Families: {', '.join(map(repr, families))}, "
            "or None for all."
        )
    return PresetList(chosen)


def _row(preset):
    size, accuracy = preset.size_bytes, preset.accuracy
    return (
        preset.name,
        f"{preset.parameters:,}",
        shape_text(arguments.pair(preset.resolution, "resolution")),
        str(preset.classes),
        preset.family,
        preset.license or "-",
        "-" if size is None else f"{size / MIB:,.0f}",
        "-" if accuracy is None else f"{accuracy:.1f}",
    )


def _scores(preset):
    scores = preset.scores
    return [f"{scores[name].accuracy:.1f}" if name in scores else "-" for name in DATA_SETS]
