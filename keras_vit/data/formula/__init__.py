"""Images by formula: no licence, no download, the same bytes on every machine."""

from keras_vit.data.formula.data import formula_images
from keras_vit.data.formula.kinds import KINDS

__all__ = ["KINDS", "formula_images"]
