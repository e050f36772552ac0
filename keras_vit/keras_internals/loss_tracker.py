"""Assumption: a compiled model has the metric of its loss in `_loss_tracker`.

`Model.metrics` has it among the others, and nothing public tells which one it is.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from typing import Any

import keras

from keras_vit.keras_internals.assumption import private


def track_loss(model: keras.Model, loss: Any, rows: Any) -> None:
    """Counts the loss of a batch in what `fit` shows as `loss`.

    Args:
        model: a compiled model.
        loss: scalar, the mean over the rows.
        rows: number of rows.
    """
    tracker = private(model, "_loss_tracker", "Training on several devices")
    tracker.update_state(loss, sample_weight=rows)
