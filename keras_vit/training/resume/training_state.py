"""All that a step of training depends on, but for the data: taken out, and put back."""

import random
import re
import sys

import keras
import numpy as np

from keras_vit.distribution import num_processes
from keras_vit.keras_internals.jax_state import synchronize
from keras_vit.keras_internals.seed_generators import global_state, made_global_state
from keras_vit.weight_paths import inner_paths, slot_paths

GROUPS = ("model", "optimizer", "metrics")
_NUMBER = re.compile(r"_\d+(?=[/_]|$)")


def grouped_variables(model: keras.Model) -> dict[str, list]:
    """The variables of a compiled model: weights and seeds, optimizer, metrics.

    An optimizer's are also its averages of the weights, and the scale of the loss.
    """
    groups = (model.variables, model.optimizer.variables, model.metrics_variables)
    return dict(zip(GROUPS, map(list, groups), strict=True))


def named_variables(model: keras.Model, groups=GROUPS) -> dict:
    """Variables under names that are unique and in order, `"model/00003/head/kernel"`."""
    return {
        f"{group}/{i:05d}/{path}": variable
        for group, variables in grouped_variables(model).items()
        if group in groups
        for i, (path, variable) in enumerate(
            zip(_paths(model, group, variables), variables, strict=True)
        )
    }


def _paths(model, group, variables):
    """Without the names of models, which a process may have numbered."""
    if group == "optimizer":
        return slot_paths(model)
    names = inner_paths(model)
    return [names.get(id(variable), variable.path) for variable in variables]


class HostCopy:
    """Copies of a model's state in memory that is used again for the next copy."""

    def __init__(self):
        self._arrays = {}

    def take(self, model: keras.Model, groups) -> dict[str, np.ndarray]:
        """Copies of the variables, and of the states of random number generators."""
        synchronize(model)
        copies = {}
        for name, variable in named_variables(model, groups).items():
            parts = replica_parts(variable)
            if parts:
                copies[f"replicas/{name}"] = np.stack([part.numpy() for part in parts])
            copies[name] = self._copied(name, variable)
        return {**copies, **random_states()}

    def _copied(self, name, variable):
        # On a CPU it may be the very memory that the next step writes to. Of the value of
        # a variable TensorFlow makes no array where it is a number on several devices.
        value = np.asarray(keras.ops.convert_to_numpy(variable))
        held = self._arrays.get(name)
        if held is None or held.shape != value.shape or held.dtype != value.dtype:
            self._arrays[name] = held = np.empty(value.shape, value.dtype)
        np.copyto(held, value)
        return held


def replica_parts(variable) -> tuple:
    """What each replica of a `tf.distribute` strategy has of a variable.

    Of those that are put together when they are read, as metrics are; of others, and
    without such a strategy, nothing.
    """
    if keras.backend.backend() != "tensorflow":
        return ()
    import tensorflow as tf

    kind = getattr(variable.value, "synchronization", None)
    is_parted = kind == tf.VariableSynchronization.ON_READ
    return getattr(variable.value, "values", ()) if is_parted else ()


def assign(model: keras.Model, group: str, tensors: dict[str, np.ndarray]) -> None:
    """Puts a group of variables back, by their order; `differences` is for before."""
    names = [name for name in sorted(tensors) if name.startswith(f"{group}/")]
    for variable, name in zip(grouped_variables(model)[group], names, strict=True):
        dtype, value = variable_dtype(variable), tensors[name]
        # JAX changes nothing of an array of which other processes have a part.
        variable.assign(value if value.dtype == dtype else value.astype(dtype))
        parts, theirs = replica_parts(variable), tensors.get(f"replicas/{name}", ())
        if len(parts) == len(theirs):
            for part, value in zip(parts, theirs, strict=True):
                part.assign(value.astype(dtype, copy=False))


def variable_dtype(variable) -> str:
    """Name of the dtype of a variable's numbers, which a policy may not be."""
    return keras.backend.standardize_dtype(variable.dtype)


def differences(
    model: keras.Model, group: str, tensors: dict[str, np.ndarray], exact: bool
) -> list[str]:
    """What tells the variables of a checkpoint from those of a model.

    Args:
        model: the model.
        group: one of `GROUPS`.
        tensors: of the checkpoint.
        exact: whether integers must have the same dtype; seeds have another on each
            backend.
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
    # Keras numbers the layers of a process that have no name.
    return (
        _NUMBER.sub("", their_path) == _NUMBER.sub("", our_path)
        and their_shape == our_shape
        and (is_seed or their_dtype == our_dtype)
    )


def random_states() -> dict[str, np.ndarray]:
    """The states of the generators that belong to no model."""
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
    """Puts back what `random_states` took, as far as it is there."""
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
    """What a model is trained on, and how it is split: `"1 × cpu"`."""
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
    """Of what computes."""
    from keras_vit._version import __version__

    backend = keras.backend.backend()
    return {
        "keras_vit": __version__,
        "keras": keras.__version__,
        backend: sys.modules[backend].__version__,
        "numpy": np.__version__,
    }
