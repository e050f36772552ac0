"""Averages of the weights over the steps of training."""

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.training.adapted import AdaptedOptimizer, adapt, inner_optimizer


def average_weights(
    optimizer: keras.optimizers.Optimizer, momentum: float
) -> keras.optimizers.Optimizer:
    """Has an optimizer keep an exponential moving average of the weights.

    After each update of the weights, average ← momentum · average + (1 - momentum) ·
    weights; the first update sets it to the weights. Training is not affected. When `fit`
    ends, the model's weights are the averages; `SwapAveragedWeights` uses them for
    validation and checkpoints too. They are variables of the optimizer, which are saved
    with a compiled model.

    This is Keras' `use_ema=True`, but for what goes wrong there in 3.15: an update is
    averaged once however many steps its gradient is accumulated over, and on JAX a model
    can be trained, evaluated and saved after `fit`.

    Args:
        optimizer: any of Keras' optimizers, before its first use, also a
            `LossScaleOptimizer`. It is changed in place.
        momentum: float in [0, 1), such as 0.9999 where there are tens of thousands of
            updates, 0.99 where there are hundreds.

    Returns:
        The same optimizer.

    Raises:
        ValueError: if the optimizer has been built, or is a `MultiOptimizer`, or
            `momentum` is out of its range.

    Example:

    >>> optimizer = average_weights(keras.optimizers.SGD(0.01, momentum=0.9), 0.99)
    >>> model.compile(optimizer, loss)
    >>> model.fit(train, validation_data=val, callbacks=[SwapAveragedWeights()])
    """
    arguments.rate(momentum, "momentum")
    adapt(optimizer)
    averaging = inner_optimizer(optimizer)
    averaging.use_ema, averaging.ema_momentum = True, momentum
    return optimizer


class SwapAveragedWeights(keras.callbacks.Callback):
    """Validates, and ends epochs, with averaged weights; training goes on without.

    For an optimizer of `average_weights`. The model has the averages during validation,
    and from this callback's `on_epoch_end` to the next epoch: callbacks that come after
    it in the list of `fit` (`ModelCheckpoint`) see the averages, those that come before
    it the weights that are trained. Those are held meanwhile, once more the memory of the
    model's weights.

    Unlike `keras.callbacks.SwapEMAWeights` of Keras 3.15 it leaves the optimizer's
    averages where they are, so that a checkpoint of the whole model can be trained on,
    and the model has the averages also where a callback ends the training early.
    """

    def __init__(self):
        super().__init__()
        self._trained = None  # values of the weights that the averages stand in for
        self._is_testing = False

    def on_train_begin(self, logs=None):
        self._trained = None
        optimizer = inner_optimizer(self.model.optimizer)
        if not isinstance(optimizer, AdaptedOptimizer) or not optimizer.use_ema:
            raise ValueError(
                "`SwapAveragedWeights` needs an optimizer that averages. Received: "
                f"{optimizer.name}. Compile the model with "
                "average_weights(optimizer, momentum)."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._swap_out()

    def on_test_begin(self, logs=None):
        if self._trained is None:
            self._swap_in()
            self._is_testing = True

    def on_test_end(self, logs=None):
        if self._is_testing:
            self._swap_out()
            self._is_testing = False

    def on_epoch_end(self, epoch, logs=None):
        if self._trained is None:
            self._swap_in()

    def on_train_end(self, logs=None):
        # `fit` has given the model the averages by itself.
        self._trained = None

    def _swap_in(self):
        optimizer = inner_optimizer(self.model.optimizer)
        if not optimizer.has_averages():
            return
        pairs = optimizer.averages()
        # Copies: on JAX an array must not be in two variables.
        self._trained = [ops.copy(variable.value) for variable, _ in pairs]
        for variable, average in pairs:
            variable.assign(ops.copy(average.value))

    def _swap_out(self):
        if self._trained is None:
            return
        pairs = inner_optimizer(self.model.optimizer).averages()
        for (variable, _), value in zip(pairs, self._trained, strict=True):
            variable.assign(value)
        self._trained = None
