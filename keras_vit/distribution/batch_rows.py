"""Division of a batch's rows over processes."""

import zlib
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_vit.distribution.processes import all_gather

# Attribute of a stream that can compute the rows of one shard alone: a function of
# (index, count) that returns that stream and the number of rows of a complete batch, or
# `None` if it varies; each batch of the stream then has it as a third part.
SHARD = "keras_vit_shard"
# Others: its number of examples, and of rows that pad it.
EXAMPLES, PADDING = "keras_vit_examples", "keras_vit_padding"


def process_rows(rows: int, index: int, count: int) -> np.ndarray:
    """Indices of a process' rows in a batch, int64 (⌈rows / count⌉,).

    Each process has equally many; indices after the last row are replaced by its index.

    Args:
        rows: rows of the batch.
        index: shard of the process, from 0.
        count: number of shards.
    """
    number = -(-rows // count)
    return np.minimum(np.arange(index * number, (index + 1) * number), rows - 1)


def check_first_batch(batches: Iterable) -> Iterator:
    """Yields batches, after comparing the first with those of the other processes.

    Raises:
        ValueError: at the first batch, if a process has another one.
    """
    for i, batch in enumerate(batches):
        if i == 0:
            sums = all_gather(_checksum(batch))
            others = [i for i, other in enumerate(sums) if other != sums[0]]
            if others:
                raise ValueError(
                    "Each process must be given the same batches, of which it takes its "
                    "rows. Received: another first batch in process 0 than in "
                    f"{', '.join(map(str, others))}. Shuffle with the same seed in each, "
                    "and do not shard the data (no DistributedSampler, no `shard`)."
                )
        yield batch


def _checksum(batch):
    leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
    arrays = [np.ascontiguousarray(keras.ops.convert_to_numpy(leaf)) for leaf in leaves]
    return [(a.shape, a.dtype.name, zlib.crc32(a.tobytes())) for a in arrays]


def num_batch_shards(
    distribution: keras.distribution.DataParallel | keras.distribution.ModelParallel,
) -> int:
    """Number of shards into which a distribution divides a batch.

    It is `num_model_replicas`, which Keras has from 3.14 on.
    """
    mesh = distribution.device_mesh
    if isinstance(distribution, keras.distribution.DataParallel):
        return mesh.devices.size
    sizes = dict(zip(mesh.axis_names, mesh.shape, strict=True))
    return sizes[distribution.batch_dim_name]
