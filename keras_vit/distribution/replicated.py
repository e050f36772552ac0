"""Means over the devices of a step, and variables that every device changes alike."""

from collections.abc import Sequence

import keras

from keras_vit.distribution.processes import num_processes
from keras_vit.distribution.replicas import sum_over_replicas
from keras_vit.distribution.torch_processes import mean_over_processes
from keras_vit.types import Tensor


def mean_over_devices(mean: Tensor) -> Tensor:
    """The mean over the complete batch of a step, from that over a device's own rows.

    Every device must have equally many rows. On JAX a step computes the complete batch.

    Args:
        mean: a mean over this device's rows, of which no gradient is taken.
    """
    if keras.backend.backend() == "torch" and num_processes() > 1:
        return mean_over_processes([mean])[0]
    (total,), number = sum_over_replicas([mean])
    return total if number == 1 else total / number


def assign_on_devices(
    variables: Sequence[keras.Variable], values: Sequence[Tensor]
) -> None:
    """Assigns values that are equal on all devices, also in a `tf.distribute` replica.

    There Keras' own `assign` needs a variable that was made with an `aggregation`.
    """
    context = _replica_context()
    if context is None:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return

    def update(strategy, values):
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(
                variable.value, lambda own, new: own.assign(new), args=(value,)
            )

    context.merge_call(update, args=(list(values),))


def _replica_context():
    """The replica of a `tf.distribute` strategy of several; `None` elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context
