"""By name, what a model is built and trained under."""

from contextlib import AbstractContextManager, nullcontext

import keras

from keras_vit.distribution.torch_processes import TorchProcesses, num_launched
from keras_vit.layers import arguments

STRATEGIES = ("auto", "data_parallel", "none")


def strategy(name: str = "auto") -> AbstractContextManager:
    """What a model is to be built and trained under, for a backend's devices.

    On TensorFlow with several GPUs a `tf.distribute.MirroredStrategy`; on JAX with
    several devices a `keras.distribution.DataParallel`, set for the process; on torch,
    for which Keras 3.15 has no distribution, the processes that `torchrun` has started;
    otherwise one device. The global batch must be divisible by the number of devices.

    Args:
        name: `"auto"`: all accelerators where there are several; `"data_parallel"`: the
            same, and an error where there is one alone; `"none"`: the backend's default.

    Returns:
        A context manager: `with strategy("auto"): model = …; model.fit(…)`.

    Raises:
        ValueError: if the name is unknown, or there are not several devices to
            distribute to.
    """
    arguments.one_of(name, STRATEGIES, "name")
    if name == "none":
        return nullcontext()
    backend = keras.backend.backend()
    if num_launched() > 1:
        return TorchProcesses()
    devices = _devices(backend)
    if len(devices) < 2:
        if name == "data_parallel":
            raise ValueError(
                "Data parallelism needs several accelerators. Received: "
                f"{len(devices)} on the backend {backend}. Use 'auto' for whatever there "
                "is."
            )
        return nullcontext()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.distribute.MirroredStrategy(devices).scope()
    return keras.distribution.DataParallel(devices=devices).scope()


def _devices(backend):
    """Names of the devices of which a backend can use several at a time."""
    if backend == "jax":
        return keras.distribution.list_devices()
    if backend == "tensorflow":
        import tensorflow as tf

        return [device.name for device in tf.config.list_logical_devices("GPU")]
    return []
