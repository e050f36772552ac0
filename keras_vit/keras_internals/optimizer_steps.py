"""Assumption: an optimizer updates and decays variables by the methods listed in `_NAMES`.

Keras has one learning rate for all variables, and no public hook for another one. Weight
decay, which each backend computes in its own way, asks for the learning rate by
`_get_current_learning_rate`, and for each variable by `_use_weight_decay`. On torch all
variables are updated at once, by `_parallel_update_step`; elsewhere each by the public
`update_step`.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from typing import Any

import keras

from keras_vit.keras_internals.assumption import private

_NAMES = (
    *("_apply_weight_decay", "_get_current_learning_rate", "_use_weight_decay"),
    "_get_variable_index",
)


def check_steps(optimizer: keras.optimizers.Optimizer) -> None:
    """Raises an `AssumptionError` if an optimizer of Keras works in another way."""
    for name in _NAMES:
        private(optimizer, name, "A learning rate or weight decay for single variables")


class StepsByVariable:
    """A base, before an optimizer of Keras, with rules for single variables.

    Subclasses have three methods more: `multiplier(variable)`, a factor of the learning
    rate and with it of the weight decay; `is_decayed(variable)`; and `decay_factor()`, a
    factor of the weight decay in this step.
    """

    _decay_multiplier = None  # of the learning rate, while weight decay is applied

    def position(self, variable: keras.Variable) -> int:
        """The place of a variable in the list that the optimizer was built with."""
        return self._get_variable_index(variable)

    def update_step(
        self, gradient: Any, variable: keras.Variable, learning_rate: Any
    ) -> None:
        multiplier = self.multiplier(variable)
        super().update_step(gradient, variable, _times(learning_rate, multiplier))

    def _parallel_update_step(self, gradients, variables, learning_rate):
        # Called on torch alone, where Keras updates all variables at once.
        gradients = dict(zip(map(id, variables), gradients, strict=True))
        for multiplier, group in self._groups(variables):
            super()._parallel_update_step(
                [gradients[id(variable)] for variable in group],
                group,
                _times(learning_rate, multiplier),
            )

    def _apply_weight_decay(self, variables):
        decayed = [v for v in variables if self._use_weight_decay(v)]
        for multiplier, group in self._groups(decayed):
            self._decay_multiplier = multiplier
            super()._apply_weight_decay(group)
        self._decay_multiplier = None

    def _get_current_learning_rate(self):
        # Each backend's weight decay asks for it itself, of one group at a time.
        learning_rate = super()._get_current_learning_rate()
        if self._decay_multiplier is None:
            return learning_rate
        learning_rate = _times(learning_rate, self._decay_multiplier)
        factor = self.decay_factor()
        return learning_rate if factor is None else learning_rate * factor

    def _use_weight_decay(self, variable):
        return self.is_decayed(variable) and super()._use_weight_decay(variable)

    def _groups(self, variables):
        """(multiplier, variables) for each multiplier there is."""
        groups: dict[Any, list] = {}
        for variable in variables:
            groups.setdefault(self.multiplier(variable), []).append(variable)
        return groups.items()


def _times(learning_rate, multiplier):
    return learning_rate if multiplier == 1.0 else learning_rate * multiplier
