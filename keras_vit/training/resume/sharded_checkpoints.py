"""Sharded checkpoints: folders into which each process writes its shards, by Orbax.

orbax is imported where it is used.
"""

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit.distribution import jax_processes
from keras_vit.training.resume.checkpoint_files import Checkpoint
from keras_vit.training.resume.training_state import random_states

SUFFIX = ".orbax"
_SUMS, _RANDOM = "checksums", "random"  # keys of the record


def is_sharded(variables: Iterable[keras.Variable]) -> bool:
    """True if a variable has shards in other processes."""
    if keras.backend.backend() != "jax":
        return False
    return not all(jax_processes.is_complete(variable.value) for variable in variables)


class ShardedWriter:
    """Writes one checkpoint at a time; on accelerators training continues meanwhile."""

    def __init__(self) -> None:
        self._checkpointer = None

    def write(
        self,
        path: Path,
        arrays: Mapping[str, Any],
        sums: Mapping[str, Any],
        record: dict[str, Any],
    ) -> None:
        """Starts to write a checkpoint; every process calls it.

        Args:
            path: path of the folder, which every process sees. It has this name only when
                it is complete.
            arrays: `jax.Array` by name.
            sums: checksums of the arrays, see `checksums`.
            record: dictionary for JSON; that of rank 0 counts.
        """
        import jax

        ocp = _orbax()
        states = {n: (a.dtype.name, a.tolist()) for n, a in random_states().items()}
        record = {**record, _SUMS: sums, _RANDOM: states}
        if self._checkpointer is None:
            handler = ocp.CompositeCheckpointHandler()
            self._checkpointer = ocp.AsyncCheckpointer(handler)
        self._checkpointer.save(
            os.path.abspath(path),
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(dict(arrays)),
                record=ocp.args.JsonSave(record),
            ),
        )
        if jax.default_backend() == "cpu":
            self.wait()  # Orbax does not copy the arrays, which the next step overwrites

    def wait(self) -> None:
        """Waits until the checkpoint is written.

        Raises:
            Exception: an error of Orbax in writing.
        """
        if self._checkpointer is not None:
            self._checkpointer.wait_until_finished()


def read(path: Path, shardings: Mapping[str, Any]) -> Checkpoint:
    """Reads the shards of a checkpoint that this process needs.

    Args:
        path: path of the folder.
        shardings: (shape, `jax.sharding.Sharding`) by name, for any number of devices.
            Arrays that have none, or another shape, are read as NumPy arrays.

    Raises:
        ValueError: if it is damaged.
    """
    ocp = _orbax()
    handlers = {
        "state": ocp.PyTreeCheckpointHandler(),
        "record": ocp.JsonCheckpointHandler(),
    }
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers)) as checkpointer:
        try:
            metadata = checkpointer.metadata(os.path.abspath(path)).item_metadata
            restore_args = {
                name: _restore_args(ocp, found, shardings.get(name))
                for name, found in metadata.state.tree.items()
            }
            content = checkpointer.restore(
                os.path.abspath(path),
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(restore_args=restore_args),
                    record=ocp.args.JsonRestore(),
                ),
            )
        # Orbax and its libraries have no error of their own for a damaged file.
        except Exception as error:
            raise ValueError(f"it is not complete: {error}") from error
    record, tensors = dict(content.record), dict(content.state)
    sums, found = record.pop(_SUMS, {}), checksums(tensors)[0]
    wrong = [n for n in sorted({*sums, *found}) if sums.get(n) != found.get(n)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} does not match its checksum")
    for name, (dtype, numbers) in record.pop(_RANDOM).items():
        tensors[name] = np.array(numbers, dtype)
    return Checkpoint(Path(path), record, tensors)


def _restore_args(ocp, metadata, wanted):
    if wanted is not None and tuple(wanted[0]) == tuple(metadata.shape):
        return ocp.ArrayRestoreArgs(sharding=wanted[1])
    return ocp.RestoreArgs(restore_type=np.ndarray)


def checksums(arrays: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """A checksum of each array, and the names of arrays that are not finite.

    The checksum adds up the bits of each element as an integer, times an odd number by
    its position, modulo 2³²: it changes with any single bit, and not with the sharding.
    """
    sums, finite = _checksum_function()(dict(arrays))
    sums = {name: int(number) for name, number in sums.items()}
    return sums, [name for name, is_finite in finite.items() if not bool(is_finite)]


@functools.cache
def _checksum_function():
    import jax
    import jax.numpy as jnp

    def checksum(array):
        places = jnp.uint32(0)
        for axis, length in enumerate(array.shape):
            along = jax.lax.broadcasted_iota("uint32", array.shape, axis)
            places = places * jnp.uint32(length) + along
        weights = places * jnp.uint32(2654435769 * 2 % 2**32) + jnp.uint32(1)
        if array.dtype == bool:
            words = array.astype("uint32")
        else:
            bits = {1: "uint8", 2: "uint16", 4: "uint32"}[array.dtype.itemsize]
            words = jax.lax.bitcast_convert_type(array, bits).astype("uint32")
        return jnp.sum(words * weights, dtype="uint32"), jnp.isfinite(array).all()

    def both(arrays):
        found = {name: checksum(jnp.asarray(array)) for name, array in arrays.items()}
        return {n: f[0] for n, f in found.items()}, {n: f[1] for n, f in found.items()}

    return jax.jit(both)


def _orbax():
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError(
            "Weights that are sharded over processes are saved by Orbax. Received: an "
            "environment without it. Install it: pip install 'keras-vit[orbax]'"
        ) from error
    return ocp
