"""What depends on how many devices a step is divided over."""

import keras

from keras_vit.distribution.parts import ProcessParts
from keras_vit.distribution.processes import num_processes
from keras_vit.distribution.torch_processes import num_launched


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


def pads_batches() -> bool:
    """Whether the last batch of an evaluation must be as large as the others.

    On JAX under a distribution; `tf.distribute` divides whatever there is.
    """
    return keras.backend.backend() == "jax" and _num_parts() > 1


def _num_parts() -> int:
    """Into how many parts a batch is divided."""
    if keras.backend.backend() == "jax":
        current = keras.distribution.distribution()
        return current.num_model_replicas if current else 1
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
