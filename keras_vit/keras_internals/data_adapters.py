"""Assumption: `fit` reads its data through an adapter, which an iterator takes as data.

Keras has no public class for data of one's own that yields what is on this process'
device, or that tells how many rows a batch has elsewhere. `fit` takes a data adapter in
the place of data; `TFDatasetAdapter` is the one of a `tf.data.Dataset`. Whether an adapter
shuffles is in `_shuffle` or `shuffle`.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import functools
from typing import Any

from keras_vit.keras_internals.assumption import internal

ROWS = "keras_vit_rows"  # an attribute of a tensor of own rows: rows of the whole batch


def shuffles(adapter: Any) -> bool:
    """True if data is shuffled anew in each epoch, by a generator of its own."""
    is_shuffled = getattr(adapter, "_shuffle", False) or getattr(adapter, "shuffle", False)
    return bool(is_shuffled) and adapter.num_batches is not None


@functools.cache
def shard_adapter() -> type:
    """The class of adapters for the rows of one process, of `tf.data` on torch."""
    name, feature = "TFDatasetAdapter", "Training by several processes of torch"
    base = internal("trainers.data_adapters.tf_dataset_adapter", name, feature)

    class ShardAdapter(base):
        """Batches of own rows, which say how many rows there are in all.

        Args:
            stream: `tf.data.Dataset` of (images, labels), or with the number of rows.
            rows: int, the number of rows where all batches have it; else `None`.
            class_weight: as of `fit`.
        """

        def __init__(self, stream, rows, class_weight):
            super().__init__(stream, class_weight=class_weight)
            self._rows = rows

        def get_torch_dataloader(self):
            for batch in super().get_torch_dataloader():
                rows = self._rows
                if rows is None:
                    *batch, rows = batch
                setattr(batch[0], ROWS, int(rows))
                yield tuple(batch)

    return ShardAdapter
