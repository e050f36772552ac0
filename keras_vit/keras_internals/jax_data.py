"""Assumption: `distribute_data_input` puts the rows of a process on its devices.

`keras.distribution` distributes a whole `tf.data.Dataset`, by the number of processes, and
has no public function for one batch.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from typing import Any

from keras_vit.keras_internals.assumption import internal


def on_devices(rows: Any, layout: Any, batch_axis: str) -> Any:
    """A `jax.Array` of the rows of all processes, of which this one gives its own.

    Args:
        rows: array, (own rows, …).
        layout: `jax.sharding.Sharding` of the result.
        batch_axis: the axis of the mesh over which rows are split.
    """
    name, feature = "distribute_data_input", "Training on several devices"
    put = internal("backend.jax.distribution_lib", name, feature)
    return put(rows, layout, batch_axis)
