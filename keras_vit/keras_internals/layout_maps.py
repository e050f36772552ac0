"""Assumption: a `keras.distribution.ModelParallel` keeps its map in `_layout_map`.

A distribution takes a `LayoutMap` and has no public way to read it.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import keras

from keras_vit.keras_internals.assumption import private


def layout_map(
    distribution: keras.distribution.ModelParallel,
) -> keras.distribution.LayoutMap:
    """The layouts that a distribution was given."""
    return private(distribution, "_layout_map", "The check of a distribution")
