"""The processes of JAX that train one model: how they meet, and what they exchange.

jax is imported where it is used; without `initialize` there is one process, number 0.
"""

import contextlib
import os
import pickle
import secrets

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
    """Has this process of JAX find the others, with which it then trains one model.

    Call it in each process, with the same program, before anything is computed. It is
    `keras.distribution.initialize`, but that a process which has died ends the others
    after `timeout`.

    Args:
        coordinator_address: `"host:port"` of process 0. `None` for
            `KERAS_DISTRIBUTION_JOB_ADDRESSES` of the environment, of which the first one
            counts, and without that for what JAX finds: on Cloud TPU, under SLURM (in
            `srun`), Open MPI and Kubernetes.
        num_processes: int, how many there are; or `KERAS_DISTRIBUTION_NUM_PROCESSES`.
        process_id: int, which one this is, from 0; or `KERAS_DISTRIBUTION_PROCESS_ID`.
        timeout: float, seconds without a sign of life after which a process counts as
            dead and the others end.

    Raises:
        ValueError: on another backend, if only some are given, or none and JAX finds none.
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
            # The first process may write results for long; the others wait before this.
            shutdown_timeout_seconds=int(timeout),
        )
    except ValueError as error:
        raise ValueError(
            "JAX found no other processes: it looks for Cloud TPU, SLURM (in srun), Open "
            "MPI and Kubernetes. Elsewhere say where they are, by the arguments or in "
            f"{', '.join(ENVIRONMENT.values())}. ({error})"
        ) from error
    # As Keras does: initial weights are the same in each.
    if random_seed() is None:
        seed = secrets.randbelow(2**32)
        keras.utils.set_random_seed(share(seed) if jax.process_count() > 1 else seed)


def _given(*arguments):
    """What says where the processes are, all of it or nothing."""
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
            "To find each other processes need all of coordinator_address, num_processes "
            f"and process_id. Received: {known}. Give "
            f"{' and '.join(f'{n} (or {ENVIRONMENT[n]})' for n in missing)}, or none."
        )
    for name in ("num_processes", "process_id"):
        if not str(given[name]).isdigit():
            raise ValueError(f"`{name}` must be an int. Received: {given[name]!r}")
        given[name] = int(given[name])
    given["coordinator_address"] = given["coordinator_address"].split(",")[0]
    return given


def is_asked_for() -> bool:
    """Whether the environment says where other processes are."""
    names = ENVIRONMENT.values()
    return keras.backend.backend() == "jax" and any(os.environ.get(n) for n in names)


def num_processes() -> int:
    """How many processes train together; 1 without `initialize`."""
    import jax

    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """The number of this process, from 0."""
    import jax

    return jax.process_index() if jax.distributed.is_initialized() else 0


@contextlib.contextmanager
def connected():
    """Says what it means where the others do not answer."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        own = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")  # as without the others
        if num_processes() == 1 or str(error).startswith(own):
            raise
        raise RuntimeError(
            f"Process {process_index()} of {num_processes()} has probably lost the others. "
            "See what they say; a training with `ExactResume` goes on when all are started "
            f"again. ({error})"
        ) from error


def everyones(content) -> list:
    """What each process gave; anything that can be pickled."""
    own = np.frombuffer(pickle.dumps(content), "uint8")
    sizes = _gathered(np.array([own.size], "int32"))[:, 0]
    # Of few lengths, as each is compiled for.
    padded = np.zeros(1 << int(max(sizes) - 1).bit_length(), "uint8")
    padded[: own.size] = own
    rows = _gathered(padded)
    return [
        pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)
    ]


def share(content):
    """What the first process gave; anything that can be pickled."""
    return everyones(content if process_index() == 0 else None)[0]


def share_bytes(numbers: np.ndarray) -> np.ndarray:
    """The first process' uint8 array."""
    from jax.experimental import multihost_utils

    with connected():
        return np.array(multihost_utils.broadcast_one_to_all(numbers))


def any_process(truth: bool) -> bool:
    """Whether it is true in one of them."""
    return bool(_gathered(np.array([truth])).any())


def _gathered(array):
    """(processes, …): the arrays of all processes, of one shape."""
    from jax.experimental import multihost_utils

    with connected():
        return multihost_utils.process_allgather(array)


def whole(value) -> np.ndarray:
    """All of an array, of which the devices of this process may have a part."""
    from jax.experimental import multihost_utils

    if is_whole(value):
        return np.asarray(value)
    with connected():
        return multihost_utils.process_allgather(value, tiled=True)


def is_whole(value) -> bool:
    """Whether this process has all of an array."""
    if isinstance(value, np.ndarray):
        return True
    return value.is_fully_addressable or value.is_fully_replicated
