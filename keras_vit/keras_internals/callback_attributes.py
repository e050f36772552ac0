"""Assumption: these attributes are the state of Keras' callbacks.

Keras has no public way to save a callback, and `fit` sets them anew when it begins.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import keras

# The attributes by class.
STATES: dict[type[keras.callbacks.Callback], tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: (
        *("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    ),
    keras.callbacks.TensorBoard: (
        *("_global_train_batch", "_global_test_batch", "_previous_epoch_iterations"),
    ),
}
