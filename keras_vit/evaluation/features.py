"""`extract_features`: what a model makes of each image of a data set, once and for all."""

import contextlib
import os
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit import arguments
from keras_vit.data import Augmentation, ImageData, failures, load
from keras_vit.data.image_data import ORIGIN
from keras_vit.data.load import find
from keras_vit.data.pipeline import fields_of
from keras_vit.distribution.processes import barrier, broadcast, is_first_process
from keras_vit.evaluation import feature_files
from keras_vit.evaluation.batches import ImageBatches, StreamBatches
from keras_vit.evaluation.feature_files import FeatureCache, Features, FeatureWriter
from keras_vit.evaluation.feature_key import feature_key
from keras_vit.evaluation.vector_model import POOLED, not_vectors, scope, vector_model
from keras_vit.keras_internals.jax_state import synchronize
from keras_vit.models.images import ImageModel

SPEED = "images_per_second"
USUAL_DIM = 1024  # of a model that does not tell its own
AHEAD = 2  # batches that are computed while an earlier one is written
WHOLE = {"validation_split": 0.0, "test_split": 0.0}  # no split is drawn


def extract_features(
    model: keras.Model,
    data: Any,
    layer: str = POOLED,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    batch_size: int | None = None,
    verbose: str | int = "auto",
) -> Features:
    """Computes the features of all images of a data set, in one pass.

    They are the outputs of `predict`, and are written to the disk batch by batch, so that
    any number of images needs the memory of a few. With a `cache_dir` they stay there: the
    same question again reads the file, and a run that was killed is resumed after its last
    finished batch. In several processes, call it in each, under the strategy of the model;
    rank 0 writes, and all of them must see the folder.

    Args:
        model: any built Keras model of images, compiled or not.
        data: one of

            - anything that `keras_vit.data.load` takes: the path of a folder or CSV file,
              the name of a data set of TensorFlow Datasets, a tuple (images, labels) of
              arrays. The model must be of this package; others need an `ImageData`;
            - an `ImageData`. For a model of this package the images are prepared as by
              `data.prepared_for(model)`, with the data's own crop, `value_range` and
              `alpha` if it was loaded with any, and its size if the model takes any; other
              models are given what the data's own pipeline makes;
            - `data.evaluation(split)` of an `ImageData`, as it is;
            - another `tf.data.Dataset` or iterable of batches, as the model takes them:
              images, or images and labels (integers or one-hot rows). It ends, and cannot
              be cached, as nothing says what it will hold.
        layer: `"pooled"`, the features that a head reads, of a model of this package, or
            the output of any other; or the name of a layer that gives a vector, such as
            `"pre_logits"` or `"head"`.
        cache_dir: folder in which features stay, created if missing. They are found again
            by a key of the model's config and weights, the layer, the preparation of the
            images, and the images: paths within the data's folder, sizes and times of
            change of files, or the values of arrays. `None` keeps them in a temporary file
            that goes with the process.
        split: split of the data; `None` if it has only one.
        batch_size: images in a batch; `None` for that of the data, 32 by default.
        verbose: as in `predict` of Keras; 1 shows images per second.

    Returns:
        `Features`: rows and labels are in the order of the data.

    Raises:
        ValueError: if the layer gives no vector, the split must be named or does not exist,
            an image is damaged (the message names it), or a stream has a `cache_dir`.
        FileNotFoundError: if the data does not exist.
        OSError: if the disk is full; finished batches stay in `cache_dir`.

    Example:

    >>> data = keras_vit.data.load("flowers/")
    >>> train = extract_features(model, data, cache_dir="features", split="train")
    >>> train.features.shape, train.labels.shape
    ((1020, 768), (1020,))
    """
    extractor = vector_model(model, layer)
    with scope(model):
        if _is_stream(data):
            _check_stream(data, cache_dir, split, batch_size)
            return _temporary(extractor, StreamBatches(data), verbose)
        if cache_dir is None:
            images, split = _images(data, model, split, batch_size, load)
            return _temporary(extractor, ImageBatches(images, split), verbose)
        # A path is listed first: its images need no check if their features are there.
        images, split = _images(data, model, split, batch_size, find)
        key, parts = broadcast(feature_key(model, layer, images, split))
        cache = FeatureCache(cache_dir, key)
        if (found := _cached(cache)) is not None:
            return found
        images, split = _images(data, model, split, batch_size, load)
        with cache.locked() if is_first_process() else contextlib.nullcontext():
            if (found := _cached(cache)) is None:
                batches = ImageBatches(images, split)
                _extract(extractor, batches, cache.part, parts, verbose)
                if is_first_process():
                    cache.complete()
                barrier()
                found = feature_files.read(cache.folder)
    return found


def _cached(cache):
    """Finished features of a cache, in all processes or in none."""
    found = cache.read() if is_first_process() else None
    if broadcast(found is None):
        return None
    return found or feature_files.read(cache.folder)


def _temporary(extractor, batches, verbose):
    """Features in a file that nobody else finds."""
    with tempfile.TemporaryDirectory(prefix="keras_vit_") as own:
        folder = Path(broadcast(own))
        _extract(extractor, batches, folder, {}, verbose)
        barrier()
        # A mapped file can be deleted, but not on Windows.
        found = feature_files.read(folder, is_mapped=os.name == "posix")
        barrier()
    return found


# Data.


def _is_stream(data):
    if hasattr(data, ORIGIN):
        return False
    loaded = (ImageData, str, os.PathLike, tuple, Mapping)
    return not isinstance(data, loaded)


def _check_stream(data, cache_dir, split, batch_size):
    if isinstance(data, np.ndarray) or not hasattr(data, "__iter__"):
        raise ValueError(
            "`data` must be a path, a name, a pair (images, labels), an `ImageData` or an "
            f"iterable of batches. Received: a {type(data).__name__}"
        )
    if cache_dir is not None:
        raise ValueError(
            "A stream does not tell what it holds, so its features cannot be found again. "
            f"Received: cache_dir={os.fspath(cache_dir)!r} with a {type(data).__name__}. "
            "Give an `ImageData` of keras_vit.data.load, or leave `cache_dir` out."
        )
    given = {"split": split, "batch_size": batch_size}
    if any(value is not None for value in given.values()):
        raise ValueError(
            f"A stream has one split, and batches already. Received: {given}. Leave these "
            "out."
        )
    if getattr(data, "cardinality", int)() == -1:  # of `tf.data`, for infinite
        raise ValueError(
            "A stream must end. Received: an endless `tf.data.Dataset`. Give "
            "data.evaluation('train') in place of data.train."
        )


def _images(data, model, split, batch_size, loader: Callable[..., ImageData]):
    """(`ImageData`, split) of data that is no stream, prepared for the model.

    Args:
        data: see `extract_features`.
        model: the model.
        split: see `extract_features`.
        batch_size: see `extract_features`.
        loader: `load` or `find`, for paths and names.
    """
    fields = {} if batch_size is None else {"batch_size": batch_size}
    if hasattr(data, ORIGIN):
        data, own = getattr(data, ORIGIN)
        return data.with_pipeline(**fields), split or own
    if not isinstance(data, ImageData):
        fields = {**fields_of(model, Augmentation()), **fields}
        if loader is find and isinstance(data, str | os.PathLike):
            data = find(data, **fields)
        else:
            data = load(data, **WHOLE, **fields)
    elif isinstance(model, ImageModel):
        data = data.prepared_for(model, **_own_fields(data, model), **fields)
    else:
        data = data.with_pipeline(**fields)
    if split is None and len(data.splits) == 1:
        split = next(iter(data.splits))
    return data, arguments.one_of(split, tuple(data.splits), "split")


def _own_fields(data, model):
    """The fields of the data's pipeline that say more of it than the model does."""
    own = data.pipeline
    fields = {name: getattr(own, name) for name in ("value_range", "alpha")}
    fields = {name: value for name, value in fields.items() if value is not None}
    if own.augmentation != Augmentation():
        fields["augmentation"] = own.augmentation
    if None in model.input_shape[1:]:
        fields["image_size"] = own.image_size
    return fields


# A pass.


def _extract(extractor, batches, folder: Path, description, verbose):
    """Writes the features of all images to a folder; rank 0 does so for all processes."""
    writer = FeatureWriter(folder) if is_first_process() else None
    start, dim = broadcast((writer.rows, writer.dim) if writer else None)
    dim = extractor.output_shape[-1] if getattr(extractor, "inputs", None) else dim
    progress = _Progress(batches.total, start, verbose if writer else 0)
    collector = _Collector(writer, start, progress)
    try:
        for chunk in batches.chunks(start, dim or USUAL_DIM):
            collector.expected = chunk.rows
            _predict(extractor, chunk.batches, collector)
        if not collector.position:
            raise ValueError("`data` must hold images. Received: a stream without any")
        progress.end(collector.position)
        if writer:
            writer.finish(batches.labels(), batches.class_names, description)
    finally:
        if writer:
            writer.close()


def _predict(extractor, batches, collector):
    try:
        with failures.named(), warnings.catch_warnings():
            # Of data whose length is unknown.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            extractor.predict(batches, verbose=0, callbacks=[collector])
    except BaseException:
        synchronize(extractor)  # JAX takes the weights out of the model
        raise
    finally:
        collector.flush()


class _Collector(keras.callbacks.Callback):
    """Writes the outputs of `predict`, a few batches late: a device need not wait.

    Args:
        writer: rank 0's `FeatureWriter`; `None` in other processes.
        start: number of images that are written.
        progress: told of images that are written.

    Attributes:
        expected: number of images of each batch to come. There may be more outputs, of
            rows that pad a batch.
        position: number of images that are computed.
    """

    def __init__(self, writer, start, progress):
        super().__init__()
        self.expected = deque()
        self.position = start
        self._writer, self._progress = writer, progress
        self._pending = deque()

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        count = self.expected.popleft()
        if self._writer:
            self._pending.append((self.position, count, logs["outputs"]))
        self.position += count
        while len(self._pending) > AHEAD:
            self._write_one()

    def flush(self):
        while self._pending:
            self._write_one()

    def _write_one(self):
        start, count, outputs = self._pending[0]
        if len(getattr(outputs, "shape", ())) != 2:
            raise not_vectors(outputs)
        vectors = keras.ops.convert_to_numpy(outputs)[:count]
        self._writer.append(start, vectors)
        self._pending.popleft()
        self._progress.show(start + count)


class _Progress:
    """Bar of the images that are written, with images per second."""

    def __init__(self, total, start, verbose):
        verbose = 1 if verbose == "auto" else int(verbose)
        self._start, self._begin = start, time.perf_counter()
        self._bar = keras.utils.Progbar(
            total, verbose=verbose, unit_name="image", stateful_metrics=[SPEED]
        )

    def show(self, done):
        seconds = time.perf_counter() - self._begin
        speed = (done - self._start) / max(seconds, 1e-9)
        self._bar.update(done, [(SPEED, speed)])

    def end(self, done):
        if self._bar.target is None:
            self._bar.target = done
            self.show(done)
