"""Batches and weights of several processes under a distribution of JAX."""

import contextlib
from collections.abc import Iterator

import keras

from keras_vit.distribution import jax_processes
from keras_vit.distribution.batch_rows import num_batch_shards
from keras_vit.distribution.processes import is_first_process, num_processes
from keras_vit.keras_internals.variable_values import set_raw_value


class MultiProcessDistribution:
    """Mixin that makes a `keras.distribution.Distribution` work in several processes.

    Every process is given the same data, see `jax_training`, which subclasses install.
    """

    def __init__(self, *arguments, **named):
        # `jax_training` takes the rows of a process, in place of Keras.
        super().__init__(*arguments, auto_shard_dataset=False, **named)

    def get_data_layout(
        self, data_shape: tuple[int, ...]
    ) -> keras.distribution.TensorLayout:
        """The `TensorLayout` of a batch; replicated if devices do not divide it."""
        layout = super().get_data_layout(data_shape)
        # With several processes, the shape is that of this process' rows.
        count = self.batch_shard()[1] if num_processes() > 1 else 1
        if data_shape[0] * count % num_batch_shards(self) == 0:
            return layout
        axes = (None,) * len(data_shape)
        return keras.distribution.TensorLayout(axes, self.device_mesh)

    def batch_shard(self) -> tuple[int, int]:
        """(index, count): this process' shard of a batch, and the number of shards.

        Processes whose devices share a model replica have the same shard.

        Raises:
            ValueError: if a process has neither complete replicas, nor a replica complete
                processes.
        """
        devices = self.device_mesh.backend_mesh.devices
        groups = devices.reshape(num_batch_shards(self), -1)
        owners = [sorted({device.process_index for device in group}) for group in groups]
        everyone = sorted({process for group in owners for process in group})
        parts = {p: [i for i, o in enumerate(owners) if p in o] for p in everyone}
        size = len(parts[everyone[0]])
        blocks = [list(range(i, i + size)) for i in range(0, len(owners), size)]
        if any(part not in blocks for part in parts.values()):
            raise ValueError(
                "The devices of a model replica must be of one process, or all those of "
                f"several. Received: groups of {groups.shape[1]} devices, of the processes "
                f"{owners}. Use a `model_axis` that divides the number of devices of a "
                "process, or a multiple of it."
            )
        import jax

        return blocks.index(parts[jax.process_index()]), len(blocks)


@contextlib.contextmanager
def gather_weights(model: keras.Model) -> Iterator[None]:
    """Context in which rank 0 holds complete weights, to save the model.

    It gathers weights that are sharded over processes of JAX; otherwise it does nothing.
    Every process enters it, and rank 0 saves:

    >>> with keras_vit.distribution.gather_weights(model):
    ...     if keras_vit.distribution.is_first_process():
    ...         model.save("flowers.keras")

    Args:
        model: a built model. The variables of its optimizer are gathered, too.
    """
    if num_processes() == 1 or keras.backend.backend() != "jax":
        yield
        return
    variables = list(model.variables)
    if getattr(model, "optimizer", None) is not None:
        variables += model.optimizer.variables
    split = [v for v in variables if not jax_processes.is_complete(v.value)]
    values = [variable.value for variable in split]
    try:
        for variable in split:
            numbers = jax_processes.gather_array(variable.value)
            if is_first_process():
                set_raw_value(variable, numbers)  # `assign` would shard it again
        yield
    finally:
        for variable, value in zip(split, values, strict=True):
            set_raw_value(variable, value)
