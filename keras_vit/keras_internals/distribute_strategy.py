"""Assumption: Keras notes the strategy of TensorFlow that a model was made under.

`Model.distribute_strategy` is the strategy in use where the model was made under none, so
that the two cannot be told apart. An iterator over an epoch notes its strategy, too, and
the distributed data in `_distributed_dataset`.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from typing import Any

import keras

from keras_vit.keras_internals.assumption import private

_FEATURE = "Training under a `tf.distribute` strategy"


def has_strategy(model: keras.Model) -> bool:
    """True if a model was made under a strategy, and Keras builds it before a step."""
    return private(model, "_distribute_strategy", _FEATURE) is not None


def set_strategy(iterator: Any, strategy: Any) -> None:
    """Sets the strategy of an iterator over an epoch, in the place of another object."""
    private(iterator, "_distribute_strategy", _FEATURE)
    iterator._distribute_strategy = strategy


def element_spec(iterator: Any) -> Any:
    """The `tf.TypeSpec` of the batches of an iterator over an epoch."""
    return private(iterator, "_distributed_dataset", "ExactResume").element_spec
