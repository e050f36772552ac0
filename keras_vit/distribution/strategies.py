"""What a model is built and trained under, on each backend."""

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.distribution import mirrored_training
from keras_vit.distribution.layouts import BATCH, MODEL, ShardedWeights
from keras_vit.distribution.parts import ReplicatedWeights
from keras_vit.distribution.replicas import clip_over_replicas, seed_replicas
from keras_vit.distribution.torch_processes import TorchProcesses, num_launched

STRATEGIES = (
    *("auto", "data_parallel", "fully_sharded", "tensor_parallel", "mirrored", "tpu"),
    "none",
)
_WITH_MODEL_AXIS = ("fully_sharded", "tensor_parallel")
_ALIASES = {"fsdp": "fully_sharded"}


def strategy(
    name: str = "auto", devices: Sequence[Any] | None = None
) -> AbstractContextManager[Any]:
    """Returns the context in which a model is built and trained, by name.

    Batches need not be divisible by the number of devices: `fit`, `evaluate` and `predict`
    do what they do on one device. `keras_vit.training.finetune` asks for such batches.

    Args:
        name: of a function of this module: `"auto"`, `"data_parallel"`,
            `"fully_sharded"`, `"mirrored"` or `"tpu"`; with the size of the model axis
            `"tensor_parallel:4"` or `"fully_sharded:4"`; `"none"` for the backend's
            default. `"fsdp"` is another name of `"fully_sharded"`.
        devices: those to distribute to, see `data_parallel`; `None` for all. Not for
            `"tpu"`, which has an address.

    Returns:
        A context manager: `with strategy("auto"): model = …; model.fit(…)`.

    Raises:
        ValueError: if the name is unknown, it is not for the backend, or there are not
            several devices to distribute to.
    """
    found = _named(name, devices)
    return nullcontext() if found is None else found.scope()


def _named(name, devices):
    name, colon, number = name.partition(":")
    name = _ALIASES.get(name, name)
    arguments.one_of(name, STRATEGIES, "name")
    if colon and (name not in _WITH_MODEL_AXIS or not number.isdigit()):
        raise ValueError(
            "A number after the colon is the size of the model axis of "
            f"{' or '.join(map(repr, _WITH_MODEL_AXIS))}. Received: '{name}:{number}'"
        )
    if name == "tensor_parallel" and not colon:
        raise ValueError(
            "Tensor parallelism needs to know over how many devices a layer is split: "
            "'tensor_parallel:4'. Received: 'tensor_parallel'"
        )
    given = (int(number),) if colon else ()
    options = {"devices": devices} if devices is not None and name != "tpu" else {}
    return None if name == "none" else globals()[name](*given, **options)


def auto(devices: Sequence[Any] | None = None) -> Any:
    """What is here: data parallel on several devices, nothing on one.

    Args:
        devices: see `data_parallel`.

    Returns:
        `data_parallel()` where there are several devices, or processes of `torchrun`; on
        one `None`, which `keras.distribution.set_distribution` takes, too.
    """
    several = len(_devices() if devices is None else devices) > 1
    return data_parallel(devices) if several else None


def data_parallel(devices: Sequence[Any] | None = None) -> Any:
    """Each device has the model, and its part of each batch.

    Args:
        devices: on JAX names such as `"gpu:0"`, or `jax.Device`s, also those of a
            topology that is not here; on TensorFlow names; `None` for all there are.

    Returns:
        On JAX a `keras.distribution.DataParallel` of all devices, on TensorFlow a
        `tf.distribute.MirroredStrategy` of all GPUs, on torch `TorchProcesses`, of those
        that `torchrun` has started. Each has `scope()`.

    Raises:
        ValueError: if there is one device, or process, alone.
    """
    backend = keras.backend.backend()
    devices = _devices() if devices is None else list(devices)
    if len(devices) < 2:
        raise ValueError(
            "Data parallelism needs several accelerators, on torch several processes of "
            f"`torchrun`. Received: {len(devices)} on the backend {backend}. Use 'auto' "
            "for whatever there is."
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
    """Each device has a part of every large weight, and its part of each batch.

    A layer's weights come together when it is computed, and go again; gradients and what
    the optimizer keeps of a weight are split as the weight is: memory for a model that
    does not fit on one device, for half as much communication again as data parallelism
    (ZeRO, arXiv 1910.02054, stage 3). Split is the longest dimension that the devices
    divide; weights of less than 65,536 numbers (norms, biases) are whole.

    Args:
        model_axis: int, 1, or over how many devices each layer is split besides, see
            `tensor_parallel`: the devices are then (devices / model_axis, model_axis).
        devices: see `data_parallel`.
        layouts: of weights that are not of this package, see `tensor_parallel`.

    Returns:
        A `keras.distribution.ModelParallel` (JAX).

    Raises:
        ValueError: on another backend than JAX; if there are not several devices, or
            `model_axis` does not divide them; and in building a model, of a large weight
            that cannot be split.
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
    """Each layer is computed by several devices together, of which each has a part of it.

    Attention is split by heads, an MLP by the numbers between its two layers, the head
    and the convolutions of ResNets by their inputs: one all-reduce of the tokens after
    each attention and each MLP, forward and backward. No weight is ever gathered, nor are
    queries, keys and values. For devices with fast connections, such as the GPUs of one
    machine. Devices beyond `model_axis` divide the batch. A gated MLP (`mlp="swiglu"`,
    `"geglu"`) has gate and value in one kernel, of which the halves change places in each
    step. Group norms of ResNets have 32 groups, so that more devices exchange their
    images. Embeddings of patches and positions are whole.

    Args:
        model_axis: int, over how many devices a layer is split: a divisor of the number
            of devices, and of the model's heads.
        devices: see `data_parallel`.
        layouts: of weights that are not of this package and have 65,536 numbers or more:
            a dictionary of regular expressions for a whole path to a tuple with an axis,
            `"batch"` or `"model"`, or None for each dimension:
            `{"my_dense/kernel": (None, "model")}`.

    Returns:
        A `keras.distribution.ModelParallel` (JAX).

    Raises:
        ValueError: on another backend than JAX; if `model_axis` is 1 or does not divide
            the devices; and in building a model, of a weight that it does not divide.
    """
    _check_jax("tensor_parallel")
    if arguments.positive(model_axis, "model_axis") == 1:
        raise ValueError(
            "Tensor parallelism is over two devices or more. Received: model_axis=1. Take "
            "data_parallel() or fully_sharded()."
        )
    mesh = _mesh(model_axis, "tensor_parallel()", devices)
    return ShardedWeights(mesh, layouts=layouts)


def mirrored(devices: Sequence[str] | None = None) -> Any:
    """Data parallelism of TensorFlow on one machine: a `tf.distribute.MirroredStrategy`.

    Dropout differs by device; under a strategy made without this module all draw the same,
    and batches that the devices do not divide make a wrong update. A loss is given the
    outputs of all devices.

    Args:
        devices: names such as `"GPU:0"`; `None` for all GPUs.

    Raises:
        ValueError: on another backend.
    """
    _check_tensorflow("mirrored")
    devices = _devices() if devices is None else devices
    return _mirrored(tuple(map(_short_name, devices)) or None)


def _short_name(device):
    """`"GPU:0"` of each way to write it."""
    return device.rpartition("/")[2].upper().removeprefix("DEVICE:")


@functools.cache
def _mirrored(devices):
    """One for all models: in TensorFlow 2.21 the sums of a second one, of the same devices,
    have the keys of the first one's, and fail where their shapes are others.
    """
    import tensorflow as tf

    seed_replicas()
    clip_over_replicas()
    mirrored_training.install()
    return tf.distribute.MirroredStrategy(devices and list(devices))


def tpu(address: str = "") -> Any:
    """Data parallelism of TensorFlow on TPUs: a `tf.distribute.TPUStrategy`.

    Written by TensorFlow's documentation; no TPU has run it so far. On JAX a TPU's chips
    are devices as any other: `data_parallel`, `fully_sharded`, `tensor_parallel`.

    Args:
        address: of the TPU, as `tf.distribute.cluster_resolver.TPUClusterResolver` takes
            it: `"local"` on a TPU VM, else a name or an address.

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
            f"{function} needs several devices, of which `model_axis` is a divisor. "
            f"Received: {len(devices)} devices, model_axis={model_axis}"
        )
    if model_axis == 1:
        return keras.distribution.DeviceMesh((len(devices),), (BATCH,), devices)
    # Devices of one group are neighbours.
    shape = (len(devices) // model_axis, model_axis)
    return keras.distribution.DeviceMesh(shape, (BATCH, MODEL), devices)


def _check_jax(function):
    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(
            f"{function}() is for KERAS_BACKEND=jax, the backend on which Keras splits "
            f"weights. Received: the backend {backend}. Take data_parallel() there, whose "
            "devices have the whole model each."
        )


def _check_tensorflow(function):
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"{function}() is a strategy of TensorFlow. Received: the backend {backend}. "
            "Take data_parallel()."
        )


def _devices():
    """Names of the devices, or processes, of which the backend can use several."""
    if keras.backend.backend() == "torch":
        return [f"process {i}" for i in range(num_launched())]
    if keras.backend.backend() == "jax":
        return keras.distribution.list_devices()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return [device.name for device in tf.config.list_logical_devices("GPU")]
    return []
