"""What the devices of a process of JAX have: of a batch, and of a model."""

import contextlib

import keras

from keras_vit.distribution import jax_processes
from keras_vit.distribution.processes import is_first_process, num_processes
from keras_vit.distribution.rows import num_parts
from keras_vit.keras_internals.variable_values import set_raw_value


class ProcessParts:
    """What makes a `keras.distribution.Distribution` one for several processes.

    Every process is given the same data, see `jax_training`.
    """

    def __init__(self, *arguments, **named):
        from keras_vit.distribution import jax_training

        # Not Keras, but `jax_training` takes the rows of a process.
        super().__init__(*arguments, auto_shard_dataset=False, **named)
        jax_training.install()

    def get_data_layout(self, data_shape):
        """The `TensorLayout` of rows; of those that do not divide, on each device whole."""
        layout = super().get_data_layout(data_shape)
        # Of several processes a shape is that of the own rows.
        count = self.own_part()[1] if num_processes() > 1 else 1
        if data_shape[0] * count % num_parts(self) == 0:
            return layout
        axes = (None,) * len(data_shape)
        return keras.distribution.TensorLayout(axes, self.device_mesh)

    def own_part(self) -> tuple[int, int]:
        """(index, count): which part of a batch is this process', and of how many.

        Processes whose devices share a layer have the same part.

        Raises:
            ValueError: if the devices of a process are not a whole number of parts, nor a
                part a whole number of processes.
        """
        devices = self.device_mesh.backend_mesh.devices
        groups = devices.reshape(num_parts(self), -1)
        owners = [sorted({device.process_index for device in group}) for group in groups]
        everyone = sorted({process for group in owners for process in group})
        parts = {p: [i for i, o in enumerate(owners) if p in o] for p in everyone}
        size = len(parts[everyone[0]])
        blocks = [list(range(i, i + size)) for i in range(0, len(owners), size)]
        if any(part not in blocks for part in parts.values()):
            raise ValueError(
                "The devices that share a layer must be of one process, or all those of "
                f"several. Received: groups of {groups.shape[1]} devices, of the processes "
                f"{owners}. Take a `model_axis` that divides the devices of a process, or "
                "is a multiple of their number."
            )
        import jax

        return blocks.index(parts[jax.process_index()]), len(blocks)


class ReplicatedWeights(ProcessParts, keras.distribution.DataParallel):
    """A `keras.distribution.DataParallel`: each device has all weights.

    Args:
        devices: names of the devices, of all processes.
    """

    name = "data_parallel"

    def __init__(self, devices: list[str]):
        super().__init__(devices=devices)


@contextlib.contextmanager
def whole_weights(model: keras.Model):
    """Has the first process hold all of each weight, to save the model.

    Of weights that are split over processes of JAX; elsewhere it does nothing. Every
    process enters it, and in the body the first one saves:

    >>> with keras_vit.distribution.whole_weights(model):
    ...     if keras_vit.distribution.is_first_process():
    ...         model.save("flowers.keras")

    Args:
        model: a built model; its optimizer's variables are whole, too.
    """
    if num_processes() == 1 or keras.backend.backend() != "jax":
        yield
        return
    variables = list(model.variables)
    if getattr(model, "optimizer", None) is not None:
        variables += model.optimizer.variables
    split = [v for v in variables if not jax_processes.is_whole(v.value)]
    values = [variable.value for variable in split]
    try:
        for variable in split:
            numbers = jax_processes.whole(variable.value)
            if is_first_process():
                set_raw_value(variable, numbers)  # `assign` would split it again
        yield
    finally:
        for variable, value in zip(split, values, strict=True):
            set_raw_value(variable, value)
