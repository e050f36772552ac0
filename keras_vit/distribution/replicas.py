"""Gradient clipping and random seeds on the replicas of a `tf.distribute` strategy."""

import functools

import keras

from keras_vit.keras_internals.gradient_clipping import replace_clipping
from keras_vit.keras_internals.seed_generators import replace_draws

_SEED_STRIDE = 0x9E3779B1  # odd: seeds of few bits stay different


def sum_over_replicas(tensors: list) -> tuple[list, int]:
    """Sums of tensors over the replicas, and the number of replicas.

    It is called in a replica of a `tf.distribute` strategy; elsewhere there is one.
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
    """Makes Keras' optimizers clip the summed gradient under a `tf.distribute` strategy.

    Keras 3.15 clips the gradient of each replica before it adds them up.
    """

    def clipped(original, optimizer, gradients):
        limits = (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue)
        if not any(limits):
            return original(optimizer, gradients)
        gradients, number = sum_over_replicas(gradients)
        return [gradient / number for gradient in original(optimizer, gradients)]

    replace_clipping(clipped)


@functools.cache
def seed_replicas() -> None:
    """Gives each replica of a `tf.distribute` strategy its own random numbers.

    In Keras 3.15 all replicas have the same seeds, so that dropout drops the same elements
    in each. The states of the generators stay equal in all replicas.
    """
    import tensorflow as tf

    def replica_seed(seed):
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return seed
        replica = tf.cast(context.replica_id_in_sync_group, seed.dtype)
        return seed + tf.stack([replica * _SEED_STRIDE, tf.zeros_like(replica)])

    replace_draws(replica_seed)
