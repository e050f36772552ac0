"""Published checkpoints, as rows of data."""

from keras_vit.presets.google import PRESETS

__all__ = ["PRESETS"]
