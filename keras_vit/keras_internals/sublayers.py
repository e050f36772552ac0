"""Assumption: a layer lists the layers inside it and its own trainable variables.

Keras' public `Model.layers` holds the outermost layers, and a `Layer` has nothing of the
kind. `Layer._flatten_layers` yields all layers inside, each once; `Layer._layers` holds
those directly inside, and `Layer._trainable_variables` the weights of the layer itself
that it was given as trainable, whatever `trainable` says now.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from collections.abc import Iterator

import keras

from keras_vit.keras_internals.assumption import private

_FEATURE = "Looking into a layer"


def all_layers(
    layer: keras.layers.Layer, include_self: bool = True
) -> Iterator[keras.layers.Layer]:
    """The layers inside a layer, at any depth, each once; first the layer itself."""
    return private(layer, "_flatten_layers", _FEATURE)(include_self=include_self)


def direct_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers directly inside a layer, in the order of its attributes."""
    return private(layer, "_layers", _FEATURE)


def own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights of a layer itself that were made trainable, frozen or not."""
    return private(layer, "_trainable_variables", _FEATURE)
