"""Published checkpoints, as rows of data."""

from keras_vit.presets import augreg, big_vision, clip, google, hugging_face, meta
from keras_vit.presets.augreg import (
    AugRegRecipe,
    augreg_preset,
    is_augreg_name,
    parse_augreg,
)
from keras_vit.presets.preset import Preprocessing, Preset

# An architecture's first row is the default of its constructor's `weights`.
_FAMILIES = (augreg, google, big_vision, meta, clip, hugging_face)
PRESETS = {row.name: row for family in _FAMILIES for row in family.PRESETS}

__all__ = [
    "PRESETS",
    "AugRegRecipe",
    "Preprocessing",
    "Preset",
    "augreg_preset",
    "is_augreg_name",
    "parse_augreg",
]
