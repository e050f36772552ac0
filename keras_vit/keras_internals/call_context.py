"""Assumption: Keras notes the outermost layer of a call as `current_call_ctx`.

A layer has no public way to learn which model calls it, and whether that one is training.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import keras

from keras_vit.keras_internals.assumption import internal


def outermost_training_layer() -> keras.layers.Layer | None:
    """The outermost layer of the call that is running, if it is called to train."""
    feature = "The check of a model's paths on torch"
    find = internal("backend.common.global_state", "get_global_attribute", feature)
    context = find("current_call_ctx")
    is_training = context is not None and context.get_value("training")
    return getattr(context, "entry_layer", None) if is_training else None
