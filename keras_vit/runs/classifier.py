"""A model with what it takes to classify images: preparation, class names, activation."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_vit.data import Augmentation, ImageData, Pipeline, failures
from keras_vit.data.labels import indices_of
from keras_vit.data.pipeline import fields_of
from keras_vit.report import Evaluation
from keras_vit.runs.folder import RunFolder, find_run
from keras_vit.zoo.pretrained import Model, from_pretrained

_ACTIVATIONS = ("linear", "softmax", "sigmoid")


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model, the preparation of its images, and the names of its classes.

    Args:
        model: a model of this package with a head.
        pipeline: prepares images for the model.
        class_names: a name for each class, or `None` if the checkpoint has none.
        activation: `"softmax"` or `"sigmoid"`, applied to logits for probabilities.
        run: the folder of its training, or `None` for other checkpoints.
    """

    model: Model
    pipeline: Pipeline
    class_names: tuple[str, ...] | None
    activation: str = "softmax"
    run: RunFolder | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.model.get_config()["classes"]

    def probabilities(
        self, images: np.ndarray | Iterable[Any], **options: Any
    ) -> np.ndarray:
        """Probabilities of the classes, float32 (images, classes).

        Args:
            images: an array of prepared images, or a `tf.data.Dataset` of batches.
            **options: arguments of `keras.Model.predict`.

        Raises:
            ValueError: if an image of the data set cannot be read; it names the image.
        """
        with failures.named():
            outputs = np.asarray(self.model.predict(images, **options), "float32")
        return self.as_probabilities(outputs)

    def as_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Probabilities of outputs of the model, float32 (images, classes)."""
        if _activation(self.model) != "linear":
            return outputs
        if self.activation == "sigmoid":
            return 0.5 * (1 + np.tanh(0.5 * outputs))
        exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def evaluate(self, data: ImageData, split: str, verbose: int = 0) -> Evaluation:
        """Predicts a split and compares with its labels.

        Classes are matched by name: the data may order them differently, or lack some.

        Raises:
            ValueError: if the split does not exist, or has a class that the model does
                not know.
        """
        labels, names = self._labels(data, split)
        fields = dict(vars(self.pipeline))
        for name in ("value_range", "alpha"):  # the data's come first
            fields[name] = getattr(data.pipeline, name) or fields[name]
        images = data.with_pipeline(**fields).evaluation(split)
        probabilities = self.probabilities(images, verbose=verbose)
        return Evaluation(labels, probabilities, names)

    def _labels(self, data, split) -> tuple[np.ndarray, tuple[str, ...]]:
        """Labels of a split as indices of the model's classes, and the classes' names."""
        labels, names = data.labels(split), data.class_names
        if self.class_names is None and len(names) != self.num_classes:
            raise ValueError(
                "The model does not name its classes, so the data must have as many, in "
                f"the same order. Received: a model with {self.num_classes} outputs, data "
                f"{data.name!r} of {len(names)} classes"
            )
        if self.class_names is None or self.class_names == names:
            return labels, names
        present = np.unique(labels)  # a class without images may be unknown
        indices = np.zeros(len(names), "int32")
        found = [names[i] for i in present]
        indices[present] = indices_of(found, self.class_names, data.name)
        return indices[labels], self.class_names


def load_classifier(
    source: str | os.PathLike[str], batch_size: int = 32, **overrides: Any
) -> Classifier:
    """Loads the classifier of a run or of any other checkpoint.

    Args:
        source: the folder of a run, of which the best checkpoint is loaded; a `.keras`
            file in it; or anything that `keras_vit.from_pretrained` takes.
        batch_size: images in a batch of the pipeline.
        **overrides: arguments of `keras_vit.from_pretrained`, such as `merged_tokens=8`.
            They do not change how images are prepared.

    Raises:
        FileNotFoundError: if `source` does not exist, or the run has no checkpoint yet.
        ConnectionError: if a checkpoint cannot be downloaded.
        ValueError: if the checkpoint has no head, or is damaged.
    """
    model, pipeline, run = load_model(source, batch_size, **overrides)
    return as_classifier(model, pipeline, run, source)


def as_classifier(
    model: Model,
    pipeline: Pipeline,
    run: RunFolder | None,
    source: str | os.PathLike[str],
) -> Classifier:
    """The classifier of what `load_model` returned; `source` names it in errors.

    Raises:
        ValueError: if the model has no head.
    """
    config = _with_head(model, source).get_config()
    names, activation = config.get("class_names"), config.get("probabilities")
    return Classifier(model, pipeline, names, activation or "softmax", run)


def load_model(
    source: str | os.PathLike[str], batch_size: int = 32, **overrides: Any
) -> tuple[Model, Pipeline, RunFolder | None]:
    """The model of `load_classifier`, its pipeline, and its run if it has one.

    The model may have no head.
    """
    found = find_run(source)
    if found is None:
        run, model = None, from_pretrained(source, **overrides)
    else:
        run, checkpoint = found
        model = from_pretrained(checkpoint, **overrides)
        _note_run(model, run.config())
    fields = fields_of(model, Augmentation())
    return model, Pipeline(**fields, batch_size=batch_size), run


def _note_run(model, config):
    """Notes in the model what earlier versions kept in the run's configuration alone."""
    images, own = config["images"], model.get_config()
    if "preprocessing" not in own:
        kept = ("evaluation_crop", "resize_factor", "value_range", "alpha")
        known = {name: images[name] for name in kept if images.get(name) is not None}
        model.note(preprocessing=known)
    if "class_names" not in own and own["classes"] == len(config["class_names"]):
        names, activation = config["class_names"], config["activation"]
        model.note(class_names=names, probabilities=activation)


def image_fields(pipeline: Pipeline) -> dict[str, Any]:
    """The fields of a pipeline that a run's configuration keeps."""
    fields = asdict(pipeline)
    augmentation = fields.pop("augmentation")
    kept = ("image_size", "channels", "image_mean", "image_std", "data_format")
    kept += ("value_range", "alpha")
    crop = ("evaluation_crop", "resize_factor", "evaluation_interpolation")
    return {**{k: fields[k] for k in kept}, **{k: augmentation[k] for k in crop}}


def _with_head(model, source):
    config = model.get_config()
    if not config["classes"]:
        raise ValueError(
            f"A classifier needs a model with a head. Received: {source!r}, which has "
            "none. Fine-tune it with `keras-vit finetune`, which adds one."
        )
    if _activation(model) not in _ACTIVATIONS:
        raise ValueError(
            f"The head's activation must be one of {', '.join(_ACTIVATIONS)}. Received: "
            f"{source!r} with the activation {_activation(model)!r}"
        )
    return model


def _activation(model):
    return model.get_config()["classifier_activation"] or "linear"
