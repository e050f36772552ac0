"""Start and collective operations of several processes of JAX.

jax is imported where it is used. Without `initialize` there is one process, rank 0.
"""

import contextlib
import os
import pickle
import secrets
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_vit.keras_internals.seed_generators import random_seed

TIMEOUT = 60  # seconds
ENVIRONMENT = {
    "coordinator_address": "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "num_processes": "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "process_id": "KERAS_DISTRIBUTION_PROCESS_ID",
}


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = TIMEOUT,
) -> None:
    """Connects this process of JAX to the others, to train one model together.

    Call it once in each process, with the same program, before anything is computed. It
    is `keras.distribution.initialize` with a timeout: when a process dies, the others end.

    Args:
        coordinator_address: `"host:port"` of process 0. `None` takes the first address in
            `KERAS_DISTRIBUTION_JOB_ADDRESSES` of the environment; without it JAX detects
            the processes of Cloud TPU, SLURM (`srun`), Open MPI and Kubernetes.
        num_processes: int, number of processes; `None` for
            `KERAS_DISTRIBUTION_NUM_PROCESSES`.
        process_id: int, rank of this process, from 0; `None` for
            `KERAS_DISTRIBUTION_PROCESS_ID`.
        timeout: float, seconds without a heartbeat after which a process counts as dead
            and the others end.

    Raises:
        ValueError: on another backend, if only some arguments are given, or if none is
            and JAX detects no processes.
        RuntimeError: if something was computed before, or it is called again.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "initialize() is for KERAS_BACKEND=jax. Received: the backend "
            f"{keras.backend.backend()}. Processes of torch are started with torchrun."
        )
    import jax

    given = _given(coordinator_address, num_processes, process_id)
    try:
        jax.distributed.initialize(
            **given,
            heartbeat_timeout_seconds=int(timeout),
            # Rank 0 may write results for long; the others wait before they shut down.
            shutdown_timeout_seconds=int(timeout),
        )
    except ValueError as error:
        raise ValueError(
            "JAX detects processes of Cloud TPU, SLURM (srun), Open MPI and Kubernetes. "
            "Received: an environment of none of these. Pass the arguments, or set "
            f"{', '.join(ENVIRONMENT.values())}. ({error})"
        ) from error
    # As in Keras: initial weights are equal in all processes.
    if random_seed() is None:
        seed = secrets.randbelow(2**32)
        keras.utils.set_random_seed(broadcast(seed) if jax.process_count() > 1 else seed)


def _given(*arguments):
    """The three arguments, completed from the environment; empty if there are none."""
    given = {
        name: os.environ.get(variable) if argument is None else argument
        for (name, variable), argument in zip(ENVIRONMENT.items(), arguments, strict=True)
    }
    missing = [name for name, value in given.items() if value in (None, "")]
    if len(missing) == len(given):
        return {}
    if missing:
        known = {name: value for name, value in given.items() if name not in missing}
        raise ValueError(
            "Processes need all of coordinator_address, num_processes and process_id. "
            f"Received: {known}. Give "
            f"{' and '.join(f'{n} (or {ENVIRONMENT[n]})' for n in missing)}, or none."
        )
    for name in ("num_processes", "process_id"):
        if not str(given[name]).isdigit():
            raise ValueError(f"`{name}` must be an int. Received: {given[name]!r}")
        given[name] = int(given[name])
    given["coordinator_address"] = given["coordinator_address"].split(",")[0]
    return given


def environment_has_processes() -> bool:
    """True if the environment names other processes, see `initialize`."""
    names = ENVIRONMENT.values()
    return keras.backend.backend() == "jax" and any(os.environ.get(n) for n in names)


def num_processes() -> int:
    """Number of processes that train together; 1 without `initialize`."""
    import jax

    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """Rank of this process, from 0."""
    import jax

    return jax.process_index() if jax.distributed.is_initialized() else 0


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Explains an error of JAX in a collective operation."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        own = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")  # also with one process
        if num_processes() == 1 or str(error).startswith(own):
            raise
        raise RuntimeError(
            f"Process {process_index()} of {num_processes()} has probably lost the others. "
            "See their messages. A training with `ExactResume` resumes when all are "
            f"started again. ({error})"
        ) from error


def all_gather(content: Any) -> list[Any]:
    """The objects of all processes; they can be any that pickle."""
    own = np.frombuffer(pickle.dumps(content), "uint8")
    sizes = _gathered(np.array([own.size], "int32"))[:, 0]
    # Padded to a power of two: each length is compiled.
    padded = np.zeros(1 << int(max(sizes) - 1).bit_length(), "uint8")
    padded[: own.size] = own
    rows = _gathered(padded)
    return [
        pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)
    ]


def broadcast(content: Any) -> Any:
    """The object of rank 0; it can be any that pickles."""
    return all_gather(content if process_index() == 0 else None)[0]


def broadcast_bytes(numbers: np.ndarray) -> np.ndarray:
    """The uint8 array of rank 0."""
    from jax.experimental import multihost_utils

    with connected():
        return np.array(multihost_utils.broadcast_one_to_all(numbers))


def any_process(truth: bool) -> bool:
    """True if it is true in any process."""
    return bool(_gathered(np.array([truth])).any())


def _gathered(array):
    """The arrays of all processes, of one shape, as (processes, …)."""
    from jax.experimental import multihost_utils

    with connected():
        return multihost_utils.process_allgather(array)


def gather_array(value: Any) -> np.ndarray:
    """The complete array, of which this process may have some shards only."""
    from jax.experimental import multihost_utils

    if is_complete(value):
        return np.asarray(value)
    with connected():
        return multihost_utils.process_allgather(value, tiled=True)


def is_complete(value: Any) -> bool:
    """True if this process has the complete array."""
    if isinstance(value, np.ndarray):
        return True
    return value.is_fully_addressable or value.is_fully_replicated
