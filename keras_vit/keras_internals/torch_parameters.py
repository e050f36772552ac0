"""Assumption: on torch Keras fills `_torch_params` in `_track_variables`, by path.

The names in a torch state dict of a Keras model are the paths of its variables, which
Keras takes while the model is built. There is no public way to other names, nor to paths
that are known later. Keras calls `Layer._track_variables` at the end of `build`, and trains
what `_torch_params` holds.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import keras

from keras_vit.keras_internals.assumption import private
from keras_vit.keras_internals.stateless_scope import in_stateless_scope


class NamedParameters:
    """A base, before `keras.Model`, of models that name their parameters on torch."""

    def parameter_names(self) -> list[str]:
        """A name for each of `self.variables`, in their order."""
        raise NotImplementedError

    def name_parameters(self) -> None:
        """Lists the variables under their names; on other backends it does nothing.

        Raises:
            AssumptionError: if Keras does not list them in `_track_variables`.
        """
        # As Keras, not in a stateless scope, where variables may have no values yet.
        if keras.backend.backend() != "torch" or in_stateless_scope():
            return
        private(super(), "_track_variables", "Naming the parameters of a model on torch")
        self._track_variables()

    def _track_variables(self):
        import torch

        values = [variable.value for variable in self.variables]
        names = self.parameter_names()
        self._torch_params = torch.nn.ParameterDict(zip(names, values, strict=True))
