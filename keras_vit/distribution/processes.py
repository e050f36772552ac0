"""Processes that train one model together, on whichever backend, and what they exchange.

On torch those that `torchrun` has started, on JAX those that `initialize` has brought
together; elsewhere there is one.
"""

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


def share(content):
    """What the first process gave, in every process; anything that can be pickled."""
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


def everyones(content) -> list:
    """What each process gave, in their order; anything that can be pickled."""
    return [content] if num_processes() == 1 else _exchanges().everyones(content)


def same_everywhere(content) -> bool:
    """Whether all processes gave the same."""
    contents = everyones(content)
    return all(other == contents[0] for other in contents)


def any_process(truth: bool) -> bool:
    """Whether it is true in one of them."""
    return truth if num_processes() == 1 else _exchanges().any_process(truth)


def barrier() -> None:
    """Returns when every process has come here."""
    any_process(False)


def _exchanges():
    return _OF_BACKEND[keras.backend.backend()]
