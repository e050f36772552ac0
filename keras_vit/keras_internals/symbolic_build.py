"""Assumption: `Model._symbolic_build` makes metrics and optimizer from symbolic batches.

Keras makes the variables of metrics in the first step. There is no public way to make them
before, without data.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from typing import Any

import keras

from keras_vit.keras_internals.assumption import private


def symbolic_build(model: keras.Model, batch: Any, feature: str) -> None:
    """Makes the variables of a compiled model's metrics and optimizer.

    Args:
        model: a compiled model.
        batch: structure of `keras.KerasTensor`, as a batch of data.
        feature: what needs it, for the error.
    """
    private(model, "_symbolic_build", feature)(data_batch=batch)
