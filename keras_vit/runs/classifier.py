"""A trained model with what it needs to say what is on an image."""

import os
from dataclasses import asdict, dataclass

import numpy as np

from keras_vit.data import Augmentation, ImageData, Pipeline, failures
from keras_vit.data.labels import indices_of
from keras_vit.data.pipeline import fields_in_config
from keras_vit.report import Evaluation
from keras_vit.runs.folder import RunFolder, find_run
from keras_vit.zoo.pretrained import Model, from_pretrained

_ACTIVATIONS = ("linear", "softmax", "sigmoid")


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model, how images come to it, and the names of its classes.

    Args:
        model: a model of this package with a head.
        pipeline: how images are prepared.
        class_names: a name for each class, or `None` where nothing tells them.
        activation: `"softmax"` or `"sigmoid"`, what makes probabilities of logits.
        run: the folder of its training, or `None` of another checkpoint.
    """

    model: Model
    pipeline: Pipeline
    class_names: tuple[str, ...] | None
    activation: str = "softmax"
    run: RunFolder | None = None

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return self.model.get_config()["classes"]

    def probabilities(self, images, **options) -> np.ndarray:
        """Of each class, float32 (n, classes).

        Args:
            images: an array of prepared images, or a `tf.data.Dataset` of batches.
            **options: of `keras.Model.predict`.

        Raises:
            ValueError: if an image of the data set cannot be read, naming it.
        """
        with failures.named():
            outputs = np.asarray(self.model.predict(images, **options), "float32")
        if _activation(self.model) != "linear":
            return outputs
        if self.activation == "sigmoid":
            return 0.5 * (1 + np.tanh(0.5 * outputs))
        exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def evaluate(self, data: ImageData, split: str, verbose: int = 0) -> Evaluation:
        """What the model makes of a split.

        Classes are found by name: the data may have them in another order, or lack some.

        Raises:
            ValueError: if the split has a class that the model does not know, or there
                is no such split.
        """
        labels, names = self._labels(data, split)
        fields = _fields(self.pipeline)
        for name in ("value_range", "alpha"):  # of the files, where they were given
            fields[name] = getattr(data.pipeline, name) or fields[name]
        images = data.configured(**fields).evaluation(split)
        probabilities = self.probabilities(images, verbose=verbose)
        return Evaluation(labels, probabilities, names)

    def _labels(self, data, split) -> tuple[np.ndarray, tuple[str, ...]]:
        """Labels of a split as the model counts its classes, and the classes' names."""
        labels, names = data.labels(split), data.class_names
        if self.class_names is None and len(names) != self.num_classes:
            raise ValueError(
                "The data must have as many classes as the model, in the same order, as "
                "nothing tells the names of the model's classes. Received: a model with "
                f"{self.num_classes} outputs, data {data.name!r} of {len(names)} classes"
            )
        if self.class_names is None or self.class_names == names:
            return labels, names
        present = np.unique(labels)  # names of classes without images do no harm
        places = np.zeros(len(names), "int32")
        found = [names[i] for i in present]
        places[present] = indices_of(found, self.class_names, data.name)
        return places[labels], self.class_names


def load_classifier(
    source: str | os.PathLike, batch_size: int = 32, **overrides
) -> Classifier:
    """The classifier of a training, or of any other checkpoint.

    Args:
        source: the folder of a training, which stands for its best checkpoint; a `.keras`
            file in it; or whatever `keras_vit.from_pretrained` takes.
        batch_size: int, images that the model is given at a time.
        **overrides: of `keras_vit.from_pretrained`, such as `merged_tokens=8`; images come
            to the model as they do without.

    Raises:
        FileNotFoundError: if there is nothing at `source`, or no checkpoint yet.
        ConnectionError: if a checkpoint cannot be downloaded.
        ValueError: if there is no classifier in it, or it is damaged.
    """
    model, pipeline, run = load_model(source, batch_size, **overrides)
    config = _with_head(model, source).get_config()
    names, activation = config.get("class_names"), config.get("probabilities")
    return Classifier(model, pipeline, names, activation or "softmax", run)


def load_model(
    source: str | os.PathLike, batch_size: int = 32, **overrides
) -> tuple[Model, Pipeline, RunFolder | None]:
    """The model of `load_classifier`, also one without a head, how images come to it, and
    the folder of its training, if it has one.
    """
    found = find_run(source)
    if found is None:
        model = from_pretrained(source, **overrides)
        return model, _pipeline_of(model, batch_size), None
    run, checkpoint = found
    model = from_pretrained(checkpoint, **overrides)
    _note_run(model, run.config())
    return model, _pipeline_of(model, batch_size), run


def _note_run(model, config):
    """Notes in the model what files of earlier versions leave to the configuration."""
    images, own = config["images"], model.get_config()
    if "preprocessing" not in own:
        kept = ("evaluation_crop", "resize_factor", "value_range", "alpha")
        known = {name: images[name] for name in kept if images.get(name) is not None}
        model.note(preprocessing=known)
    if "class_names" not in own and own["classes"] == len(config["class_names"]):
        names, activation = config["class_names"], config["activation"]
        model.note(class_names=names, probabilities=activation)


def _pipeline_of(model, batch_size):
    config = model.get_config()
    channels_last = config["data_format"] == "channels_last"
    raw = config["include_preprocessing"]
    fields = {
        "image_size": config["image_size"],
        "channels": model.input_shape[-1 if channels_last else 1],
        "image_mean": None if raw else config["image_mean"],
        "image_std": None if raw else config["image_std"],
        "data_format": config["data_format"],
        "batch_size": batch_size,
    }
    return Pipeline(**fields | fields_in_config(config, Augmentation()))


def image_fields(pipeline: Pipeline) -> dict:
    """What a configuration keeps of how images come to a model."""
    fields = asdict(pipeline)
    augmentation = fields.pop("augmentation")
    kept = ("image_size", "channels", "image_mean", "image_std", "data_format")
    kept += ("value_range", "alpha")
    crop = ("evaluation_crop", "resize_factor")
    return {**{k: fields[k] for k in kept}, **{k: augmentation[k] for k in crop}}


def _fields(pipeline):
    names = pipeline.__dataclass_fields__
    return {name: getattr(pipeline, name) for name in names}


def _with_head(model, source):
    config = model.get_config()
    if not config["classes"]:
        raise ValueError(
            f"A classifier needs a model with a head. Received: {source!r}, which has "
            "none. `keras-vit finetune` gives it one."
        )
    if _activation(model) not in _ACTIVATIONS:
        raise ValueError(
            f"The head's activation must be one of {', '.join(_ACTIVATIONS)}. Received: "
            f"{source!r} with the activation {_activation(model)!r}"
        )
    return model


def _activation(model):
    return model.get_config()["classifier_activation"] or "linear"
