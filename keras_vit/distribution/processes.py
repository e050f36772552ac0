"""Collective operations of the processes that train one model, on each backend.

`torchrun` starts the processes of torch, `initialize` connects those of JAX; otherwise
there is one process. The process with index 0 is rank 0.
"""

from typing import Any

import keras
import numpy as np

from keras_vit.distribution import jax_processes, torch_processes

_OF_BACKEND = {"jax": jax_processes, "torch": torch_processes}


def num_processes() -> int:
    """Number of processes that train one model under the strategy in use."""
    found = _OF_BACKEND.get(keras.backend.backend())
    return found.num_processes() if found else 1


def process_index() -> int:
    """Rank of this process, from 0."""
    found = _OF_BACKEND.get(keras.backend.backend())
    return found.process_index() if found else 0


def is_first_process() -> bool:
    """True for rank 0, which writes files and prints."""
    return process_index() == 0


def broadcast(content: Any) -> Any:
    """The object of rank 0, in every process; it can be any that pickles."""
    return content if num_processes() == 1 else _exchanges().broadcast(content)


def broadcast_arrays(arrays: dict[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
    """The arrays of rank 0, in every process, sent one by one."""
    if num_processes() == 1:
        return arrays
    shapes = broadcast(arrays and {n: (a.shape, a.dtype) for n, a in arrays.items()})
    if shapes is None:
        return None
    if not is_first_process():
        arrays = {n: np.empty(shape, dtype) for n, (shape, dtype) in shapes.items()}
    shared = {}
    for name, array in arrays.items():
        array = np.require(array, requirements=("C", "W"))
        numbers = _exchanges().broadcast_bytes(array.reshape(-1).view("uint8"))
        shared[name] = numbers.view(array.dtype).reshape(array.shape)
    return shared


def all_gather(content: Any) -> list[Any]:
    """The objects of all processes by rank; they can be any that pickle."""
    return [content] if num_processes() == 1 else _exchanges().all_gather(content)


def all_equal(content: Any) -> bool:
    """True if the objects of all processes are equal."""
    contents = all_gather(content)
    return all(other == contents[0] for other in contents)


def any_process(truth: bool) -> bool:
    """True if it is true in any process."""
    return truth if num_processes() == 1 else _exchanges().any_process(truth)


def gather_variable(variable: keras.Variable) -> np.ndarray:
    """The complete value of a variable, in every process."""
    if keras.backend.backend() == "jax":
        return jax_processes.gather_array(variable.value)
    return keras.ops.convert_to_numpy(variable)


def barrier() -> None:
    """Waits until every process has called it."""
    any_process(False)


def _exchanges():
    return _OF_BACKEND[keras.backend.backend()]
