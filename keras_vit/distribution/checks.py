"""Whether a model is split over the devices as its distribution says."""

import math
import re

import keras

from keras_vit.distribution.layouts import (
    MIN_SIZE,
    Layouts,
    ShardedWeights,
    tensor_parallel_axes,
)
from keras_vit.keras_internals.layout_maps import layout_map
from keras_vit.weight_paths import public_path


def check(model: keras.Model) -> None:
    """Checks that a model is on the devices of the distribution in use, as it says.

    `keras_vit.training.finetune` calls it; call it yourself before `fit`. On TensorFlow
    and torch, and on JAX without a distribution, there is nothing to check.

    Args:
        model: any built model, compiled or not. Of one that was trained, the variables of
            the optimizer are checked, too.

    Raises:
        ValueError: if a variable was made outside the distribution in use; a pattern of a
            `LayoutMap` matches no weight; a weight of 65,536 numbers or more is whole on
            each device under a `keras.distribution.ModelParallel`, though no layout says
            so; or a slot of the optimizer is split otherwise than its weight.
    """
    distribution = keras.distribution.distribution()
    if keras.backend.backend() != "jax" or distribution is None:
        return
    variables = [*model.variables]
    if getattr(model, "optimizer", None) is not None:
        variables += model.optimizer.variables
    _check_mesh(variables, distribution)
    if isinstance(distribution, keras.distribution.ModelParallel):
        layouts = layout_map(distribution)
        _check_patterns(layouts, variables)
        if not isinstance(distribution, ShardedWeights):  # which has as it was built
            _check_large(model.weights, layouts)
    _check_slots(model)


def _check_mesh(variables, distribution):
    mesh = distribution.device_mesh.backend_mesh
    strays = [v.path for v in variables if getattr(_sharding(v), "mesh", None) != mesh]
    if strays:
        more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        raise ValueError(
            "Model and optimizer must be made under the distribution that is in use. "
            f"Received: {strays[0]!r}{more}, made without it. Put the building of both, "
            "`compile` and `fit` into one `with keras_vit.distribution.strategy(…):`."
        )


def _check_patterns(layouts, variables):
    for pattern in layouts:
        # Those of outputs, which Keras calls so, are known only in a call.
        if pattern.endswith("output"):
            continue
        if not any(_matches(pattern, variable.path, layouts) for variable in variables):
            raise ValueError(
                "Each pattern of `layouts` must match the whole path of a weight. "
                f"Received: {pattern!r}, which matches none; paths are such as "
                f"{variables[0].path!r}. Begin it with '.*' to match an end."
            )


def _matches(pattern, path, layouts):
    spellings = (path, public_path(path)) if isinstance(layouts, Layouts) else (path,)
    return any(re.fullmatch(pattern, spelling) for spelling in spellings)


def _check_large(weights, layouts):
    for weight in weights:
        path, shape = weight.path, tuple(weight.shape)
        ruled = tensor_parallel_axes(path, shape)
        is_embedding = ruled is not None and not any(ruled)
        is_whole = _sharding(weight).is_fully_replicated and layouts[path] is None
        if is_whole and not is_embedding and math.prod(shape) >= MIN_SIZE:
            raise ValueError(
                f"No pattern of the `LayoutMap` matches the weight {path!r} of shape "
                f"{shape}, so that it is whole on each device. Add one, with None for "
                "each dimension if that is meant, or take "
                "keras_vit.distribution.tensor_parallel or fully_sharded."
            )


def _check_slots(model):
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return
    weights = {weight.path.replace("/", "_"): weight for weight in model.weights}
    for slot in optimizer.variables:
        # Keras names a slot "optimizer/path_of_the_weight_name"; the longest one fits.
        names = [n for n in weights if slot.path.split("/")[-1].startswith(f"{n}_")]
        if not names:
            continue
        weight = weights[max(names, key=len)]
        if tuple(weight.shape) != tuple(slot.shape):
            continue
        if not _sharding(slot).is_equivalent_to(_sharding(weight), len(slot.shape)):
            raise ValueError(
                "What an optimizer keeps of a weight must be split as the weight. "
                f"Received: {slot.path!r} as {_sharding(slot).spec}, "
                f"{weight.path!r} as {_sharding(weight).spec}. Compile the model under "
                "the distribution that it was built under."
            )


def _sharding(variable):
    return variable.value.sharding
