"""Exponential moving averages of the weights."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments, deprecated
from keras_vit.training.optimizers import AdaptedOptimizer, adapt, inner_optimizer


@deprecated.renamed_arguments(momentum="ema_momentum")
def average_weights(
    optimizer: keras.optimizers.Optimizer, ema_momentum: float
) -> keras.optimizers.Optimizer:
    """Makes an optimizer keep an exponential moving average (EMA) of the weights.

    Each update sets average ← ema_momentum · average + (1 - ema_momentum) · weights; the
    first sets it to the weights. Training is not affected. When `fit` ends, the model has
    the averages as its weights; `SwapAveragedWeights` uses them for validation and
    checkpoints, too. The averages are variables of the optimizer and are saved with a
    compiled model.

    This is Keras' `use_ema=True` without two faults of Keras 3.15: under gradient
    accumulation it averages once per update, not per step, and on JAX the model can be
    trained, evaluated and saved after `fit`.

    Args:
        optimizer: a Keras optimizer that has not been used, also a `LossScaleOptimizer`.
            It is changed in place.
        ema_momentum: float in [0, 1), such as 0.9999 for tens of thousands of updates or
            0.99 for hundreds.

    Returns:
        The same optimizer.

    Raises:
        ValueError: if the optimizer has been built or is a `MultiOptimizer`, or
            `ema_momentum` is out of range.

    Example:

    >>> optimizer = average_weights(keras.optimizers.SGD(0.01, momentum=0.9), 0.99)
    >>> model.compile(optimizer, loss)
    >>> model.fit(train, validation_data=val, callbacks=[SwapAveragedWeights()])
    """
    arguments.rate(ema_momentum, "ema_momentum")
    adapt(optimizer)
    averaging = inner_optimizer(optimizer)
    averaging.use_ema, averaging.ema_momentum = True, ema_momentum
    return optimizer


class SwapAveragedWeights(keras.callbacks.Callback):
    """Swaps the averaged weights into the model for validation and the end of epochs.

    It needs an optimizer of `average_weights`. The model has the averages during
    validation, and from this callback's `on_epoch_end` to the next epoch. Callbacks after
    it in the list of `fit` (such as `ModelCheckpoint`) see the averages, callbacks before
    it the trained weights. The trained weights are kept meanwhile, which takes the memory
    of the weights once more.

    Unlike `keras.callbacks.SwapEMAWeights` of Keras 3.15, it does not move the optimizer's
    averages, so that training can resume from a checkpoint of the whole model, and the
    model also has the averages if a callback ends the training early.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trained = None  # values of the trained weights while averages are swapped in
        self._is_testing = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._trained = None
        optimizer = inner_optimizer(self.model.optimizer)
        if not isinstance(optimizer, AdaptedOptimizer) or not optimizer.use_ema:
            raise ValueError(
                "`SwapAveragedWeights` needs an optimizer that averages weights. Received: "
                f"{optimizer.name}. Compile the model with "
                "average_weights(optimizer, ema_momentum)."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._swap_out()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._trained is None:
            self._swap_in()
            self._is_testing = True

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._is_testing:
            self._swap_out()
            self._is_testing = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._trained is None:
            self._swap_in()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        # `fit` has already put the averages into the model.
        self._trained = None

    def _swap_in(self):
        optimizer = inner_optimizer(self.model.optimizer)
        if not optimizer.has_averages():
            return
        pairs = optimizer.averages()
        # Copies: on JAX two variables must not share an array.
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
