"""Assumption: losses are scaled by two functions of `keras.src.losses.loss`.

Under a `tf.distribute` strategy Keras divides the loss of each replica by the number of
replicas, as its gradients are added up, and takes that back for the metric. There is no
public way to leave it out for a loss that is of all replicas already.

Seen to hold in Keras 3.13, 3.14 and 3.15. Keras scales losses since
https://github.com/keras-team/keras/pull/20609.
"""

from collections.abc import Callable

from keras_vit.keras_internals.assumption import internal

_MODULE = "losses.loss"
_NAMES = ("scale_loss_for_distribution", "unscale_loss_for_distribution")


def replace_scaling(wrap: Callable[[Callable], Callable]) -> None:
    """Puts `wrap(function)` in the place of both functions, of a loss to a loss.

    Raises:
        AssumptionError: if one does not exist; then nothing is replaced.
    """
    feature = "Training under a `MirroredStrategy`"
    functions = {name: internal(_MODULE, name, feature) for name in _NAMES}
    from keras.src.losses import loss

    for name, function in functions.items():
        setattr(loss, name, wrap(function))
