"""Keras' optimizers with rules per variable and averages of the weights per update."""

import functools
import math
from types import SimpleNamespace
from typing import Any

import keras
from keras import ops

from keras_vit.distribution.replicas import clip_over_replicas
from keras_vit.keras_internals.gradient_clipping import ClippedInFloat32
from keras_vit.keras_internals.optimizer_averages import AveragesByUpdate, check_averages
from keras_vit.keras_internals.optimizer_classes import is_of_keras, public_class
from keras_vit.keras_internals.optimizer_steps import StepsByVariable, check_steps
from keras_vit.weight_paths import path_suffixes


@keras.saving.register_keras_serializable(package="keras_vit")
class AdaptedOptimizer(StepsByVariable, AveragesByUpdate, ClippedInFloat32):
    """Mixin that `adapt` adds to the class of an optimizer.

    - Learning rates per variable: the optimizer's, times a multiplier by the variable's
      path. Weight decay, which Keras multiplies by the learning rate, follows it.
    - Variables without weight decay, by path. They are saved, unlike those of Keras'
      `exclude_from_weight_decay`. Paths may lack the name of the model, as in older files.
    - Weight decay that rises during the training, see `raise_weight_decay`.
    - Clipping in float32, and of the summed gradient under `tf.distribute`, see
      `clip_over_replicas`.
    - `use_ema=True` averages the weights once per update, also under gradient
      accumulation, and leaves no array in two variables.

    Saved files have the same class name for every adapted optimizer; the config holds the
    optimizer itself, as Keras' backend-independent class.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            paths = [variable.path for variable in variables]
            self._adapted.factors = self._factors(paths)
            self._adapted.decays = [self._decays(path) for path in paths]
        super().build(variables)

    def _factors(self, paths):
        """The multipliers of the paths."""
        multipliers = self._adapted.multipliers
        if multipliers is None:
            return [1.0] * len(paths)
        by_tail = _by_tail(multipliers)
        factors = [_found(path, multipliers, by_tail) for path in paths]
        pairs = zip(paths, factors, strict=True)
        if unknown := {path for path, factor in pairs if factor is None}:
            raise ValueError(
                "`multipliers` must have the path of every trained variable. "
                f"Received none for: {', '.join(sorted(unknown))}. Take them from the "
                "model that is trained: learning_rate_multipliers(model, decay), after "
                "`enable_lora` if it is used."
            )
        return factors

    def _decays(self, path):
        return not any(tail in self._adapted.undecayed for tail in path_suffixes(path))

    def multiplier(self, variable: keras.Variable) -> float:
        return self._adapted.factors[self.position(variable)]

    def is_decayed(self, variable: keras.Variable) -> bool:
        return self._adapted.decays[self.position(variable)]

    def decay_factor(self) -> Any:
        """Factor of the weight decay in this step; `None` for 1."""
        if self._adapted.rising_decay is None:
            return None
        final, steps = self._adapted.rising_decay
        done = ops.minimum(ops.cast(self.iterations, "float32") / steps, 1.0)
        rise = final / self.weight_decay - 1
        return 1 + rise * (1 - ops.cos(math.pi * done)) / 2

    def get_config(self) -> dict[str, Any]:
        rising = self._adapted.rising_decay
        return {
            "optimizer": _serialized(_public_class(self), super().get_config()),
            "multipliers": self._adapted.multipliers,
            "undecayed": sorted(self._adapted.undecayed),
            **({} if rising is None else {"rising_decay": list(rising)}),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> keras.optimizers.Optimizer:
        optimizer = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        adapt(
            optimizer,
            multipliers=config["multipliers"],
            undecayed=frozenset(config["undecayed"]),
            rising_decay=tuple(config.get("rising_decay", ())) or None,
        )
        return optimizer


def adapt(optimizer: keras.optimizers.Optimizer, **rules: Any) -> None:
    """Sets rules of `AdaptedOptimizer` on an optimizer, in place.

    Args:
        optimizer: a Keras optimizer that has not been used. Inside a
            `LossScaleOptimizer`, the inner one is adapted.
        **rules: `multipliers`, a dictionary of multipliers by path or `None`;
            `undecayed`, a set of paths; `rising_decay`, the last weight decay and the
            updates until then, or `None`.

    Raises:
        ValueError: if the optimizer has been built or is a `MultiOptimizer`.
    """
    optimizer = inner_optimizer(optimizer)
    # Keras has the class from 3.15 on.
    if isinstance(optimizer, getattr(keras.optimizers, "MultiOptimizer", ())):
        raise ValueError(
            "The optimizers inside a `MultiOptimizer` have their own variables. Received: "
            f"{optimizer.name}. Pass each of them before you combine them."
        )
    if optimizer.built:
        raise ValueError(
            "An optimizer can be changed only before its first use. Received: "
            f"{optimizer.name}, which has been built. Create a new one and compile the "
            "model with it."
        )
    check_steps(optimizer)
    check_averages(optimizer)
    if keras.backend.backend() == "tensorflow":
        clip_over_replicas()
    if not isinstance(optimizer, AdaptedOptimizer):
        optimizer.__class__ = _adapted_class(_base_class(optimizer))
        # A namespace, as Keras wraps attributes that are dictionaries or lists.
        optimizer._adapted = SimpleNamespace(
            multipliers=None,
            undecayed=frozenset(),
            rising_decay=None,
            factors=(),
            decays=(),
        )
    vars(optimizer._adapted).update(rules)


def inner_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer inside a `LossScaleOptimizer`, or `optimizer` itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


@functools.cache
def _adapted_class(base):
    # Saved under the name of the mixin: `from_config` finds the class itself.
    register = keras.saving.register_keras_serializable("keras_vit", "AdaptedOptimizer")
    return register(type(f"Adapted{base.__name__}", (AdaptedOptimizer, base), {}))


def _base_class(optimizer):
    # On torch, Keras' Nadam advances its schedule at each parallel update, here once per
    # multiplier; its public class updates variables one by one.
    if isinstance(optimizer, keras.optimizers.Nadam):
        return _public_class(optimizer)
    return type(optimizer)


def _public_class(optimizer):
    """Keras' public class of an optimizer, which on torch a backend's class hides."""
    return public_class(optimizer, AdaptedOptimizer)


def _serialized(optimizer_class, config):
    module, registered_name = "keras.optimizers", None
    if not is_of_keras(optimizer_class):
        module = optimizer_class.__module__
        registered_name = keras.saving.get_registered_name(optimizer_class)
    return {
        "module": module,
        "class_name": optimizer_class.__name__,
        "config": config,
        "registered_name": registered_name,
    }


def _found(path, multipliers, by_tail):
    """The multiplier of a path, or of its longest known suffix: models may be renamed."""
    if path in multipliers:
        return multipliers[path]
    return next(
        (by_tail[t] for t in path_suffixes(path) if by_tail.get(t) is not None), None
    )


def _by_tail(multipliers):
    """The multipliers by each suffix of their paths; `None` for an ambiguous suffix."""
    found: dict[str, float | None] = {}
    for path, factor in multipliers.items():
        for tail in path_suffixes(path):
            found[tail] = factor if found.get(tail, factor) == factor else None
    return found
