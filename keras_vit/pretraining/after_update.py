"""Variables of a model that follow its weights, changed after each update of these."""

from typing import Any

import keras

from keras_vit.keras_internals.optimizer_averages import is_update
from keras_vit.keras_internals.trainers import for_several_devices
from keras_vit.types import Tensor


class AfterUpdate:
    """A base, before `keras.Model`, of models that change variables after each update.

    The optimizer has then changed the weights. It holds for `fit` and `train_on_batch`, on
    every backend and under the strategies of `keras_vit.distribution`.
    """

    def after_update(self, is_update: Tensor) -> None:
        """Changes variables of the model.

        Args:
            is_update: scalar bool, false after a step that has only accumulated gradients.
        """
        raise NotImplementedError

    @for_several_devices
    def train_step(self, *step: Any) -> Any:
        """Trains on a batch as Keras does, and calls `after_update`."""
        if keras.backend.backend() != "jax":
            logs = super().train_step(*step)
            self.after_update(is_update(self.optimizer))
            return logs
        state, data = step
        logs, state = super().train_step(state, data)
        return logs, self._state_after_update(*state)

    def _state_after_update(self, trainable, non_trainable, slots, metrics):
        """The state of JAX' trainer, in which `after_update` has changed variables."""
        variables = (
            *self.trainable_variables,
            *self.non_trainable_variables,
            *self.optimizer.variables,
        )
        values = (*trainable, *non_trainable, *slots)
        with keras.StatelessScope(zip(variables, values, strict=True)) as scope:
            self.after_update(is_update(self.optimizer))
        non_trainable = [scope.get_current_value(v) for v in self.non_trainable_variables]
        return trainable, non_trainable, slots, metrics
