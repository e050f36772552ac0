"""Streams of batches: `tf.data` datasets that are pure functions of a seed.

A training stream has no state except its position. Example number g of the stream, counted
over all epochs, is number g % n of epoch g // n. The order of an epoch depends on (seed,
epoch), the random numbers of an example on (seed, g), and those that mix a batch on (seed,
step). So a stream can start at any step, and neither threads nor interruptions change it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.data import failures
from keras_vit.data.ending import guarded, untuned
from keras_vit.data.mixing import mix
from keras_vit.data.packages import tensorflow
from keras_vit.data.pipeline import (
    Augment,
    Pipeline,
    encoded,
    evaluation_crop,
    in_data_format,
    scaled,
)
from keras_vit.data.sources import Source
from keras_vit.distribution.batch_rows import EXAMPLES, PADDING, SHARD, process_rows

if TYPE_CHECKING:
    import tensorflow as tf

BATCHES_AHEAD = 2


class StreamStart:
    """Start of the iterators that will be made of a training stream.

    Attributes:
        step: number of the first batch.
        reads: number of iterators that have begun.
    """

    step: int
    reads: int

    def __init__(self) -> None:
        self.step = 0
        self.reads = 0

    def read(self) -> np.int64:
        """Returns the step to an iterator that begins, and counts it."""
        self.reads += 1
        return np.int64(self.step)


def training_stream(
    source: Source,
    num_classes: int,
    pipeline: Pipeline,
    seed: int,
    start: int | StreamStart,
    part: tuple[int, int] = (0, 1),
    augment: Callable[[tf.Tensor, tf.Tensor], Any] | None = None,
) -> tf.data.Dataset[Any]:
    """Returns the endless `tf.data.Dataset` of training batches, from a step on.

    Args:
        source: examples of the stream.
        num_classes: number of classes.
        pipeline: settings that make batches.
        seed: random seed of order and augmentation.
        start: number of the first batch.
        part: (index, count) of a process among those that share a batch. The stream
            computes its own rows only (`process_rows`), and if examples are mixed the row
            before them.
        augment: makes of an image and a seed, as `Augment` does, one tensor or a dictionary
            of several; `None` for the pipeline's augmentation.
    """
    tf = tensorflow()
    order = ExampleOrder(len(source), seed)
    whole = functools.partial(
        training_stream, source, num_classes, pipeline, seed, start, augment=augment
    )
    augment = augment or Augment(pipeline)
    augmentation, batch_size = pipeline.augmentation, pipeline.batch_size
    alphas = (augmentation.mixup_alpha, augmentation.cutmix_alpha)
    seed = tf.constant(seed, "int64")
    rows = process_rows(batch_size, *part)
    if augmentation.mixes and part != (0, 1):
        rows = np.append((rows[0] - 1) % batch_size, rows)  # the first row's neighbour

    def positions(step):
        positions = step * batch_size + tf.constant(rows, "int64")
        return positions, order.indices(positions)

    # Even seeds are for examples and odd ones for batches, so that none is shared.
    def example(position, index):
        image, label = _read(source, index, pipeline.channels)
        image = augment(image, tf.stack([seed, 2 * position]))
        label = encoded(label, num_classes, pipeline)
        return position, _scaled(image, pipeline), label

    def batch(positions, images, labels):
        step = positions[0] // batch_size
        if augmentation.mixes:
            images, labels = mix(images, labels, *alphas, tf.stack([seed, 2 * step + 1]))
            if part != (0, 1):
                images, labels = images[1:], labels[1:]
        return _in_data_format(images, pipeline), labels

    stream = _steps(start).map(positions).unbatch()
    stream = stream.map(example, **_parallel(pipeline))
    stream = stream.batch(len(rows), drop_remainder=True)
    stream = _prefetched(stream.map(batch))
    setattr(stream, SHARD, lambda *part: (whole(part=part), batch_size))
    return stream


def view_stream(
    source: Source,
    num_classes: int,
    pipeline: Pipeline,
    seed: int,
    augment: Callable[[tf.Tensor, tf.Tensor], Any],
) -> tf.data.Dataset[Any]:
    """Returns the finite `tf.data.Dataset` of a split whose images are augmented.

    They are augmented by the seed and their number, and so in the same way at each reading.
    All batches have the same size: the last images are left out, if they do not fill one,
    unless there are no others.
    """
    tf = tensorflow()
    seed = tf.constant(seed, "int64")

    def example(index):
        image, label = _read(source, index, pipeline.channels)
        image = augment(image, tf.stack([seed, -1 - index]))  # no seed of the training
        return _scaled(image, pipeline), encoded(label, num_classes, pipeline)

    def batch(images, labels):
        return _in_data_format(images, pipeline), labels

    size = min(pipeline.batch_size, len(source))
    stream = tf.data.Dataset.range(len(source)).map(example, **_parallel(pipeline))
    return _prefetched(stream.batch(size, drop_remainder=True).map(batch))


def _scaled(images, pipeline):
    """`scaled` of an image or of each in a dictionary."""
    return tensorflow().nest.map_structure(lambda one: scaled(one, pipeline), images)


def _in_data_format(images, pipeline):
    """`in_data_format` of images or of each kind of them in a dictionary."""
    nest = tensorflow().nest
    return nest.map_structure(lambda one: in_data_format(one, pipeline), images)


def _steps(start: int | StreamStart):
    """Dataset of the numbers of the batches, without end."""
    tf = tensorflow()
    if not isinstance(start, StreamStart):
        return tf.data.Dataset.counter(start, dtype="int64")

    # Read the step when an iterator begins, not when the stream is made.
    def counter(_):
        (step,) = tf.numpy_function(guarded(start.read), [], ["int64"])
        step.set_shape(())
        return tf.data.Dataset.counter(step, dtype="int64")

    steps = tf.data.Dataset.range(1).flat_map(counter)
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return steps.apply(endless)


def evaluation_stream(
    source: Source, num_classes: int, pipeline: Pipeline, padded: bool = False
) -> tf.data.Dataset[Any]:
    """Returns the finite `tf.data.Dataset` of a split; the last batch is partial.

    With `padded` the last batch is filled up, and each batch has sample weights, see
    `ImageData.evaluation`.
    """
    total, batch_size = len(source), pipeline.batch_size
    indices = tensorflow().data.Dataset.range(total)
    stream = _evaluated(indices, source, num_classes, pipeline, batch_size)
    if padded:
        stream = _prefetched(stream.map(functools.partial(_filled, total, batch_size)))
        setattr(stream, EXAMPLES, total)
        setattr(stream, PADDING, -total % batch_size)
        part_of, rows = _padded_evaluation_part, batch_size
    else:
        stream, part_of, rows = _prefetched(stream), _evaluation_part, None
    own = functools.partial(part_of, source, num_classes, pipeline)
    setattr(stream, SHARD, lambda *part: (own(part), rows))
    return stream


def _filled(total, batch_size, images, labels):
    """Fills up a batch with zeros, and adds the weights of its images."""
    tf = tensorflow()
    count = tf.shape(images)[0]
    weights = tf.fill([count], _example_weight(total, batch_size))
    rest = batch_size - count
    return tuple(_with_zeros(part, rest) for part in (images, labels, weights))


def _example_weight(total, batch_size):
    """Weight of an example that makes weighted means over all rows means over examples."""
    return np.float32(-(-total // batch_size) * batch_size / total)


def _with_zeros(tensor, rest):
    tf = tensorflow()
    padding = tf.zeros((rest, *tensor.shape[1:]), tensor.dtype)
    return tf.concat([tensor, padding], axis=0)


def _evaluation_part(source, num_classes, pipeline, part):
    """Batches of a process' own rows, with the number of rows of the whole batch."""
    tf = tensorflow()
    total, batch_size = len(source), pipeline.batch_size
    starts = range(0, total, batch_size)
    sizes = [min(batch_size, total - start) for start in starts]
    own = [start + process_rows(n, *part) for start, n in zip(starts, sizes, strict=True)]
    indices = tf.data.Dataset.from_tensor_slices(np.concatenate(own))
    # Only the last batch has another number of rows.
    images = _evaluated(indices, source, num_classes, pipeline, len(own[0]))
    counts = tf.data.Dataset.from_tensor_slices(np.array(sizes, "int32"))
    joined = tf.data.Dataset.zip(images, counts)
    return _prefetched(joined.map(lambda batch, count: (*batch, count)))


def _padded_evaluation_part(source, num_classes, pipeline, part):
    """Batches of a process' own rows; the last batch is filled up."""
    tf = tensorflow()
    total, batch_size = len(source), pipeline.batch_size
    rows = process_rows(batch_size, *part)
    indices = np.arange(0, total, batch_size)[:, None] + rows
    weights = np.where(indices < total, _example_weight(total, batch_size), 0)

    def blanked(images, labels, weights):
        """Replaces rows that do not count, which are copies, by zeros."""
        parts = [tf.where(_like(weights, part) > 0, part, 0) for part in (images, labels)]
        return *parts, weights

    chosen = np.minimum(indices, total - 1).reshape(-1)
    chosen = tf.data.Dataset.from_tensor_slices(chosen)
    images = _evaluated(chosen, source, num_classes, pipeline, len(rows))
    weights = tf.data.Dataset.from_tensor_slices(weights.astype("float32"))
    joined = tf.data.Dataset.zip(images, weights)
    return _prefetched(joined.map(lambda batch, weights: blanked(*batch, weights)))


def _like(weights, tensor):
    """Reshapes weights (n,) to the number of dimensions of a tensor."""
    return tensorflow().reshape(weights, (-1, *(1,) * (tensor.shape.rank - 1)))


def _evaluated(indices, source, num_classes, pipeline, batch_size):
    """Makes batches of the examples of a dataset of indices."""

    def example(index):
        image, label = _read(source, index, pipeline.channels)
        image = scaled(evaluation_crop(image, pipeline), pipeline)
        return image, encoded(label, num_classes, pipeline)

    def batch(images, labels):
        return in_data_format(images, pipeline), labels

    stream = indices.map(example, **_parallel(pipeline))
    return stream.batch(batch_size).map(batch)


class ExampleOrder:
    """Order of the examples in an endless training stream.

    Every epoch holds each of `count` examples once, in an order of its own.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._current = -1, None

    def epoch(self, epoch: int) -> np.ndarray:
        """Returns the indices of all examples in the order of an epoch."""
        # NumPy's generator whose streams are the same in every version (NEP 19).
        bits = np.random.MT19937(np.random.SeedSequence([self._seed, epoch]))
        return np.random.RandomState(bits).permutation(self._count)

    def indices(self, positions: tf.Tensor) -> tf.Tensor:
        """Returns the indices, int64 (n,), of the examples at positions, int64 (n,)."""
        (indices,) = _python(self._indices, positions, ("int64",))
        return tensorflow().ensure_shape(indices, positions.shape)

    def _indices(self, positions):
        return np.array([self._index(int(position)) for position in positions])

    def _index(self, position: int):
        epoch, place = divmod(position, self._count)
        current, order = self._current  # one pair: several streams may read at once
        if epoch != current:
            order = self.epoch(epoch)
            self._current = epoch, order
        return order[place]


def _read(source: Source, index, channels: int):
    """Returns tensors of an example's pixels and label."""
    tf = tensorflow()
    read = functools.partial(_read_now, source, channels)
    image, label, failure = _python(read, index, (source.dtype, "int32", "string"))
    # An exception in `read` would reach the user with the whole traceback of the thread.
    with tf.control_dependencies([tf.debugging.Assert(failure == b"", [failure])]):
        image = tf.identity(image)
    image.set_shape((None, None, channels))
    label.set_shape(())
    return image, label


def _read_now(source: Source, channels: int, index):
    """Returns pixels, label and an empty text; or an empty picture and the error."""
    try:
        return *source.read(int(index), channels), b""
    except (ValueError, OSError) as error:
        nothing = np.zeros((1, 1, channels), source.dtype)
        return nothing, np.int32(0), failures.noted(error)


def _python(function, tensor, dtypes: tuple[str, ...]) -> list:
    """Calls a Python function on a tensor; the shapes of the results are unknown."""
    tf = tensorflow()
    function = tf.autograph.experimental.do_not_convert(guarded(function))
    return tf.numpy_function(function, [tensor], dtypes)


def _parallel(pipeline: Pipeline) -> dict:
    calls = pipeline.num_parallel_calls or _processors()
    return {"num_parallel_calls": calls, "deterministic": True}


def _processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _prefetched(stream):
    options = tensorflow().data.Options()
    options.deterministic = True
    return untuned(stream.prefetch(BATCHES_AHEAD).with_options(options))
