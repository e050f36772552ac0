"""Assumption: Keras calls `Layer._post_build` when a layer has been built.

Keras has no public hook at the end of `build`, when all layers and weights inside exist
and the layer still takes changes.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import keras

from keras_vit.keras_internals.assumption import private


class AfterBuild:
    """A base, before `keras.layers.Layer`, with `after_build` at the end of `build`."""

    def _post_build(self):
        super()._post_build()
        self.after_build()

    def after_build(self) -> None:
        """Called once, when all layers and weights inside exist."""


def check_post_build() -> None:
    """Raises an `AssumptionError` if Keras has no such hook."""
    private(keras.layers.Layer, "_post_build", "`trainable_parts`")
