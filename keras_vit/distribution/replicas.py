"""What depends on how many devices a step is divided over."""

import functools

import keras

from keras_vit.distribution import mirrored_training
from keras_vit.distribution.parts import ProcessParts
from keras_vit.distribution.processes import num_processes
from keras_vit.distribution.rows import num_parts
from keras_vit.distribution.torch_processes import num_launched
from keras_vit.keras_internals.gradient_clipping import replace_clipping
from keras_vit.keras_internals.seed_generators import replace_draws

_SEED_STRIDE = 0x9E3779B1  # odd, so that no two seeds of few bits meet


def check_batches(batch_size: int) -> None:
    """Checks that batches can be divided over the devices of the distribution in use.

    Raises:
        ValueError: if the batch of a training step is not a multiple of the number of
            devices; under tensor parallelism of the groups of devices that share one.
    """
    parts = _num_parts()
    if batch_size % parts:
        raise ValueError(
            "The images of a step must be divisible by the number of devices. Received: "
            f"batch_size (or micro_batch_size) {batch_size} for {parts} devices."
        )


def pads_batches(rows: int) -> bool:
    """Whether the last batch of an evaluation must be as large as the others.

    Under the strategies of this module batches need not divide. With several processes of
    JAX each one decodes its own rows, of which all have as many. Under a distribution of
    Keras or TensorFlow that was made elsewhere, Keras divides what it can.

    Args:
        rows: of the first batch.
    """
    parts = _num_parts()
    if keras.backend.backend() == "jax":
        is_ours = isinstance(keras.distribution.distribution(), ProcessParts)
        return parts > 1 and (num_processes() > 1 or not is_ours)
    if keras.backend.backend() == "tensorflow":
        return rows % parts > 0 and not mirrored_training.is_in_use()
    return False


def _num_parts() -> int:
    """Into how many parts a batch is divided."""
    if keras.backend.backend() == "jax":
        current = keras.distribution.distribution()
        return num_parts(current) if current else 1
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync
    return num_processes()


def check_processes(model: keras.Model) -> None:
    """Checks that no process of several trains for itself.

    Raises:
        ValueError: if it is not in a context in which they train together, or the model
            is wrapped in torch's `DistributedDataParallel`.
    """
    if keras.backend.backend() == "jax":
        current = keras.distribution.distribution()
        if num_processes() > 1 and not isinstance(current, ProcessParts):
            raise ValueError(
                "Processes of JAX must train together. Received: one of "
                f"{num_processes()} under {current}. Build and train the model in `with "
                "keras_vit.distribution.strategy(…):`."
            )
    if keras.backend.backend() != "torch":
        return
    import torch

    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        raise ValueError(
            "Keras' `fit` does not use what torch's DistributedDataParallel does. "
            "Received: a model wrapped in it. Give the model itself, in "
            "`with keras_vit.distribution.data_parallel():`."
        )
    if num_launched() != num_processes():
        raise ValueError(
            "The processes of `torchrun` must train together. Received: one of "
            f"{num_launched()} outside of `with keras_vit.distribution.data_parallel():` "
            "or strategy('auto'). Train in it, or start one process, without torchrun."
        )


def check_gradient_accumulation() -> None:
    """Raises a ValueError where gradients cannot be accumulated.

    Under a `tf.distribute` strategy of several replicas Keras 3.15 fails with
    "merge_call called while defining a new graph or a tf.function".
    """
    if keras.backend.backend() == "tensorflow" and _num_parts() > 1:
        raise ValueError(
            "Keras cannot accumulate gradients under a tf.distribute strategy. Received: a "
            "`micro_batch_size` less than `batch_size`. Leave it out (each accelerator has "
            "its share of the batch already), take KERAS_BACKEND=jax, or one accelerator."
        )


def sum_over_replicas(tensors: list) -> tuple[list, int]:
    """Sums of the replicas' tensors, in each replica, and the number of replicas.

    Call it in a replica of a `tf.distribute` strategy; elsewhere there is one replica.
    """
    if keras.backend.backend() != "tensorflow":
        return tensors, 1
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensors, 1
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)
    return summed, context.num_replicas_in_sync


@functools.cache
def clip_over_replicas() -> None:
    """Has Keras' optimizers clip the whole gradient under a `tf.distribute` strategy.

    Keras 3.15 clips that of each replica, and then adds them up.
    """

    def clipped(original, optimizer, gradients):
        ways = (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue)
        if not any(ways):
            return original(optimizer, gradients)
        gradients, number = sum_over_replicas(gradients)
        return [gradient / number for gradient in original(optimizer, gradients)]

    replace_clipping(clipped)


@functools.cache
def seed_replicas() -> None:
    """Has each replica of a `tf.distribute` strategy draw random numbers of its own.

    In Keras 3.15 all have the same seeds, by which dropout takes from each part of a batch
    what it takes from the others. The states of the generators stay the same in each.
    """
    import tensorflow as tf

    def of_replica(seed):
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return seed
        replica = tf.cast(context.replica_id_in_sync_group, seed.dtype)
        return seed + tf.stack([replica * _SEED_STRIDE, tf.zeros_like(replica)])

    replace_draws(of_replica)
