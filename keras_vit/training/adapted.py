"""Keras' optimizers with rules for single variables, and averages counted by update."""

import functools
from types import SimpleNamespace

import keras
from keras import ops

from keras_vit.distribution import clip_over_replicas
from keras_vit.weight_paths import path_suffixes


@keras.saving.register_keras_serializable(package="keras_vit")
class AdaptedOptimizer:
    """What `adapt` adds to the class of an optimizer.

    - A learning rate for each variable: the optimizer's, times a factor by the variable's
      path. Weight decay, which Keras multiplies by the learning rate, follows it.
    - Variables without weight decay, by path, so that a saved optimizer keeps them
      (Keras' `exclude_from_weight_decay` is not saved).
      Both paths may be without the name of the model, as in files of before.
    - Clipping in float32, and of the whole gradient under `tf.distribute`, see
      `clip_over_replicas`.
    - `use_ema=True` averages the weights once an update, also where an update takes
      several steps, and leaves no array in two variables (both wrong in Keras 3.15).

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

    def update_step(self, gradient, variable, learning_rate):
        multiplier = self._multiplier(variable)
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
            self._adapted.multiplier = multiplier
            super()._apply_weight_decay(group)
        self._adapted.multiplier = 1.0

    def _get_current_learning_rate(self):
        # Each backend's weight decay asks for it itself, of one group at a time.
        return _times(super()._get_current_learning_rate(), self._adapted.multiplier)

    def _use_weight_decay(self, variable):
        decays = self._adapted.decays[self._get_variable_index(variable)]
        return decays and super()._use_weight_decay(variable)

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

    def finalize_variable_values(self, var_list):
        # Without a step they are zeros: `fit` has failed before it.
        if self.has_averages() or not self.use_ema:
            super().finalize_variable_values(var_list)

    def _clip_gradients(self, grads):
        # In float32: norms overflow in float16, and on TensorFlow Keras fails.
        dtypes = [keras.backend.standardize_dtype(grad.dtype) for grad in grads]
        clipped = super()._clip_gradients(
            _cast_half(grads, dtypes, ["float32"] * len(grads))
        )
        return _cast_half(clipped, dtypes, dtypes)

    def has_averages(self):
        return self.use_ema and int(ops.convert_to_numpy(self._iterations)) > 0

    def averages(self):
        """(variable, its average) of every variable that is trained by its gradient."""
        pairs = zip(
            self._trainable_variables, self._model_variables_moving_average, strict=True
        )
        return [(variable, average) for variable, average in pairs if average is not None]

    def _multiplier(self, variable):
        return self._adapted.factors[self._get_variable_index(variable)]

    def _groups(self, variables):
        """(multiplier, variables) for each multiplier there is."""
        groups = {}
        for variable in variables:
            groups.setdefault(self._multiplier(variable), []).append(variable)
        return groups.items()

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
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
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
    if keras.backend.backend() == "tensorflow":
        clip_over_replicas()
    if not isinstance(optimizer, AdaptedOptimizer):
        optimizer.__class__ = _adapted_class(_base_class(optimizer))
        # One object, which Keras' tracking of attributes leaves as it is.
        optimizer._adapted = SimpleNamespace(
            multipliers=None, undecayed=frozenset(), factors=(), decays=(), multiplier=1.0
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
    return next(
        base
        for base in type(optimizer).__mro__
        if not issubclass(base, AdaptedOptimizer)
        and not base.__module__.startswith("keras.src.backend.")
    )


def _serialized(optimizer_class, config):
    module, registered_name = "keras.optimizers", None
    if not optimizer_class.__module__.startswith("keras.src."):
        module = optimizer_class.__module__
        registered_name = keras.saving.get_registered_name(optimizer_class)
    return {
        "module": module,
        "class_name": optimizer_class.__name__,
        "config": config,
        "registered_name": registered_name,
    }


def _cast_half(gradients, dtypes, targets):
    """Casts the gradients that came in half precision, and leaves others as they are."""
    return [
        ops.cast(gradient, target) if dtype in ("float16", "bfloat16") else gradient
        for gradient, dtype, target in zip(gradients, dtypes, targets, strict=True)
    ]


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


def _times(learning_rate, multiplier):
    return learning_rate if multiplier == 1.0 else learning_rate * multiplier
