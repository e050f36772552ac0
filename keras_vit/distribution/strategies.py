"""Strategies under which a model is built and trained, on each backend."""

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.distribution import mirrored_training
from keras_vit.distribution.layouts import BATCH, MODEL, ReplicatedWeights, ShardedWeights
from keras_vit.distribution.replicas import clip_over_replicas, seed_replicas
from keras_vit.distribution.torch_processes import num_launched
from keras_vit.distribution.torch_training import TorchProcesses

_WITH_MODEL_AXIS = ("fully_sharded", "tensor_parallel")
_ALIASES = {"fsdp": "fully_sharded"}


def strategy(
    name: str = "auto", devices: Sequence[Any] | None = None
) -> AbstractContextManager[Any]:
    """The context in which to build and train a model, by name.

    Batches need not be divisible by the number of devices: `fit`, `evaluate` and `predict`
    compute the same as on one device. `keras_vit.training.finetune` does need that.

    Args:
        name: name of a function of this module: `"auto"`, `"data_parallel"`,
            `"fully_sharded"`, `"mirrored"` or `"tpu"`; with the size of the model axis
            `"tensor_parallel:4"` or `"fully_sharded:4"`; `"none"` for the backend's
            default. `"fsdp"` is another name of `"fully_sharded"`.
        devices: devices to use, see `data_parallel`; `None` for all. `"tpu"` ignores it.

    Returns:
        A context manager: `with strategy("auto"): model = …; model.fit(…)`.

    Raises:
        ValueError: if the name is unknown or not for the backend, or there is only one
            device.
    """
    found = _named(name, devices)
    return nullcontext() if found is None else found.scope()


def _named(name, devices):
    name, colon, number = name.partition(":")
    name = _ALIASES.get(name, name)
    arguments.one_of(name, STRATEGIES, "name")
    if colon and (name not in _WITH_MODEL_AXIS or not number.isdigit()):
        raise ValueError(
            "Only the names "
            f"{' and '.join(map(repr, _WITH_MODEL_AXIS))} take a model axis, a number "
            f"after a colon. Received: '{name}:{number}'"
        )
    if name == "tensor_parallel" and not colon:
        raise ValueError(
            "Tensor parallelism needs the number of devices per layer. Received: "
            "'tensor_parallel'. Add it: 'tensor_parallel:4'."
        )
    given = (int(number),) if colon else ()
    options = {"devices": devices} if devices is not None and name != "tpu" else {}
    return None if name == "none" else _FUNCTIONS[name](*given, **options)


def auto(devices: Sequence[Any] | None = None) -> Any:
    """Data parallelism if there are several devices, otherwise nothing.

    Args:
        devices: see `data_parallel`.

    Returns:
        `data_parallel()` for several devices, or processes of `torchrun`; `None` for one,
        which `keras.distribution.set_distribution` takes, too.
    """
    several = len(_devices() if devices is None else devices) > 1
    return data_parallel(devices) if several else None


def data_parallel(devices: Sequence[Any] | None = None) -> Any:
    """Data parallelism: each device has the model and a part of each batch.

    Args:
        devices: on JAX names such as `"gpu:0"` or `jax.Device`s, also of a topology that
            is not attached; on TensorFlow names; `None` for all.

    Returns:
        On JAX a `keras.distribution.DataParallel`, on TensorFlow a
        `tf.distribute.MirroredStrategy` of GPUs, on torch `TorchProcesses`, for the
        processes of `torchrun`. Each has `scope()`.

    Raises:
        ValueError: if there is only one device or process.
    """
    backend = keras.backend.backend()
    devices = _devices() if devices is None else list(devices)
    if len(devices) < 2:
        raise ValueError(
            "Data parallelism needs several accelerators, on torch several processes of "
            f"`torchrun`. Received: {len(devices)} on the backend {backend}. Use 'auto', "
            "which also takes one."
        )
    if backend == "torch":
        return TorchProcesses()
    if backend == "tensorflow":
        return mirrored(devices)
    return ReplicatedWeights(devices)


def fully_sharded(
    model_axis: int = 1,
    *,
    devices: Sequence[Any] | None = None,
    layouts: Mapping[str, tuple[str | None, ...]] | None = None,
) -> ShardedWeights:
    """Fully sharded data parallelism, for models that do not fit on one device (JAX).

    Each device has a shard of every large weight, of its gradient and of its optimizer
    slots, and a part of each batch. A layer's weights are gathered only while it is
    computed, which takes 1.5 times the communication of data parallelism (ZeRO, arXiv
    1910.02054, stage 3). Weights are sharded along the longest dimension that the devices
    divide; weights of less than 65,536 elements (norms, biases) are replicated.

    Args:
        model_axis: int, number of devices over which each layer is also sharded, see
            `tensor_parallel`; the mesh is (devices / model_axis, model_axis).
        devices: see `data_parallel`.
        layouts: layouts of other layers' weights, see `tensor_parallel`.

    Raises:
        ValueError: on another backend; if there is only one device, or `model_axis` does
            not divide the number of devices; in building a model, if a large weight
            cannot be sharded.
    """
    _check_jax("fully_sharded")
    arguments.positive(model_axis, "model_axis")
    mesh = _mesh(model_axis, "fully_sharded()", devices)
    return ShardedWeights(mesh, shard_batch_axis=True, layouts=layouts)


def tensor_parallel(
    model_axis: int,
    *,
    devices: Sequence[Any] | None = None,
    layouts: Mapping[str, tuple[str | None, ...]] | None = None,
) -> ShardedWeights:
    """Tensor parallelism: several devices compute each layer together (JAX).

    Attention is sharded by heads, an MLP by its hidden units, the head and the
    convolutions of ResNets by their inputs. There is one all-reduce of the tokens after
    each attention and each MLP, forward and backward; weights, queries, keys and values
    are never gathered. It needs fast connections, such as between GPUs of one machine.
    Further devices divide the batch. A gated MLP (`mlp="swiglu"`, `"geglu"`) has gate and
    value in one kernel, whose halves are exchanged in each step. Group norms of ResNets
    have 32 groups; more devices exchange their images. Embeddings are replicated.

    Args:
        model_axis: int, number of devices per layer, a divisor of the number of devices
            and of the model's heads.
        devices: see `data_parallel`.
        layouts: layouts of other layers' weights of 65,536 elements or more: a dictionary
            from regular expressions for a whole path to tuples with an axis, `"batch"` or
            `"model"`, or None per dimension: `{"my_dense/kernel": (None, "model")}`.

    Raises:
        ValueError: on another backend; if `model_axis` is 1 or does not divide the number
            of devices; in building a model, if it does not divide a weight.
    """
    _check_jax("tensor_parallel")
    if arguments.positive(model_axis, "model_axis") == 1:
        raise ValueError(
            "Tensor parallelism needs at least two devices per layer. Received: "
            "model_axis=1. Use data_parallel() or fully_sharded()."
        )
    mesh = _mesh(model_axis, "tensor_parallel()", devices)
    return ShardedWeights(mesh, layouts=layouts)


def mirrored(devices: Sequence[str] | None = None) -> Any:
    """Data parallelism of TensorFlow on one machine: a `tf.distribute.MirroredStrategy`.

    Dropout differs by device, batches may have any size, and a loss is given the outputs
    of all devices. Under a strategy created elsewhere, all devices draw the same random
    numbers, and batches that the devices do not divide make a wrong update.

    Args:
        devices: names such as `"GPU:0"`; `None` for all GPUs.

    Raises:
        ValueError: on another backend.
    """
    _check_tensorflow("mirrored")
    devices = _devices() if devices is None else devices
    return _mirrored(tuple(map(_short_name, devices)) or None)


def _short_name(device):
    """`"GPU:0"` from any spelling of the device."""
    return device.rpartition("/")[2].upper().removeprefix("DEVICE:")


@functools.cache
def _mirrored(devices):
    """The one strategy of these devices for all models.

    In TensorFlow 2.21 the collectives of a second strategy reuse the keys of the first,
    and fail if their shapes differ.
    """
    import tensorflow as tf

    seed_replicas()
    clip_over_replicas()
    mirrored_training.install()
    return tf.distribute.MirroredStrategy(devices and list(devices))


def tpu(address: str = "") -> Any:
    """Data parallelism of TensorFlow on TPUs: a `tf.distribute.TPUStrategy`.

    It follows TensorFlow's documentation and has not been run on a TPU. On JAX, TPU chips
    are devices for `data_parallel`, `fully_sharded` and `tensor_parallel`.

    Args:
        address: name or address of the TPU for
            `tf.distribute.cluster_resolver.TPUClusterResolver`; `"local"` on a TPU VM.

    Raises:
        ValueError: on another backend.
    """
    _check_tensorflow("tpu")
    import tensorflow as tf

    seed_replicas()
    clip_over_replicas()
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def _mesh(model_axis, function, devices):
    if devices is None:
        devices = keras.distribution.list_devices()
    if len(devices) < 2 or len(devices) % model_axis:
        raise ValueError(
            f"{function} needs several devices, and a `model_axis` that divides their "
            f"number. Received: {len(devices)} devices, model_axis={model_axis}"
        )
    if model_axis == 1:
        return keras.distribution.DeviceMesh((len(devices),), (BATCH,), devices)
    # Adjacent devices share a layer.
    shape = (len(devices) // model_axis, model_axis)
    return keras.distribution.DeviceMesh(shape, (BATCH, MODEL), devices)


def _check_jax(function):
    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(
            f"{function}() is for KERAS_BACKEND=jax, as Keras shards weights on JAX only. "
            f"Received: the backend {backend}. Use data_parallel(), under which each "
            "device has the complete model."
        )


def _check_tensorflow(function):
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"{function}() is for KERAS_BACKEND=tensorflow. Received: the backend "
            f"{backend}. Use data_parallel()."
        )


def _devices():
    """Names of the devices or processes over which the backend can distribute."""
    if keras.backend.backend() == "torch":
        return [f"process {i}" for i in range(num_launched())]
    if keras.backend.backend() == "jax":
        return keras.distribution.list_devices()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return [device.name for device in tf.config.list_logical_devices("GPU")]
    return []


_FUNCTIONS = {
    function.__name__: function
    for function in (auto, data_parallel, fully_sharded, tensor_parallel, mirrored, tpu)
}
STRATEGIES = (*_FUNCTIONS, "none")
