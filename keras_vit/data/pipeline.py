"""From examples to batches: `tf.data` streams that are pure functions of a seed.

A training stream has no state but its position. Example number g of the stream, counted
over all epochs, is number g % n of epoch g // n; the order of an epoch comes from (seed,
epoch), the randomness of the example from (seed, g), that of mixing a batch from (seed,
step). So a stream can start at any step, and neither threads nor interruptions change it.
"""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from keras_vit.data import crops
from keras_vit.data.arrays import checked_images
from keras_vit.data.augment import Augmentation
from keras_vit.data.images import CHANNELS, name_of, named_image
from keras_vit.data.mixing import mix
from keras_vit.data.packages import tensorflow
from keras_vit.data.randaugment import RandAugment
from keras_vit.data.sources import Source, pixels_of_array
from keras_vit.distribution import own_rows
from keras_vit.layers import arguments

LABEL_MODES = ("categorical", "int")
BATCHES_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """How images become batches.

    Attributes:
        image_size: int or (height, width), of the images in a batch.
        channels: 3 for RGB, 1 for grey.
        batch_size: int, images in a batch.
        label_mode: `"categorical"`, one-hot float32 (batch, classes), or `"int"`, int32
            (batch,). Mixing needs the first.
        image_mean: float or one for each channel, subtracted from pixel values in [0, 1].
        image_std: float or one for each channel, by which they are then divided. Both
            `None` leaves pixel values as they are, in [0, 255].
        data_format: `"channels_last"` or `"channels_first"`.
        augmentation: an `Augmentation`, of training images; its `evaluation_crop` and
            `resize_factor` are also of the others.
        num_parallel_calls: int, threads that decode and augment; `None` lets `tf.data`
            choose. It has no influence on what the batches hold.
    """

    image_size: int | tuple[int, int] = (224, 224)
    channels: int = 3
    batch_size: int = 32
    label_mode: str = "categorical"
    image_mean: float | tuple[float, ...] | None = 0.5
    image_std: float | tuple[float, ...] | None = 0.5
    data_format: str = "channels_last"
    augmentation: Augmentation = field(default_factory=Augmentation)
    num_parallel_calls: int | None = None

    def __post_init__(self):
        keep = functools.partial(object.__setattr__, self)
        keep("image_size", arguments.pair(self.image_size, "image_size"))
        keep("data_format", arguments.image_data_format(self.data_format))
        arguments.one_of(self.channels, CHANNELS, "channels")
        arguments.one_of(self.label_mode, LABEL_MODES, "label_mode")
        arguments.positive(self.batch_size, "batch_size")
        if self.num_parallel_calls is not None:
            arguments.positive(self.num_parallel_calls, "num_parallel_calls")
        if (self.image_mean is None) != (self.image_std is None):
            raise ValueError(
                "`image_mean` and `image_std` must be given together, or both be None. "
                f"Received: image_mean={self.image_mean}, image_std={self.image_std}"
            )
        if self.image_mean is not None:
            for name in ("image_mean", "image_std"):
                value = getattr(self, name)
                keep(name, arguments.per_channel(value, self.channels, name))
            if np.min(self.image_std) <= 0:
                raise ValueError(
                    f"`image_std` must be positive. Received: image_std={self.image_std}"
                )
        if self.augmentation.mixes and self.label_mode == "int":
            raise ValueError(
                "MixUp and CutMix mix labels, too, so they need one-hot ones: "
                "label_mode='categorical'. Received: label_mode='int'"
            )


class StreamStart:
    """Where the iterators of a training stream begin that are made from now on.

    Attributes:
        step: int, the first batch.
        reads: int, how many iterators have begun there.
    """

    def __init__(self):
        self.step = 0
        self.reads = 0

    def read(self) -> np.int64:
        """The step, for an iterator that begins."""
        self.reads += 1
        return np.int64(self.step)


def training_stream(
    source: Source,
    num_classes: int,
    pipeline: Pipeline,
    seed: int,
    start: int | StreamStart,
    part: tuple[int, int] = (0, 1),
):
    """The endless `tf.data.Dataset` of batches to train on, from a step on.

    Args:
        source: the examples.
        num_classes: int, classes of their labels.
        pipeline: how they become batches.
        seed: int, what order and augmentation come from.
        start: the first step.
        part: (index, count) of a process, and how many share a batch. It gets the rows
            that are its own, `own_rows`, and computes those alone, and where they are
            mixed the one before them, too.
    """
    tf = tensorflow()
    order = ExampleOrder(len(source), seed)
    augment = Augment(pipeline)
    augmentation, batch_size = pipeline.augmentation, pipeline.batch_size
    alphas = (augmentation.mixup_alpha, augmentation.cutmix_alpha)
    whole = functools.partial(training_stream, source, num_classes, pipeline, seed, start)
    seed = tf.constant(seed, "int64")
    rows = own_rows(batch_size, *part)
    if augmentation.mixes and part != (0, 1):
        rows = np.append((rows[0] - 1) % batch_size, rows)  # whose neighbour comes first

    def positions(step):
        positions = step * batch_size + tf.constant(rows, "int64")
        return positions, order.indices(positions)

    # Even numbers are the examples' and odd ones the batches', so that no two share any.
    def example(position, index):
        image, label = _read(source, index, pipeline.channels)
        image = augment(image, tf.stack([seed, 2 * position]))
        label = _encoded(label, num_classes, pipeline)
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
    stream.keras_vit_shard = lambda *part: (whole(part), batch_size)
    return stream


def _steps(start: int | StreamStart):
    """Numbers of the batches of an endless stream."""
    tf = tensorflow()
    if not isinstance(start, StreamStart):
        return tf.data.Dataset.counter(start, dtype="int64")

    # Asked for when an iterator begins, not when the stream is made.
    def counter(_):
        (step,) = tf.numpy_function(start.read, [], ["int64"])
        step.set_shape(())
        return tf.data.Dataset.counter(step, dtype="int64")

    steps = tf.data.Dataset.range(1).flat_map(counter)
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return steps.apply(endless)


def evaluation_stream(
    source: Source, num_classes: int, pipeline: Pipeline, padded: bool = False
):
    """The finite `tf.data.Dataset` of a split in its order; the last batch is partial.

    With `padded` it is filled up, and each batch has sample weights, see
    `ImageData.evaluation`.
    """
    total, batch_size = len(source), pipeline.batch_size
    indices = tensorflow().data.Dataset.range(total)
    stream = _evaluated(indices, source, num_classes, pipeline, batch_size)
    if padded:
        stream = _prefetched(stream.map(functools.partial(_filled, total, batch_size)))
        stream.keras_vit_examples = total
        stream.keras_vit_shard = lambda *part: (
            _padded_evaluation_part(source, num_classes, pipeline, part),
            batch_size,
        )
        return stream
    stream = _prefetched(stream)
    stream.keras_vit_shard = lambda *part: (
        _evaluation_part(source, num_classes, pipeline, part),
        None,
    )
    return stream


def _filled(total, batch_size, images, labels):
    """A batch with zeros after it, and the weights of its images."""
    tf = tensorflow()
    count = tf.shape(images)[0]
    weights = tf.fill([count], _example_weight(total, batch_size))
    rest = batch_size - count
    return tuple(_with_zeros(part, rest) for part in (images, labels, weights))


def _example_weight(total, batch_size):
    """By which weighted means over all rows are means over the examples."""
    return np.float32(-(-total // batch_size) * batch_size / total)


def _with_zeros(tensor, rest):
    tf = tensorflow()
    padding = tf.zeros((rest, *tensor.shape[1:]), tensor.dtype)
    return tf.concat([tensor, padding], axis=0)


def _evaluation_part(source, num_classes, pipeline, part):
    """Own rows of each batch, and how many it has in all."""
    tf = tensorflow()
    total, batch_size = len(source), pipeline.batch_size
    starts = range(0, total, batch_size)
    sizes = [min(batch_size, total - start) for start in starts]
    own = [start + own_rows(n, *part) for start, n in zip(starts, sizes, strict=True)]
    indices = tf.data.Dataset.from_tensor_slices(np.concatenate(own))
    # Only the last one has another number of rows.
    images = _evaluated(indices, source, num_classes, pipeline, len(own[0]))
    counts = tf.data.Dataset.from_tensor_slices(np.array(sizes, "int32"))
    joined = tf.data.Dataset.zip(images, counts)
    return _prefetched(joined.map(lambda batch, count: (*batch, count)))


def _padded_evaluation_part(source, num_classes, pipeline, part):
    """Own rows of each batch, of which the last is filled up."""
    tf = tensorflow()
    total, batch_size = len(source), pipeline.batch_size
    rows = own_rows(batch_size, *part)
    indices = np.arange(0, total, batch_size)[:, None] + rows
    weights = np.where(indices < total, _example_weight(total, batch_size), 0)

    def blanked(images, labels, weights):
        """A row that does not count holds zeros, not the copy that stands in for it."""
        parts = [tf.where(_like(weights, part) > 0, part, 0) for part in (images, labels)]
        return *parts, weights

    chosen = np.minimum(indices, total - 1).reshape(-1)
    chosen = tf.data.Dataset.from_tensor_slices(chosen)
    images = _evaluated(chosen, source, num_classes, pipeline, len(rows))
    weights = tf.data.Dataset.from_tensor_slices(weights.astype("float32"))
    joined = tf.data.Dataset.zip(images, weights)
    return _prefetched(joined.map(lambda batch, weights: blanked(*batch, weights)))


def _like(weights, tensor):
    """(n,) with as many dimensions as a tensor."""
    return tensorflow().reshape(weights, (-1, *(1,) * (tensor.shape.rank - 1)))


def _evaluated(indices, source, num_classes, pipeline, batch_size):
    """Batches of the examples of a stream of indices."""

    def example(index):
        image, label = _read(source, index, pipeline.channels)
        image = _scaled(_evaluation_crop(image, pipeline), pipeline)
        return image, _encoded(label, num_classes, pipeline)

    def batch(images, labels):
        return _in_data_format(images, pipeline), labels

    stream = indices.map(example, **_parallel(pipeline))
    return stream.batch(batch_size).map(batch)


def load_images(
    images: Sequence[str | os.PathLike | bytes | np.ndarray], pipeline: Pipeline
) -> np.ndarray:
    """Images as a model takes them, prepared as those of `ImageData.validation`.

    Args:
        images: paths of files, contents of files, or arrays (height, width) or (height,
            width, 1, 3 or 4) of values from 0 to 255.
        pipeline: a `Pipeline`; `ImageData.pipeline` is one.

    Returns:
        float32 array (n, height, width, channels), or with the channels first.

    Raises:
        ValueError: if there is none, or one cannot be decoded, naming it.
    """
    if isinstance(images, str | os.PathLike | bytes):
        raise ValueError(
            f"`images` must be a list of images. Received one: {name_of(images)!r}. Put "
            "it in brackets."
        )
    tensorflow()
    prepared = [_prepared(image, pipeline) for image in images]
    if not prepared:
        raise ValueError("`images` must hold at least one image. Received: none")
    return _in_data_format(np.stack(prepared), pipeline).numpy()


class ExampleOrder:
    """Which example comes when in an endless training stream.

    Every epoch has each of `count` examples once, in an order of its own.
    """

    def __init__(self, count: int, seed: int):
        self._count = count
        self._seed = seed
        self._current = -1, None

    def epoch(self, epoch: int) -> np.ndarray:
        """Indices of all examples in the order of an epoch."""
        # Of NumPy's generators the one whose streams no version changes (NEP 19).
        bits = np.random.MT19937(np.random.SeedSequence([self._seed, epoch]))
        return np.random.RandomState(bits).permutation(self._count)

    def indices(self, positions):
        """int64 tensor (n,): the examples at positions, themselves such a tensor."""
        (indices,) = _python(self._indices, positions, ("int64",))
        return tensorflow().ensure_shape(indices, positions.shape)

    def _indices(self, positions):
        return np.array([self._index(int(position)) for position in positions])

    def _index(self, position: int):
        epoch, place = divmod(position, self._count)
        current, order = self._current  # as a pair: several streams may be read at once
        if epoch != current:
            order = self.epoch(epoch)
            self._current = epoch, order
        return order[place]


def _read(source: Source, index, channels: int):
    """Tensors of an example's pixels and of its label."""
    read = functools.partial(_read_now, source, channels)
    image, label = _python(read, index, (source.dtype, "int32"))
    image.set_shape((None, None, channels))
    label.set_shape(())
    return image, label


def _read_now(source: Source, channels: int, index):
    try:
        return source.read(int(index), channels)
    except ValueError as error:
        # TensorFlow prints all that led to an error; the image's name is what helps.
        raise ValueError(
            f"{error}. Load the data with bad_images='skip' to leave out such images."
        ) from None


def _python(function, tensor, dtypes: tuple[str, ...]) -> list:
    """Tensors of what a Python function makes of one, their shapes unknown."""
    tf = tensorflow()
    function = tf.autograph.experimental.do_not_convert(function)
    return tf.numpy_function(function, [tensor], dtypes)


class Augment:
    """What is done to one training image, its randomness from a seed."""

    def __init__(self, pipeline: Pipeline):
        self._pipeline = pipeline
        operations = pipeline.augmentation.randaugment
        self._randaugment = RandAugment(*operations) if operations else None

    def __call__(self, image, seed):
        """Float image of the pipeline's size, of values from 0 to 255."""
        tf = tensorflow()
        crop_seed, flip_seed, operation_seed = tf.unstack(tf.random.split(seed, 3))
        image = self._cropped(image, crop_seed)
        image = tf.ensure_shape(
            image, (*self._pipeline.image_size, self._pipeline.channels)
        )
        if self._pipeline.augmentation.flip:
            image = tf.image.stateless_random_flip_left_right(image, flip_seed)
        if self._randaugment:
            image = self._randaugment(image, operation_seed)
        return image

    def _cropped(self, image, seed):
        augmentation, size = self._pipeline.augmentation, self._pipeline.image_size
        if augmentation.crop == "inception":
            area, ratio = augmentation.crop_area, augmentation.crop_ratio
            return crops.inception_crop(image, size, area, ratio, seed)
        if augmentation.crop == "random":
            return crops.random_crop(image, size, augmentation.resize_factor, seed)
        if augmentation.crop == "square":
            return crops.square_crop(image, size, augmentation.resize_factor, seed)
        return crops.plain_resize(image, size)


def _evaluation_crop(image, pipeline: Pipeline):
    augmentation, size = pipeline.augmentation, pipeline.image_size
    if augmentation.evaluation_crop == "resize":
        image = crops.plain_resize(image, size)
    else:
        image = crops.center_crop(image, size, augmentation.resize_factor)
    return tensorflow().ensure_shape(image, (*size, pipeline.channels))


def _encoded(label, num_classes: int, pipeline: Pipeline):
    if pipeline.label_mode == "int":
        return label
    return tensorflow().one_hot(label, num_classes, dtype="float32")


def _scaled(image, pipeline: Pipeline):
    """Pixel values from 0 to 255 in the range that the model takes.

    Mixing comes after, and is the same before and after.
    """
    if pipeline.image_mean is None:
        return image
    mean, std = np.asarray(pipeline.image_mean), np.asarray(pipeline.image_std)
    return image * (1 / (255 * std)).astype("float32") - (mean / std).astype("float32")


def _in_data_format(images, pipeline: Pipeline):
    tf = tensorflow()
    if pipeline.data_format == "channels_first":
        return tf.transpose(images, (0, 3, 1, 2))
    return tf.convert_to_tensor(images)


def _prepared(image, pipeline: Pipeline) -> np.ndarray:
    if isinstance(image, np.ndarray):
        image = checked_images(image[None], "An array of `images`, as one of n,")[0]
        image = pixels_of_array(image, pipeline.channels)
    else:
        image = named_image(image, name_of(image), pipeline.channels)
    return _scaled(_evaluation_crop(image, pipeline), pipeline).numpy()


def _parallel(pipeline: Pipeline) -> dict:
    calls = pipeline.num_parallel_calls or tensorflow().data.AUTOTUNE
    return {"num_parallel_calls": calls, "deterministic": True}


def _prefetched(stream):
    stream = stream.prefetch(BATCHES_AHEAD)
    options = tensorflow().data.Options()
    options.deterministic = True
    return stream.with_options(options)
