"""`predict`: the most probable classes of images from files, folders and the web."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from keras_vit.log import log
from keras_vit.runs.classifier import Classifier, load_classifier
from keras_vit.runs.given_images import expand, read_batches, unusual_values
from keras_vit.zoo.class_lists import LISTS
from keras_vit.zoo.predictions import IMAGENET_1K, decode_predictions

NO_NAMES = "none"


@dataclass(frozen=True)
class ClassProbability:
    """A class and its probability.

    Attributes:
        index: the class's index in the model's outputs.
        name: its name, or its index as text if the model names no classes.
        probability: from 0 to 1.
    """

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, or the reason why there are none.

    Attributes:
        image: path or address of the image.
        classes: the most probable classes, the most probable one first.
        error: why the image cannot be read; `""` if it can.
    """

    image: str
    classes: tuple[ClassProbability, ...] = ()
    error: str = ""


def predict(
    source: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    top: int = 5,
    batch_size: int = 32,
    class_index: str | os.PathLike[str] | None = None,
    value_range: tuple[float, float] | None = None,
    alpha: str | None = None,
    merged_tokens: int | tuple[int, ...] | None = None,
    say: Callable[[str], None] = log.warning,
) -> Iterator[Prediction]:
    """Classifies images, as `keras-vit predict` does.

    An image that cannot be read yields a `Prediction` with an error; the others follow.

    Args:
        source: the folder of a run, or anything that `keras_vit.from_pretrained` takes.
        images: a file, a folder or an address (`https://…`), or several of them.
        top: number of classes for each image.
        batch_size: images in a batch.
        class_index: a file of the names of classes, as in `decode_predictions`, for
            models that do not name them; `None` downloads those of ImageNet-1k and -21k,
            `"none"` gives numbers.
        value_range: values that are black and white in the files, as in
            `keras_vit.data.load`; `None` for those of the training.
        alpha: use of a fourth channel, as in `keras_vit.data.load`.
        merged_tokens: as in `VisionTransformer`.
        say: called with a sentence where files are left out, or images would be all but
            black; by default it goes to the log as a warning.

    Returns:
        An iterator of a `Prediction` for each image, in order, a batch at a time.

    Raises:
        FileNotFoundError: if the checkpoint does not exist.
        ValueError: if an argument is not positive, or the checkpoint has no head.

    Example:

    >>> for prediction in keras_vit.runs.predict("runs/flowers", "new.jpg", top=3):
    ...     print(prediction.image, prediction.classes or prediction.error)
    """
    for name, value in (("top", top), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
    sources = expand(images, say)
    overrides = {} if merged_tokens is None else {"merged_tokens": merged_tokens}
    classifier = load_classifier(source, batch_size, **overrides)
    reading = {"value_range": value_range, "alpha": alpha}
    reading = {name: value for name, value in reading.items() if value}
    classifier = replace(classifier, pipeline=replace(classifier.pipeline, **reading))
    if reason := unusual_values(sources, classifier.pipeline):
        say(reason)
    names = class_names_of(classifier, class_index)
    return predict_images(classifier, sources, names, top)


def class_names_of(
    classifier: Classifier, class_index: str | os.PathLike[str] | None = None
) -> tuple[str, ...]:
    """Names of the classes; their indices as text if nothing names them."""
    if classifier.class_names is not None:
        return classifier.class_names
    count = classifier.num_classes
    is_known = class_index is not None or count in (IMAGENET_1K, *LISTS)
    if class_index == NO_NAMES or not is_known:
        return tuple(map(str, range(count)))
    order = np.arange(count, 0, -1)[None]  # the first class is the most probable one
    decoded = decode_predictions(order, top=count, class_index=class_index)
    return tuple(name for _, name, _ in decoded[0])


def predict_images(
    classifier: Classifier,
    sources: Sequence[tuple[str, str]],
    names: Sequence[str],
    top: int,
) -> Iterator[Prediction]:
    """Yields a `Prediction` for each image; see `predict`.

    Args:
        classifier: the model and the preparation of its images.
        sources: of `given_images.expand`.
        names: a name for each class.
        top: number of classes for each image.
    """
    for batch in read_batches(sources, classifier.pipeline):
        pixels = [image.pixels for image in batch if not image.error]
        rows = iter(_most_probable(classifier, pixels, names, top))
        for image in batch:
            if image.error:
                yield Prediction(image.name, error=image.error)
            else:
                yield Prediction(image.name, next(rows))


def _most_probable(classifier, images, names, top):
    """The most probable classes of each image."""
    if not images:
        return []
    batch = np.stack(images)
    probabilities = classifier.probabilities(batch, batch_size=len(batch), verbose=0)
    return most_probable(probabilities, names, top)


def most_probable(
    probabilities: np.ndarray, names: Sequence[str], top: int
) -> list[tuple[ClassProbability, ...]]:
    """The most probable classes of each image, the most probable one first.

    Args:
        probabilities: (images, classes).
        names: a name for each class.
        top: number of classes for each image.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        tuple(ClassProbability(int(i), names[i], float(row[i])) for i in best)
        for row, best in zip(probabilities, order, strict=True)
    ]
