"""The examples of a data set with the pipeline that makes batches of them."""

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from keras_vit import arguments
from keras_vit.data.pipeline import Pipeline, noted
from keras_vit.data.sources import Source
from keras_vit.data.streams import StreamStart, evaluation_stream, training_stream
from keras_vit.distribution import pads_batches


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """Labelled images, as batches for `fit` and `evaluate`; made by `keras_vit.data.load`.

    Attributes:
        name: of the data set.
        class_names: of each class, in the order of the labels.
        splits: the source of each split, `"train"` and perhaps `"validation"`, `"test"`.
        pipeline: a `Pipeline`, how images become batches.
        seed: int, what order and augmentation come from.
        start: a `StreamStart`, where iterators of `train` begin; one for all copies that
            `configured` makes. `keras_vit.training.ExactResume` sets it for `fit`.

    Example:

    >>> data = keras_vit.data.load("flowers/", image_size=384, batch_size=64)
    >>> model.fit(
    ...     data.train,
    ...     steps_per_epoch=data.steps_per_epoch,
    ...     epochs=10,
    ...     validation_data=data.validation,
    ...     shuffle=False,  # it is shuffled; else Keras warns that it does not
    ... )
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Source]
    pipeline: Pipeline
    seed: int = 0
    start: StreamStart = field(default_factory=StreamStart)

    def __post_init__(self):
        reading = self.pipeline.reading
        splits = {split: source.read_as(reading) for split, source in self.splits.items()}
        object.__setattr__(self, "splits", MappingProxyType(splits))

    def __repr__(self):
        counts = ", ".join(f"{split} {n}" for split, n in self.num_examples.items())
        height, width = self.pipeline.image_size
        return (
            f"ImageData({self.name!r}: {self.num_classes} classes, {counts}; images of "
            f"{height} × {width} × {self.pipeline.channels})"
        )

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def num_examples(self) -> dict[str, int]:
        """How many examples each split has."""
        return {split: len(source) for split, source in self.splits.items()}

    @property
    def steps_per_epoch(self) -> int:
        """Batches in which every training example has come once."""
        return math.ceil(self.num_examples["train"] / self.pipeline.batch_size)

    @property
    def train(self):
        """Endless `tf.data.Dataset` of batches (images, labels) to train on.

        float32 images (batch, height, width, channels) and labels by `label_mode`. All
        batches are of one size: one may hold the end of an epoch and the start of the
        next. Give `fit` the `steps_per_epoch`.
        """
        return self._training(self.start)

    def train_from(self, step: int):
        """`train` from batch number `step` on, the batches before left uncomputed."""
        if step < 0:
            raise ValueError(f"`step` must be 0 or more. Received: step={step}")
        return self._training(step)

    def _training(self, start):
        return training_stream(
            self.splits["train"], self.num_classes, self.pipeline, self.seed, start
        )

    @property
    def validation(self):
        """`evaluation("validation")`, or `None` where there is no such split."""
        return self.evaluation("validation") if "validation" in self.splits else None

    @property
    def test(self):
        """`evaluation("test")`, or `None` where there is no such split."""
        return self.evaluation("test") if "test" in self.splits else None

    def evaluation(self, split: str, padded: bool | None = None):
        """Finite `tf.data.Dataset` of a split, not augmented, in the order of `labels`.

        Args:
            split: name of the split.
            padded: whether batches are (images, labels, sample weights) all of one size,
                the last filled up with zeros of weight 0. `None`: where the distribution
                in use needs it: with several processes of JAX, and under a distribution
                that was made without `keras_vit.distribution`.
                The weight of an image is the images with the padding by those without:
                so the loss of `evaluate`, which Keras divides by all, is that of the
                split, and so are `weighted_metrics`.

        Raises:
            ValueError: if there is no such split.
        """
        if padded is None:
            rows = min(self.pipeline.batch_size, len(self.labels(split)))
            padded = pads_batches(rows)
        return evaluation_stream(
            self._source(split), self.num_classes, self.pipeline, padded
        )

    def labels(self, split: str) -> np.ndarray:
        """int32 array (n,): the class of each example of a split."""
        return self._source(split).labels.copy()

    def names(self, split: str) -> list[str]:
        """What each example of a split is called: its path, or a number."""
        return self._source(split).names

    def images(self, split: str, indices: Sequence[int]) -> list[np.ndarray]:
        """Pixels of some examples of a split, (height, width, channels), uncropped."""
        source, channels = self._source(split), self.pipeline.channels
        images = [source.read(int(index), channels)[0] for index in indices]
        return [np.round(image).astype("uint8") for image in images]

    def configured(self, **fields) -> "ImageData":
        """The same examples with other fields of the `Pipeline`."""
        return replace(self, pipeline=replace(self.pipeline, **fields))

    def configured_for(self, model, **fields) -> "ImageData":
        """The same examples as a model of this package takes its images.

        Size, channels, data format, mean and standard deviation are the model's; pixel
        values stay as they are where it has `include_preprocessing`. Where the model
        notes how images are prepared for evaluation (`preprocessing`), they are so.

        Args:
            model: a `VisionTransformer` or `BiTResNet`.
            **fields: fields of the `Pipeline` which are to be others.

        Raises:
            ValueError: if the model is another one, which does not tell this.
        """
        config = model.get_config()
        if "include_preprocessing" not in config:
            raise ValueError(
                "A VisionTransformer or a BiTResNet tells how it takes its images. "
                f"Received: a {type(model).__name__}. Give that model, perhaps a layer "
                "of yours, or say it yourself: data.configured(image_size=…, image_mean=…, "
                "image_std=…)."
            )
        mean, std = config["image_mean"], config["image_std"]
        if config["include_preprocessing"]:
            mean, std = None, None
        channels_last = config["data_format"] == "channels_last"
        of_model = {
            "image_size": config["image_size"],
            "channels": model.input_shape[-1 if channels_last else 1],
            "data_format": config["data_format"],
            "image_mean": mean,
            "image_std": std,
        }
        of_model |= noted(config, self.pipeline.augmentation)
        return self.configured(**{**of_model, **fields})

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the classes and of which examples are in which split, in order.

        Of files it is the paths relative to the data set's folder and their sizes, of
        arrays their bytes. The pipeline and the seed are no part of it.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        for split, source in self.splits.items():
            digest.update(f"\n{split} {len(source)}\n".encode())
            source.identity(digest)
        return digest.hexdigest()

    def _source(self, split: str) -> Source:
        return self.splits[arguments.one_of(split, tuple(self.splits), "split")]
