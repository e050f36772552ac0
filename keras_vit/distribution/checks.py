"""Checks of a model, its batches and its processes against the distribution in use."""

import math
import re

import keras

from keras_vit.distribution import mirrored_training
from keras_vit.distribution.batch_rows import num_batch_shards
from keras_vit.distribution.jax_distributions import MultiProcessDistribution
from keras_vit.distribution.layouts import (
    MIN_SIZE,
    Layouts,
    ShardedWeights,
    tensor_parallel_axes,
)
from keras_vit.distribution.processes import num_processes
from keras_vit.distribution.torch_processes import num_launched
from keras_vit.keras_internals.layout_maps import layout_map
from keras_vit.weight_paths import public_path


def check(model: keras.Model) -> None:
    """Checks that the distribution in use has placed the variables of a model.

    `keras_vit.training.finetune` calls it; call it yourself before `fit`. It checks
    nothing on TensorFlow and torch, and on JAX without a distribution.

    Args:
        model: a built model. If its optimizer is built, its variables are checked, too.

    Raises:
        ValueError: if a variable was made outside the distribution; a pattern of a
            `LayoutMap` matches no weight; a weight of 65,536 elements or more is
            replicated under a `keras.distribution.ModelParallel` though no layout says
            so; or a slot of the optimizer is sharded differently from its weight.
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
            "Model and optimizer must be built under the distribution in use. Received: "
            f"{strays[0]!r}{more}, built without it. Build both, `compile` and `fit` in "
            "one `with keras_vit.distribution.strategy(…):`."
        )


def _check_patterns(layouts, variables):
    for pattern in layouts:
        # Patterns of layer outputs, which Keras names so, match only in a call.
        if pattern.endswith("output"):
            continue
        if not any(_matches(pattern, variable.path, layouts) for variable in variables):
            raise ValueError(
                "Each pattern of `layouts` must match the whole path of a weight. "
                f"Received: {pattern!r}, which matches none of paths such as "
                f"{variables[0].path!r}. Begin it with '.*' to match the end of a path."
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
                "A large weight must have a layout. Received: a `LayoutMap` without a "
                f"pattern for {path!r} of shape {shape}, which is replicated on each "
                "device. Add one (None for each dimension to replicate it), or use "
                "keras_vit.distribution.tensor_parallel or fully_sharded."
            )


def _check_slots(model):
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return
    weights = {weight.path.replace("/", "_"): weight for weight in model.weights}
    for slot in optimizer.variables:
        # Keras names a slot "optimizer/path_of_the_weight_name"; the longest match counts.
        names = [n for n in weights if slot.path.split("/")[-1].startswith(f"{n}_")]
        if not names:
            continue
        weight = weights[max(names, key=len)]
        if tuple(weight.shape) != tuple(slot.shape):
            continue
        if not _sharding(slot).is_equivalent_to(_sharding(weight), len(slot.shape)):
            raise ValueError(
                "An optimizer's slot must be sharded like its weight. Received: "
                f"{slot.path!r} as {_sharding(slot).spec}, {weight.path!r} as "
                f"{_sharding(weight).spec}. Compile the model under the distribution that "
                "it was built under."
            )


def _sharding(variable):
    return variable.value.sharding


def check_batches(batch_size: int) -> None:
    """Checks that the devices of the distribution in use divide a batch.

    Raises:
        ValueError: if `batch_size` is not a multiple of the number of devices, or under
            tensor parallelism of the number of model replicas.
    """
    parts = _num_shards()
    if batch_size % parts:
        raise ValueError(
            "The batch size must be divisible by the number of devices. Received: "
            f"batch_size (or micro_batch_size) {batch_size} for {parts} devices. Use a "
            f"multiple of {parts}."
        )


def needs_padding(rows: int) -> bool:
    """True if the last batch of an evaluation must be padded to the size of the others.

    The strategies of this package take batches of any size. Processes of JAX decode equal
    numbers of rows, and other distributions of Keras and TensorFlow divide batches
    evenly: both need padding.

    Args:
        rows: rows of the first batch.
    """
    parts = _num_shards()
    if keras.backend.backend() == "jax":
        is_ours = isinstance(keras.distribution.distribution(), MultiProcessDistribution)
        return parts > 1 and (num_processes() > 1 or not is_ours)
    if keras.backend.backend() == "tensorflow":
        return rows % parts > 0 and not mirrored_training.is_in_use()
    return False


def _num_shards() -> int:
    """Number of shards of a batch under the distribution in use."""
    if keras.backend.backend() == "jax":
        current = keras.distribution.distribution()
        return num_batch_shards(current) if current else 1
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync
    return num_processes()


def check_processes(model: keras.Model) -> None:
    """Checks that several processes train one model, and not one each.

    Raises:
        ValueError: if there are several processes and no strategy is in use, or the model
            is wrapped in torch's `DistributedDataParallel`.
    """
    if keras.backend.backend() == "jax":
        current = keras.distribution.distribution()
        if num_processes() > 1 and not isinstance(current, MultiProcessDistribution):
            raise ValueError(
                "Processes of JAX must train together. Received: one of "
                f"{num_processes()} under {current}. Build and train the model in `with "
                "keras_vit.distribution.strategy(…):`."
            )
    if keras.backend.backend() != "torch":
        return
    import torch

    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        raise ValueError(
            "Keras' `fit` bypasses torch's DistributedDataParallel. Received: a model "
            "wrapped in it. Pass the model itself, in "
            "`with keras_vit.distribution.data_parallel():`."
        )
    if num_launched() != num_processes():
        raise ValueError(
            "The processes of `torchrun` must train together. Received: one of "
            f"{num_launched()} outside of `with keras_vit.distribution.data_parallel():` "
            "or strategy('auto'). Train in it, or start one process without torchrun."
        )


def check_gradient_accumulation() -> None:
    """Checks that gradients can be accumulated under the distribution in use.

    Raises:
        ValueError: under a `tf.distribute` strategy of several replicas, where Keras 3.15
            fails with "merge_call called while defining a new graph or a tf.function".
    """
    if keras.backend.backend() == "tensorflow" and _num_shards() > 1:
        raise ValueError(
            "Keras cannot accumulate gradients under a tf.distribute strategy. Received: a "
            "`micro_batch_size` less than `batch_size`. Leave it out, as each accelerator "
            "already has a part of the batch, or use KERAS_BACKEND=jax or one accelerator."
        )
