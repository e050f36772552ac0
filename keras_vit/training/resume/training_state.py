"""The state of a training except the data: variables and random states."""

import random
import re
import sys
from collections.abc import Collection

import keras
import numpy as np

from keras_vit.distribution import num_processes
from keras_vit.keras_internals.jax_state import synchronize
from keras_vit.keras_internals.seed_generators import global_state, made_global_state
from keras_vit.weight_paths import inner_paths, slot_paths

GROUPS = ("model", "optimizer", "metrics")
_NUMBER = re.compile(r"_\d+(?=[/_]|$)")


def grouped_variables(model: keras.Model) -> dict[str, list]:
    """The variables of a compiled model, by group.

    `"model"` has weights and seeds, `"optimizer"` also weight averages and the loss scale.
    """
    groups = (model.variables, model.optimizer.variables, model.metrics_variables)
    return dict(zip(GROUPS, map(list, groups), strict=True))


def named_variables(
    model: keras.Model, groups: Collection[str] = GROUPS
) -> dict[str, keras.Variable]:
    """The variables by unique names in order, such as `"model/00003/head/kernel"`."""
    return {
        f"{group}/{i:05d}/{path}": variable
        for group, variables in grouped_variables(model).items()
        if group in groups
        for i, (path, variable) in enumerate(
            zip(_paths(model, group, variables), variables, strict=True)
        )
    }


def _paths(model, group, variables):
    """Paths without the names of models, which Keras numbers."""
    if group == "optimizer":
        return slot_paths(model)
    names = inner_paths(model)
    return [names.get(id(variable), variable.path) for variable in variables]


class HostCopy:
    """Copies of a model's state in memory that each copy reuses."""

    def __init__(self):
        self._arrays = {}

    def take(self, model: keras.Model, groups: Collection[str]) -> dict[str, np.ndarray]:
        """Copies the variables and the states of random number generators."""
        synchronize(model)
        copies = {}
        for name, variable in named_variables(model, groups).items():
            parts = replica_parts(variable)
            if parts:
                copies[f"replicas/{name}"] = np.stack([part.numpy() for part in parts])
            copies[name] = self._copied(name, variable)
        return {**copies, **random_states()}

    def _copied(self, name, variable):
        # On a CPU the next step may write to this memory. `variable.value` is no array for
        # scalars on several devices of TensorFlow, so the variable itself is converted.
        value = np.asarray(keras.ops.convert_to_numpy(variable))
        held = self._arrays.get(name)
        if held is None or held.shape != value.shape or held.dtype != value.dtype:
            self._arrays[name] = held = np.empty(value.shape, value.dtype)
        np.copyto(held, value)
        return held


def replica_parts(variable: keras.Variable) -> tuple:
    """The values of a variable on the replicas of a `tf.distribute` strategy.

    It is empty unless the values differ and are aggregated on reading, as for metrics.
    """
    if keras.backend.backend() != "tensorflow":
        return ()
    import tensorflow as tf

    kind = getattr(variable.value, "synchronization", None)
    is_parted = kind == tf.VariableSynchronization.ON_READ
    return getattr(variable.value, "values", ()) if is_parted else ()


def assign(model: keras.Model, group: str, tensors: dict[str, np.ndarray]) -> None:
    """Assigns a group of variables by their order; check `differences` first."""
    names = [name for name in sorted(tensors) if name.startswith(f"{group}/")]
    for variable, name in zip(grouped_variables(model)[group], names, strict=True):
        dtype, value = variable_dtype(variable), tensors[name]
        # No `astype` without need: JAX cannot cast an array with shards elsewhere.
        variable.assign(value if value.dtype == dtype else value.astype(dtype))
        parts, theirs = replica_parts(variable), tensors.get(f"replicas/{name}", ())
        if len(parts) == len(theirs):
            for part, value in zip(parts, theirs, strict=True):
                part.assign(value.astype(dtype, copy=False))


def variable_dtype(variable: keras.Variable) -> str:
    """Name of the dtype of a variable's values."""
    return keras.backend.standardize_dtype(variable.dtype)


def differences(
    model: keras.Model, group: str, tensors: dict[str, np.ndarray], exact: bool
) -> list[str]:
    """Differences between the variables of a checkpoint and of a model, as text.

    Args:
        model: the model.
        group: one of `GROUPS`.
        tensors: tensors of the checkpoint.
        exact: whether integers must have the same dtype. The dtype of seeds differs
            between backends.
    """
    variables = grouped_variables(model)[group]
    facts = [(tuple(v.shape), variable_dtype(v)) for v in variables]
    ours = list(zip(_paths(model, group, variables), facts, strict=True))
    names = [name for name in sorted(tensors) if name.startswith(f"{group}/")]
    theirs = [
        (name.split("/", 2)[2], (tensors[name].shape, tensors[name].dtype.name))
        for name in names
    ]
    if len(theirs) != len(ours):
        return [
            f"{len(theirs)} variables of the {group} in the checkpoint, {len(ours)} now"
        ]
    return [
        f"{their[0]} of the {group} is {their[1]} in the checkpoint, {our[0]} {our[1]} now"
        for their, our in zip(theirs, ours, strict=True)
        if not _is_same(their, our, exact)
    ]


def _is_same(their, our, exact):
    (their_path, (their_shape, their_dtype)) = their
    (our_path, (our_shape, our_dtype)) = our
    is_seed = not exact and "int" in their_dtype and "int" in our_dtype
    # Keras numbers layers without a name.
    return (
        _NUMBER.sub("", their_path) == _NUMBER.sub("", our_path)
        and their_shape == our_shape
        and (is_seed or their_dtype == our_dtype)
    )


def random_states() -> dict[str, np.ndarray]:
    """The states of the random number generators of Python, NumPy, Keras and torch."""
    _, words, gauss = random.getstate()
    _, keys, place, has_gauss, cached = np.random.get_state()
    states = {
        "random/python": np.array(words, "uint32"),
        "random/python_gauss": np.array([] if gauss is None else [gauss], "float64"),
        "random/numpy": np.asarray(keys, "uint32"),
        "random/numpy_place": np.array([place, has_gauss], "int64"),
        "random/numpy_gauss": np.array([cached], "float64"),
    }
    generator = global_state()
    if generator is not None:
        states["random/keras"] = np.array(keras.ops.convert_to_numpy(generator.value))
    if keras.backend.backend() == "torch":
        import torch

        states["random/torch"] = torch.get_rng_state().numpy().copy()
        if torch.cuda.is_initialized():
            for i, state in enumerate(torch.cuda.get_rng_state_all()):
                states[f"random/torch_cuda/{i}"] = state.cpu().numpy().copy()
    return states


def set_random_states(states: dict[str, np.ndarray]) -> None:
    """Restores the states of `random_states` that `states` has."""
    words = tuple(map(int, states["random/python"]))
    gauss = states["random/python_gauss"]
    random.setstate((random.Random.VERSION, words, float(gauss[0]) if len(gauss) else None))
    place, has_gauss = map(int, states["random/numpy_place"])
    cached = float(states["random/numpy_gauss"][0])
    np.random.set_state(("MT19937", states["random/numpy"], place, has_gauss, cached))
    if "random/keras" in states:
        state = made_global_state()
        state.assign(states["random/keras"].astype(variable_dtype(state)))
    if keras.backend.backend() == "torch" and "random/torch" in states:
        import torch

        torch.set_rng_state(torch.from_numpy(states["random/torch"].copy()))
        for name, state in states.items():
            if name.startswith("random/torch_cuda/"):
                device = int(name.rsplit("/", 1)[1])
                torch.cuda.set_rng_state(torch.from_numpy(state.copy()), device)


def devices(model: keras.Model) -> str:
    """Devices and distribution of a training as text, such as `"1 × cpu"`."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        number = model.distribute_strategy.num_replicas_in_sync
        kind = "gpu" if tf.config.list_logical_devices("GPU") else "cpu"
    elif backend == "jax":
        import jax

        kind = jax.default_backend()
        distribution = keras.distribution.distribution()
        if distribution is not None:
            mesh = distribution.device_mesh
            sizes = zip(mesh.axis_names, mesh.shape, strict=True)
            axes = ", ".join(f"{name} {size}" for name, size in sizes)
            name = getattr(distribution, "name", type(distribution).__name__)
            number = num_processes()
            where = f" in {number} processes" if number > 1 else ""
            return f"{mesh.devices.size} × {kind}{where} ({name}: {axes})"
        number = 1
    else:
        number, kind = num_processes(), keras.ops.zeros(()).device.type
        kind = kind.replace("cuda", "gpu")
    return f"{number} × {kind}"


def versions() -> dict[str, str]:
    """Versions of keras_vit, Keras, the backend and NumPy."""
    from keras_vit._version import __version__

    backend = keras.backend.backend()
    return {
        "keras_vit": __version__,
        "keras": keras.__version__,
        backend: sys.modules[backend].__version__,
        "numpy": np.__version__,
    }
