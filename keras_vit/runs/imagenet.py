"""`evaluate --imagenet`: the accuracy on ImageNet's test sets beside the published one."""

import os
from dataclasses import dataclass

import numpy as np

from keras_vit.data.labels import indices_of
from keras_vit.evaluation.imagenet import NUM_CLASSES, TestSet, load_test_set, wordnet_ids
from keras_vit.evaluation.real_labels import real_accuracy
from keras_vit.intervals import wilson_interval
from keras_vit.presets import find_preset
from keras_vit.runs.classifier import Classifier, load_classifier
from keras_vit.tables import percent, percent_range


@dataclass(frozen=True)
class TestSetResult:
    """Accuracy of a classifier on a test set of ImageNet.

    Attributes:
        source: the checkpoint.
        test_set: the row of `evaluation.imagenet.TEST_SETS`.
        num_correct: number of images whose most probable class is right.
        num_scored: number of images that have a right label.
        num_images: number of images; those without a right label are not scored.
        published: accuracy of the checkpoint that its preset states, in percent, or `None`.
        published_source: source of that accuracy, or `None`.
    """

    __test__ = False  # pytest would take the class for tests

    source: str
    test_set: TestSet
    num_correct: int
    num_scored: int
    num_images: int
    published: float | None = None
    published_source: str | None = None

    @property
    def accuracy(self) -> float:
        """Share of the scored images whose most probable class is right, from 0 to 1."""
        return self.num_correct / self.num_scored

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the accuracy, with a confidence of 95 %."""
        return wilson_interval(self.num_correct, self.num_scored)

    @property
    def is_complete(self) -> bool:
        """True if the images are as many as were published."""
        return self.num_images == self.test_set.num_images

    @property
    def difference(self) -> float | None:
        """Accuracy minus the published one, in percentage points; `None` without one."""
        return None if self.published is None else 100 * self.accuracy - self.published

    def summary(self) -> dict[str, object]:
        """The numbers by name, as `--json` prints them."""
        return {
            "source": self.source,
            "test_set": self.test_set.name,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "images": self.num_images,
            "scored": self.num_scored,
            "published": self.published,
            "published_source": self.published_source,
            "difference": self.difference,
        }

    def __str__(self) -> str:
        title, interval = self.test_set.title, percent_range(*self.interval)
        lines = [
            f"{title} top-1 accuracy {percent(self.accuracy)} (95 % interval {interval}; "
            f"{self.num_correct:,} of {self.num_scored:,})"
        ]
        if unlabeled := self.num_images - self.num_scored:
            lines.append(f"{unlabeled:,} images without a right label are left out")
        if not self.is_complete:
            lines.append(
                f"these are {self.num_images:,} images, not all "
                f"{self.test_set.num_images:,} of the test set"
            )
        if self.published is None:
            lines.append("published: no source of this package states it")
        else:
            lines.append(
                f"published {self.published:.2f} % ({self.published_source}), difference "
                f"{self.difference:+.2f} points"
            )
        return "\n".join(lines)


def evaluate_imagenet(
    source: str | os.PathLike[str],
    test_set: str = "imagenet2012",
    data: str | os.PathLike[str] | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    real_labels: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    merged_tokens: int | tuple[int, ...] | None = None,
    verbose: int = 0,
) -> TestSetResult:
    """Evaluates a classifier of ImageNet-1k on a test set, beside the published accuracy.

    Images are prepared as the checkpoint's preset, or the run of its training, says.

    Args:
        source: a preset, the folder of a run, or anything else that
            `keras_vit.from_pretrained` takes, with a head of ImageNet's 1,000 classes.
        test_set: a key of `keras_vit.evaluation.imagenet.TEST_SETS`, `"imagenet2012"`,
            `"imagenet_real"`, `"imagenet_v2"`, `"imagenet_a"`, `"imagenet_r"` or
            `"imagenet_sketch"`. In A and R the model chooses among their 200 classes.
        data: the folder of its images, or `None` for TensorFlow Datasets; see
            `evaluation.imagenet.load_test_set`.
        data_dir: folder of TensorFlow Datasets' data.
        real_labels: a copy of ReaL's `real.json`; `None` downloads it once.
        batch_size: images in a batch.
        merged_tokens: as in `VisionTransformer`.
        verbose: as in `predict` of Keras.

    Raises:
        FileNotFoundError: if the checkpoint or the folder does not exist.
        ValueError: if the images are not those of the test set, or the model has no head
            of ImageNet's classes.
        RuntimeError: if TensorFlow Datasets cannot prepare the data set.

    Example:

    >>> print(keras_vit.runs.evaluate_imagenet("ViTB16.augreg_imagenet21k+imagenet2012"))
    """
    overrides = {} if merged_tokens is None else {"merged_tokens": merged_tokens}
    classifier = load_classifier(source, batch_size, **overrides)
    columns = _columns(classifier, source)
    images = load_test_set(
        test_set,
        data,
        data_dir=data_dir,
        real_labels=real_labels,
        **vars(classifier.pipeline),
    )
    stream = images.data.evaluation("train")
    probabilities = classifier.probabilities(stream, verbose=verbose)
    accuracy = real_accuracy(images.predicted(probabilities[:, columns]), images.labels)
    scored = sum(len(right) > 0 for right in images.labels)
    published, origin = _published(source, test_set) if not overrides else (None, None)
    return TestSetResult(
        source=os.fspath(source),
        test_set=images.test_set,
        num_correct=round(accuracy * scored),
        num_scored=scored,
        num_images=len(images.labels),
        published=published,
        published_source=origin,
    )


def _columns(classifier: Classifier, source) -> np.ndarray:
    """Output of the model for each of ImageNet's classes, int (1000,)."""
    if classifier.num_classes != NUM_CLASSES:
        raise ValueError(
            f"ImageNet's test sets are for models with its {NUM_CLASSES:,} classes. "
            f"Received: {os.fspath(source)!r}, whose head has "
            f"{classifier.num_classes:,} outputs."
        )
    if classifier.class_names is None:
        return np.arange(NUM_CLASSES)
    return indices_of(wordnet_ids(), classifier.class_names, "ImageNet")


def _published(source, test_set: str) -> tuple[float | None, str | None]:
    """Accuracy that the preset of a checkpoint states, and its source."""
    try:
        preset = find_preset(os.fspath(source))
    except ValueError:
        return None, None
    score = preset.scores.get(test_set)
    return (None, None) if score is None else tuple(score)
