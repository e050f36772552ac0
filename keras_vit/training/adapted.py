"""Keras' optimizers with rules for single variables, and averages counted by update."""

import functools
from types import SimpleNamespace

import keras

from keras_vit.distribution import clip_over_replicas
from keras_vit.keras_internals.gradient_clipping import ClippedInFloat32
from keras_vit.keras_internals.optimizer_averages import AveragesByUpdate, check_averages
from keras_vit.keras_internals.optimizer_classes import is_of_keras, public_class
from keras_vit.keras_internals.optimizer_steps import StepsByVariable, check_steps
from keras_vit.weight_paths import path_suffixes


@keras.saving.register_keras_serializable(package="keras_vit")
class AdaptedOptimizer(StepsByVariable, AveragesByUpdate, ClippedInFloat32):
    """What `adapt` adds to the class of an optimizer.

    - A learning rate for each variable: the optimizer's, times a factor by the variable's
      path. Weight decay, which Keras multiplies by the learning rate, follows it.
    - Variables without weight decay, by path, so that a saved optimizer keeps them
      (Keras' `exclude_from_weight_decay` is not saved).
      Both paths may be without the name of the model, as in files of before.
    - Clipping in float32, and of the whole gradient under `tf.distribute`, see
      `clip_over_replicas`.
    - `use_ema=True` averages the weights once an update, also where an update takes
      several steps, and leaves no array in two variables.

    One name in saved files serves the adapted class of every optimizer: the config holds
    that of the optimizer itself, as the backend-independent class of Keras.
    """

    def build(self, variables):
        if not self.built:
            paths = [variable.path for variable in variables]
            self._adapted.factors = self._factors(paths)
            self._adapted.decays = [self._decays(path) for path in paths]
        super().build(variables)

    def _factors(self, paths):
        """The multiplier of each path."""
        multipliers = self._adapted.multipliers
        if multipliers is None:
            return [1.0] * len(paths)
        by_tail = _by_tail(multipliers)
        factors = [_found(path, multipliers, by_tail) for path in paths]
        pairs = zip(paths, factors, strict=True)
        if unknown := {path for path, factor in pairs if factor is None}:
            raise ValueError(
                "`multipliers` must have the path of every variable that is trained. "
                f"Received none for: {', '.join(sorted(unknown))}. Take them from the "
                "model as it is trained: learning_rate_multipliers(model, decay), after "
                "`enable_lora` if it is used."
            )
        return factors

    def _decays(self, path):
        return not any(tail in self._adapted.undecayed for tail in path_suffixes(path))

    def multiplier(self, variable):
        return self._adapted.factors[self.position(variable)]

    def is_decayed(self, variable):
        return self._adapted.decays[self.position(variable)]

    def get_config(self):
        return {
            "optimizer": _serialized(_public_class(self), super().get_config()),
            "multipliers": self._adapted.multipliers,
            "undecayed": sorted(self._adapted.undecayed),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        optimizer = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        adapt(
            optimizer,
            multipliers=config["multipliers"],
            undecayed=frozenset(config["undecayed"]),
        )
        return optimizer


def adapt(optimizer: keras.optimizers.Optimizer, **rules) -> None:
    """Sets rules of `AdaptedOptimizer` on an optimizer, in place.

    Args:
        optimizer: any but a `MultiOptimizer`, before its first use; where it is a
            `LossScaleOptimizer`, the one inside is adapted.
        **rules: `multipliers`, a dictionary of factors by path or `None`; `undecayed`, a
            set of paths.

    Raises:
        ValueError: if the optimizer has been built, or is one of several.
    """
    optimizer = inner_optimizer(optimizer)
    # Keras has the class from 3.15 on.
    if isinstance(optimizer, getattr(keras.optimizers, "MultiOptimizer", ())):
        raise ValueError(
            "Each of the optimizers inside a `MultiOptimizer` has its own variables. "
            f"Received: {optimizer.name}. Pass those before they are put into it."
        )
    if optimizer.built:
        raise ValueError(
            "An optimizer can be changed only before its first use. Received: "
            f"{optimizer.name}, which has been built. Make a new one, and compile the "
            "model with it."
        )
    check_steps(optimizer)
    check_averages(optimizer)
    if keras.backend.backend() == "tensorflow":
        clip_over_replicas()
    if not isinstance(optimizer, AdaptedOptimizer):
        optimizer.__class__ = _adapted_class(_base_class(optimizer))
        # One object, which Keras' tracking of attributes leaves as it is.
        optimizer._adapted = SimpleNamespace(
            multipliers=None, undecayed=frozenset(), factors=(), decays=()
        )
    vars(optimizer._adapted).update(rules)


def inner_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer inside a `LossScaleOptimizer`, or the one that is given."""
    return getattr(optimizer, "inner_optimizer", optimizer)


@functools.cache
def _adapted_class(base):
    # The name of the mixin in saved files: `from_config` finds the class itself.
    register = keras.saving.register_keras_serializable("keras_vit", "AdaptedOptimizer")
    return register(type(f"Adapted{base.__name__}", (AdaptedOptimizer, base), {}))


def _base_class(optimizer):
    # On torch, Keras' Nadam takes a step of its schedule at each parallel update, of
    # which there is one for each multiplier here; its other class updates one by one.
    if isinstance(optimizer, keras.optimizers.Nadam):
        return _public_class(optimizer)
    return type(optimizer)


def _public_class(optimizer):
    """Keras' class of an optimizer where that of the backend hides it (on torch)."""
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
    """The factor of a path, or of its longest tail: a model may have another name now."""
    if path in multipliers:
        return multipliers[path]
    return next(
        (by_tail[t] for t in path_suffixes(path) if by_tail.get(t) is not None), None
    )


def _by_tail(multipliers):
    """The factors by every tail of their paths; `None` of one that has several."""
    found: dict[str, float | None] = {}
    for path, factor in multipliers.items():
        for tail in path_suffixes(path):
            found[tail] = factor if found.get(tail, factor) == factor else None
    return found
