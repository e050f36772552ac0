"""`explain`: what a model predicts of images, and which parts of them it reads."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_vit import analysis, arguments
from keras_vit.analysis.passes import transformer
from keras_vit.analysis.summary import class_map_kind
from keras_vit.data import Pipeline
from keras_vit.data.pipeline import pixels_of
from keras_vit.log import log
from keras_vit.models import VisionTransformer
from keras_vit.output_paths import check_free, check_kind
from keras_vit.report.explanation_page import ExplainedImage, write_explanation
from keras_vit.report.looks import Look
from keras_vit.runs.classifier import Classifier, as_classifier, load_model
from keras_vit.runs.given_images import expand, read_batches, unusual_values
from keras_vit.runs.looks import as_looks
from keras_vit.runs.model_pictures import ModelPictures, model_pictures, with_distances
from keras_vit.runs.prediction import Prediction, class_names_of, most_probable
from keras_vit.runs.results import model_name


@dataclass(frozen=True, eq=False)
class Explanation:
    """An image with its prediction and the maps over it, or the reason why there are none.

    Attributes:
        prediction: path or address and the most probable classes, none of a model without
            a head; or the error.
        picture: the image as the model sees it, uint8 (height, width, channels).
        class_map: float32 (rows, columns), see `analysis.AttentionSummary`, or `None`.
        rollout: float32 (rows, columns), see `analysis.rollout_map`, or `None`.
    """

    prediction: Prediction
    picture: np.ndarray | None = None
    class_map: np.ndarray | None = None
    rollout: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Explanations:
    """Explanations of images, and pictures of the model.

    Attributes:
        images: an `Explanation` of each image, in order.
        model: name of the model.
        class_map_kind: see `analysis.AttentionSummary`.
        pictures: of the model, with the attention distance on these images.
    """

    images: tuple[Explanation, ...]
    model: str
    class_map_kind: str
    pictures: ModelPictures

    def write_page(self, folder: str | os.PathLike[str], overwrite: bool = False) -> str:
        """Writes `index.html`, one page without scripts, other files or network.

        Args:
            folder: where to write the page; created if missing.
            overwrite: whether to replace the page of a folder that is not empty.

        Returns:
            The path of the page.

        Raises:
            ValueError: if there is something at `folder`, or it is a file.
        """
        check_page(folder, overwrite)
        return write_explanation(
            folder,
            [self._shown(image) for image in self.images],
            model=self.model,
            filters=self.pictures.filters,
            similarity=self.pictures.similarity,
            distances=self.pictures.distances,
            remarks=self.pictures.remarks,
        )

    def _shown(self, image):
        prediction = image.prediction
        classes = tuple((row.name, row.probability) for row in prediction.classes)
        look = None
        if image.picture is not None:
            maps = (image.class_map, image.rollout)
            look = Look(image.picture, *maps, self.class_map_kind)
        return ExplainedImage(prediction.image, look, classes, prediction.error)


@dataclass(frozen=True, eq=False)
class Explainer:
    """A model, the preparation of its images, and the names of its classes.

    Attributes:
        model: a model with attention.
        pipeline: prepares images for the model.
        classifier: the model with its class names; `None` if it has no head.
        class_names: a name for each class.
        top: number of classes for each image.
    """

    model: VisionTransformer
    pipeline: Pipeline
    classifier: Classifier | None
    class_names: Sequence[str] = ()
    top: int = 5

    def explain(
        self,
        images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        say: Callable[[str], None] = log.warning,
    ) -> Explanations:
        """Explains images; see `explain`."""
        sources = expand(images, say)
        if reason := unusual_values(sources, self.pipeline):
            say(reason)
        found, distances = [], []
        for batch in read_batches(sources, self.pipeline):
            explained, by_image = self._explain_read(batch)
            found += explained
            distances += by_image
        return Explanations(
            tuple(found),
            model_name(self.model.get_config()),
            class_map_kind(self.model),
            with_distances(self.pictures, distances),
        )

    @functools.cached_property
    def pictures(self) -> ModelPictures:
        """Pictures of the model, without images; half a second of B/16."""
        return model_pictures(self.model)

    def _explain_read(self, batch):
        """Explanations of a batch, and distances of the images that were read."""
        pixels = [image.pixels for image in batch if not image.error]
        explained, distances = self.explain_pixels(np.stack(pixels)) if pixels else ([], [])
        rows = iter(explained)
        found = []
        for image in batch:
            error = Explanation(Prediction("", error=image.error)) if image.error else None
            one = error or next(rows)
            named = replace(one.prediction, image=image.name)
            found.append(replace(one, prediction=named))
        return found, list(distances)

    def explain_pixels(self, pixels: np.ndarray) -> tuple[list[Explanation], np.ndarray]:
        """Explains a batch of prepared images, without names.

        Args:
            pixels: as `pipeline` prepares them.

        Returns:
            An `Explanation` of each, and their attention distances, float32 (batch, blocks,
            heads).
        """
        found = analysis.attention_summary(self.model, pixels)
        classes = [()] * len(pixels)
        looks = as_looks(found, pixels_of(pixels, self.pipeline))
        if self.classifier is not None:
            probabilities = self.classifier.as_probabilities(found.outputs)
            classes = most_probable(probabilities, self.class_names, self.top)
        explained = [
            Explanation(Prediction("", rows), look.picture, look.class_map, look.rollout)
            for rows, look in zip(classes, looks, strict=True)
        ]
        return explained, found.distances


def check_page(folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Checks that a page can be written to a folder, before work that takes minutes.

    Raises:
        ValueError: if there is something at `folder`, or it is a file.
        FileNotFoundError: if the folder that is to hold it does not exist.
    """
    folder = os.fspath(folder)
    check_kind(folder, is_folder=True)
    check_free(folder, overwrite)


def load_explainer(
    source: str | os.PathLike[str],
    *,
    top: int = 5,
    batch_size: int = 8,
    class_index: str | os.PathLike[str] | None = None,
    value_range: tuple[float, float] | None = None,
    alpha: str | None = None,
    merged_tokens: int | tuple[int, ...] | None = None,
) -> Explainer:
    """Loads the model of a run or of any other checkpoint, to look inside it.

    Args:
        source: the folder of a run, or anything that `keras_vit.from_pretrained` takes.
        top: number of classes for each image.
        batch_size: images in a batch.
        class_index: names of the classes, as in `predict`.
        value_range: values that are black and white in the files, as in
            `keras_vit.data.load`; `None` for those of the training.
        alpha: use of a fourth channel, as in `keras_vit.data.load`.
        merged_tokens: as in `VisionTransformer`.

    Raises:
        FileNotFoundError: if the checkpoint does not exist.
        ValueError: if the model has no attention, or an argument is out of range.
    """
    arguments.positive(top, "top")
    arguments.positive(batch_size, "batch_size")
    overrides: dict[str, Any] = {}
    if merged_tokens is not None:
        overrides["merged_tokens"] = merged_tokens
    model, pipeline, run = load_model(source, batch_size, **overrides)
    model = transformer(model, "An explanation")
    reading = {"value_range": value_range, "alpha": alpha}
    pipeline = replace(pipeline, **{name: v for name, v in reading.items() if v})
    if not model.arguments["classes"]:
        return Explainer(model, pipeline, None, top=top)
    classifier = as_classifier(model, pipeline, run, source)
    names = class_names_of(classifier, class_index)
    return Explainer(model, pipeline, classifier, names, top)


def explain(
    source: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    say: Callable[[str], None] = log.warning,
    **options: Any,
) -> Explanations:
    """Predicts images and maps what the model reads of them, as `keras-vit explain` does.

    An image that cannot be read has a prediction with an error; the others follow.

    Args:
        source: the folder of a run, or anything that `keras_vit.from_pretrained` takes.
        images: a file, a folder or an address (`https://…`), or several of them.
        say: called with a sentence where files are left out, or images would be all but
            black; by default it goes to the log as a warning.
        **options: arguments of `load_explainer`, such as `top`.

    Returns:
        `Explanations`.

    Raises:
        FileNotFoundError: if the checkpoint does not exist.
        ValueError: if the model has no attention, or an argument is out of range.

    Example:

    >>> found = keras_vit.runs.explain("runs/flowers", "photos")
    >>> found.write_page("explained")
    """
    return load_explainer(source, **options).explain(images, say=say)
