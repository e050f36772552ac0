"""Published checkpoints, as rows of data."""

import difflib

from keras_vit.presets import (
    aimv2,
    augreg,
    beit,
    big_vision,
    bit,
    clip,
    efficientnet,
    google,
    hugging_face,
    meta,
    rotary,
    timm,
)
from keras_vit.presets.augreg import (
    AugRegRecipe,
    augreg_preset,
    is_augreg_name,
    parse_augreg,
)
from keras_vit.presets.bit import is_vtab_name, vtab_preset
from keras_vit.presets.preset import Preprocessing, Preset

# An architecture's first row is the default of its constructor's `weights`.
_FAMILIES = (augreg, google, big_vision, meta, clip, hugging_face, timm, rotary, beit, bit)
_FAMILIES += (efficientnet, aimv2)
PRESETS = {row.name: row for family in _FAMILIES for row in family.PRESETS}


class UnknownPresetError(ValueError):
    """There is no preset of a name."""


def find_preset(name: str) -> Preset:
    """Finds a preset by its name, or by the name of a file of AugReg or of BiT on VTAB.

    Names of files may have a folder and `.npz`.

    Raises:
        UnknownPresetError: if there is none.
        ValueError: if the name of a file is malformed.
    """
    if name in PRESETS:
        return PRESETS[name]
    if is_augreg_name(name):
        return augreg_preset(name)
    if is_vtab_name(name):
        return vtab_preset(name)
    close = difflib.get_close_matches(name, PRESETS, n=5)
    hint = f" Near it: {', '.join(close)}." if close else ""
    raise UnknownPresetError(
        f"Unknown preset {name!r}.{hint} Expected a name that "
        "`keras_vit.list_presets()` lists, or the name of a file of AugReg or BiT on VTAB."
    )


__all__ = [
    "PRESETS",
    "AugRegRecipe",
    "Preprocessing",
    "Preset",
    "UnknownPresetError",
    "augreg_preset",
    "find_preset",
    "is_augreg_name",
    "is_vtab_name",
    "parse_augreg",
    "vtab_preset",
]
