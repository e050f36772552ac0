"""Data sets: labelled examples, and the pipeline that makes batches of them."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_vit import arguments, deprecated
from keras_vit.data.pipeline import Pipeline, fields_of
from keras_vit.data.sources import Source
from keras_vit.data.streams import StreamStart, evaluation_stream, training_stream
from keras_vit.distribution.checks import needs_padding

if TYPE_CHECKING:
    import tensorflow as tf

ORIGIN = "keras_vit_origin"  # attribute of an evaluation stream: its data and split


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """Labelled images as batches for `fit` and `evaluate`, from `keras_vit.data.load`.

    Attributes:
        name: name of the data set.
        class_names: names of the classes, in the order of the labels; empty for images
            without labels.
        splits: the source of each split: `"train"`, perhaps `"validation"` and `"test"`.
        pipeline: settings that make batches of images.
        seed: random seed of order and augmentation.
        start: step at which new iterators of `train` begin, shared by all copies that
            `with_pipeline` makes. `keras_vit.training.ExactResume` sets it for `fit`.

    Example:

    >>> data = keras_vit.data.load("flowers/", image_size=384, batch_size=64)
    >>> model.fit(
    ...     data.train,
    ...     steps_per_epoch=data.steps_per_epoch,
    ...     epochs=10,
    ...     validation_data=data.validation,
    ...     shuffle=False,  # the stream is shuffled; Keras would warn that it cannot
    ... )
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Source]
    pipeline: Pipeline
    seed: int = 0
    start: StreamStart = field(default_factory=StreamStart)

    def __post_init__(self) -> None:
        reading = self.pipeline.reading
        splits = {split: source.read_as(reading) for split, source in self.splits.items()}
        object.__setattr__(self, "splits", MappingProxyType(splits))

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {n}" for split, n in self.num_examples.items())
        height, width = self.pipeline.image_size
        classes = f"{self.num_classes} classes" if self.class_names else "without labels"
        return (
            f"ImageData({self.name!r}: {classes}, {counts}; images of "
            f"{height} × {width} × {self.pipeline.channels})"
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def num_examples(self) -> dict[str, int]:
        """Number of examples of each split."""
        return {split: len(source) for split, source in self.splits.items()}

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that hold every training example once."""
        return math.ceil(self.num_examples["train"] / self.pipeline.batch_size)

    @property
    def train(self) -> tf.data.Dataset[Any]:
        """Endless `tf.data.Dataset` of training batches (images, labels).

        Images are float32 (batch, height, width, channels); labels depend on `label_mode`.
        All batches have the same size, so one may hold the end of an epoch and the start of
        the next. Give `steps_per_epoch` to `fit`.
        """
        return self._training(self.start)

    def train_from(self, step: int) -> tf.data.Dataset[Any]:
        """Returns `train` from batch number `step` on, without computing those before.

        Raises:
            ValueError: if `step` is negative.
        """
        if step < 0:
            raise ValueError(f"`step` must be 0 or more. Received: step={step}")
        return self._training(step)

    def _training(self, start):
        return training_stream(
            self.splits["train"], self.num_classes, self.pipeline, self.seed, start
        )

    @property
    def validation(self) -> tf.data.Dataset[Any] | None:
        """`evaluation("validation")`; `None` if there is no such split."""
        return self.evaluation("validation") if "validation" in self.splits else None

    @property
    def test(self) -> tf.data.Dataset[Any] | None:
        """`evaluation("test")`; `None` if there is no such split."""
        return self.evaluation("test") if "test" in self.splits else None

    def evaluation(self, split: str, padded: bool | None = None) -> tf.data.Dataset[Any]:
        """Finite `tf.data.Dataset` of a split, not augmented, in the order of `labels`.

        Args:
            split: name of the split.
            padded: `True` gives batches (images, labels, sample weights) of one size, the
                last filled up with zero images of weight 0. `None` pads where the current
                distribution needs it: with several processes of JAX, and under a
                distribution that was not made by `keras_vit.distribution`. The weight of
                an image is (images + padding) / images: Keras divides the loss of
                `evaluate` by all images, and so loss and `weighted_metrics` are those of
                the split.

        Raises:
            ValueError: if there is no such split.
        """
        if padded is None:
            rows = min(self.pipeline.batch_size, len(self.labels(split)))
            padded = needs_padding(rows)
        stream = evaluation_stream(
            self._source(split), self.num_classes, self.pipeline, padded
        )
        setattr(stream, ORIGIN, (self, split))
        return stream

    def labels(self, split: str) -> np.ndarray:
        """Returns the class of each example of a split, int32 (n,)."""
        return self._source(split).labels.copy()

    def names(self, split: str) -> list[str]:
        """Returns the name of each example of a split: its path, or a number."""
        return self._source(split).names

    def images(self, split: str, indices: Sequence[int]) -> list[np.ndarray]:
        """Returns uncropped examples of a split, uint8 (height, width, channels)."""
        source, channels = self._source(split), self.pipeline.channels
        images = [source.read(int(index), channels)[0] for index in indices]
        return [np.round(image).astype("uint8") for image in images]

    def with_pipeline(self, **fields: Any) -> ImageData:
        """Returns the same examples with other fields of the `Pipeline`."""
        return replace(self, pipeline=replace(self.pipeline, **fields))

    def prepared_for(self, model: keras.Model, **fields: Any) -> ImageData:
        """Returns the same examples, prepared as a model of this package takes them.

        Size, channels, data format, mean and standard deviation are the model's. With
        `include_preprocessing` pixel values stay from 0 to 255. The evaluation crop is the
        one in the model's `preprocessing`, if it has one.

        Args:
            model: a `VisionTransformer` or `BiTResNet`.
            **fields: further fields of the `Pipeline`, which take precedence.

        Raises:
            ValueError: if the model is of another class, or takes images that are neither
                grey nor RGB.
        """
        of_model = fields_of(model, self.pipeline.augmentation)
        return self.with_pipeline(**{**of_model, **fields})

    def configured(self, **fields: Any) -> ImageData:
        """Old name of `with_pipeline`."""
        deprecated.warn("`ImageData.configured`", "`with_pipeline`")
        return self.with_pipeline(**fields)

    def configured_for(self, model: keras.Model, **fields: Any) -> ImageData:
        """Old name of `prepared_for`."""
        deprecated.warn("`ImageData.configured_for`", "`prepared_for`")
        return self.prepared_for(model, **fields)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the class names and of the examples of each split, in order.

        A file enters with its size and its path relative to the data set's folder, an array
        with its bytes. Pipeline and seed do not enter.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        for split, source in self.splits.items():
            digest.update(f"\n{split} {len(source)}\n".encode())
            source.update_digest(digest)
        return digest.hexdigest()

    def content_digest(self, split: str) -> str:
        """SHA-256 of the class names and of the examples of one split, in order.

        A file enters with its size, the time of its last change and its path relative to
        the data set's folder, an array with its bytes. Pipeline and seed do not enter.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        self._source(split).update_digest(digest, with_times=True)
        return digest.hexdigest()

    def _source(self, split: str) -> Source:
        return self.splits[arguments.one_of(split, tuple(self.splits), "split")]
