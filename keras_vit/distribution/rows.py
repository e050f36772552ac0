"""Rows of a batch, of which each process has its own."""

import zlib
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_vit.distribution.processes import everyones

# The attribute of a stream that computes some rows alone: a function of (index, count)
# that returns this stream, and how many rows each whole batch has; `None` if the last has
# another number of them, which is then the third part of each batch.
SHARD = "keras_vit_shard"


def own_rows(rows: int, index: int, count: int) -> np.ndarray:
    """Which rows of a batch are a process' own, int64 (⌈rows / count⌉,).

    Each has as many; those that would come after the last row are copies of it.
    """
    number = -(-rows // count)
    return np.minimum(np.arange(index * number, (index + 1) * number), rows - 1)


def check_first(batches: Iterable) -> Iterator:
    """The same batches, of which the first is compared with that of other processes.

    Raises:
        ValueError: with the first one, if a process has another.
    """
    for i, batch in enumerate(batches):
        if i == 0:
            sums = everyones(_checksum(batch))
            others = [i for i, other in enumerate(sums) if other != sums[0]]
            if others:
                raise ValueError(
                    "Each process must be given the same batches, of which it takes its "
                    "own rows. Received: in process 0 another first batch than in "
                    f"{', '.join(map(str, others))}. Seed what shuffles them, and divide "
                    "nothing yourself (no DistributedSampler, no `shard`)."
                )
        yield batch


def _checksum(batch):
    leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
    arrays = [np.ascontiguousarray(keras.ops.convert_to_numpy(leaf)) for leaf in leaves]
    return [(a.shape, a.dtype.name, zlib.crc32(a.tobytes())) for a in arrays]


def num_parts(
    distribution: keras.distribution.DataParallel | keras.distribution.ModelParallel,
) -> int:
    """The number of parts that a distribution divides a batch into.

    It is `num_model_replicas`, which Keras has from 3.14 on.
    """
    mesh = distribution.device_mesh
    if isinstance(distribution, keras.distribution.DataParallel):
        return mesh.devices.size
    sizes = dict(zip(mesh.axis_names, mesh.shape, strict=True))
    return sizes[distribution.batch_dim_name]
