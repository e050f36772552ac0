"""Batches of images for `predict`, in chunks whose features fit in memory."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_vit.data import ImageData
from keras_vit.data.arrays import checked_labels
from keras_vit.data.ending import untuned
from keras_vit.distribution.checks import needs_padding

CHUNK = 2**26  # bytes of the features of a chunk


@dataclass(frozen=True)
class Chunk:
    """Batches for one call of `predict`.

    Attributes:
        batches: what `predict` takes.
        rows: number of images of each batch, in order; it is filled while `batches` is
            read.
    """

    batches: Any
    rows: deque[int]


class ImageBatches:
    """Batches of a split, read from any image on.

    Args:
        data: images with the pipeline that prepares them.
        split: name of the split.
    """

    def __init__(self, data: ImageData, split: str) -> None:
        self._data, self._split = data, split
        self.total: int | None = len(data.splits[split])
        self.class_names: tuple[str, ...] | None = data.class_names

    def chunks(self, start: int, dim: int) -> Iterator[Chunk]:
        """Yields the batches from the image number `start` on."""
        size = self._data.pipeline.batch_size
        padded = needs_padding(min(size, self.total))
        step = max(CHUNK // (4 * dim * size), 1) * size
        for first in range(start, self.total, step):
            indices = range(first, min(first + step, self.total))
            source = self._data.splits[self._split].take(indices)
            part = replace(self._data, splits={self._split: source})
            counts = [min(size, len(indices) - i) for i in range(0, len(indices), size)]
            yield Chunk(part.evaluation(self._split, padded), deque(counts))

    def labels(self) -> np.ndarray | None:
        """Class of each image, int32 (n,)."""
        return self._data.labels(self._split)


class StreamBatches:
    """Batches of any stream, which is read once.

    Args:
        stream: `tf.data.Dataset` or another iterable of batches: images, or a tuple of
            images and labels, whose other parts are not used.
    """

    def __init__(self, stream: Iterable[Any]) -> None:
        self._stream, self._labels = stream, []
        self.total: int | None = None
        self.class_names: tuple[str, ...] | None = None

    def chunks(self, start: int, dim: int) -> Iterator[Chunk]:
        """Yields all batches; `start` must be 0."""
        batches, most = iter(self._stream), CHUNK // (4 * dim)
        for first in batches:
            rows = deque()
            images = self._images(itertools.chain([first], batches), rows, most)
            yield Chunk(_for_predict(images), rows)

    def _images(self, batches, rows, most):
        """Yields images for `predict`, until there are `most` of them."""
        number = 0
        for batch in batches:
            images, labels, _ = keras.utils.unpack_x_y_sample_weight(_as_tuple(batch))
            images = keras.ops.convert_to_numpy(images)
            rows.append(len(images))
            if labels is not None:
                labels = _class_indices(labels, len(images))
            self._keep(labels)
            yield (images,)
            number += len(images)
            if number >= most:
                return

    def labels(self) -> np.ndarray | None:
        """Class of each image that was read, int32 (n,); `None` if there are none."""
        is_labeled = self._labels and self._labels[0] is not None
        return np.concatenate(self._labels) if is_labeled else None

    def _keep(self, labels):
        if self._labels and (labels is None) != (self._labels[0] is None):
            raise ValueError(
                "Either all batches of a stream have labels, or none. Received: both, from "
                f"batch {len(self._labels) + 1} on"
            )
        self._labels.append(labels)


def _for_predict(batches):
    """Batches (images,) as `predict` takes them.

    The `tf.data.Dataset` that Keras makes of a generator is tuned, see `untuned`.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    first = next(batches)
    spec = tf.TensorSpec((None, *first[0].shape[1:]), first[0].dtype)
    stream = itertools.chain([first], batches)
    return untuned(tf.data.Dataset.from_generator(lambda: stream, output_signature=(spec,)))


def _as_tuple(batch):
    return tuple(batch) if isinstance(batch, list | tuple) else (batch,)


def _class_indices(labels, count):
    labels = checked_labels(keras.ops.convert_to_numpy(labels), "the stream")
    if labels.dtype.kind == "U" or len(labels) != count:
        raise ValueError(
            "The labels of a stream must be an integer for each image, or one-hot rows. "
            f"Received: {labels.dtype} of the shape {labels.shape} for {count} images"
        )
    return labels.astype("int32")
