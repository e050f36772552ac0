"""Processes that train one model together, on whichever backend, and what they exchange.

On torch those that `torchrun` has started, on JAX those that `initialize` has brought
together; elsewhere there is one.
"""

from typing import Any

import keras
import numpy as np

from keras_vit.distribution import jax_processes, torch_processes

_OF_BACKEND = {"jax": jax_processes, "torch": torch_processes}


def num_processes() -> int:
    """How many processes train together here and now."""
    found = _OF_BACKEND.get(keras.backend.backend())
    return found.num_processes() if found else 1


def process_index() -> int:
    """The number of this process among those that train together, from 0."""
    found = _OF_BACKEND.get(keras.backend.backend())
    return found.process_index() if found else 0


def is_first_process() -> bool:
    """Whether it is this process that writes files and prints."""
    return process_index() == 0


def share(content: Any) -> Any:
    """Returns the first process' content in every process; it must be picklable."""
    return content if num_processes() == 1 else _exchanges().share(content)


def share_arrays(arrays: dict[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
    """The first process' arrays, in every process, one after the other."""
    if num_processes() == 1:
        return arrays
    shapes = share(arrays and {n: (a.shape, a.dtype) for n, a in arrays.items()})
    if shapes is None:
        return None
    if not is_first_process():
        arrays = {n: np.empty(shape, dtype) for n, (shape, dtype) in shapes.items()}
    shared = {}
    for name, array in arrays.items():
        array = np.require(array, requirements=("C", "W"))
        numbers = _exchanges().share_bytes(array.reshape(-1).view("uint8"))
        shared[name] = numbers.view(array.dtype).reshape(array.shape)
    return shared


def everyones(content: Any) -> list[Any]:
    """Returns the content of each process, in their order; it must be picklable."""
    return [content] if num_processes() == 1 else _exchanges().everyones(content)


def same_everywhere(content: Any) -> bool:
    """Returns `True` if all processes have the same content."""
    contents = everyones(content)
    return all(other == contents[0] for other in contents)


def any_process(truth: bool) -> bool:
    """Whether it is true in one of them."""
    return truth if num_processes() == 1 else _exchanges().any_process(truth)


def whole(variable: keras.Variable) -> np.ndarray:
    """All of a variable, in every process."""
    if keras.backend.backend() == "jax":
        return jax_processes.whole(variable.value)
    return keras.ops.convert_to_numpy(variable)


def barrier() -> None:
    """Returns when every process has come here."""
    any_process(False)


def _exchanges():
    return _OF_BACKEND[keras.backend.backend()]
