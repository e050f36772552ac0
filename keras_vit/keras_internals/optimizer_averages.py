"""Assumption: an optimizer averages weights by the methods and lists of `_NAMES`.

`use_ema=True` is public; the averages are not, and two things go wrong: an update that
takes several steps is averaged in each of them, and on JAX a weight and its average then
hold one array.

Seen to hold in Keras 3.13, 3.14 and 3.15. The averages of Keras are not used in
evaluation: https://github.com/keras-team/keras/issues/18949.
"""

import keras
from keras import ops

from keras_vit.keras_internals.assumption import private
from keras_vit.types import Tensor

_NAMES = (
    "_update_model_variables_moving_average",
    "_overwrite_model_variables_with_average_value",
)


def check_averages(optimizer: keras.optimizers.Optimizer) -> None:
    """Raises an `AssumptionError` if an optimizer of Keras averages in another way."""
    for name in _NAMES:
        private(optimizer, name, "Averaging weights")


def num_steps(optimizer: keras.optimizers.Optimizer) -> int:
    """The steps that an optimizer has seen; `iterations` counts its updates."""
    return int(ops.convert_to_numpy(private(optimizer, "_iterations", "Counting steps")))


def is_update(optimizer: keras.optimizers.Optimizer) -> Tensor:
    """True after a step that has changed the weights, a scalar bool.

    False after one that has only accumulated gradients.

    Args:
        optimizer: an optimizer of Keras, also a `LossScaleOptimizer`.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    steps = optimizer.gradient_accumulation_steps or 1
    return ops.equal(private(optimizer, "_iterations", "Counting steps") % steps, 0)


class AveragesByUpdate:
    """A base, before an optimizer of Keras, that averages the weights once an update."""

    def has_averages(self) -> bool:
        """True if weights are averaged, and a step was taken."""
        return self.use_ema and num_steps(self) > 0

    def averages(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """(variable, its average) of every variable that is trained by its gradient."""
        pairs = zip(
            self._trainable_variables, self._model_variables_moving_average, strict=True
        )
        return [(variable, average) for variable, average in pairs if average is not None]

    def finalize_variable_values(self, var_list: list[keras.Variable]) -> None:
        # Without a step they are zeros: `fit` has failed before it.
        if self.has_averages() or not self.use_ema:
            super().finalize_variable_values(var_list)

    def _update_model_variables_moving_average(self, trainable_variables):
        if not self.use_ema:
            return
        steps = self.gradient_accumulation_steps or 1
        is_update = ops.equal((self._iterations + 1) % steps, 0)
        rate = ops.where(is_update, 1.0 - self.ema_momentum, 0.0)
        rate = ops.where(ops.equal(self.iterations, 0), 1.0, rate)
        for variable, average in self.averages():
            step = ops.subtract(variable, average)
            average.assign(ops.add(average, ops.cast(rate, average.dtype) * step))

    def _overwrite_model_variables_with_average_value(self, trainable_variables):
        super()._overwrite_model_variables_with_average_value(trainable_variables)
        # On JAX variable and average now hold one array, which the next step of training
        # would donate twice: "Array has been deleted".
        for _, average in self.averages():
            average.assign(ops.copy(average.value))
