"""The result of an evaluation: its numbers, how they are named, and its report."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_vit.data import ImageData
from keras_vit.models.sizes import size_name
from keras_vit.report import Evaluation, write_report
from keras_vit.runs.classifier import Classifier
from keras_vit.runs.looks import looks_of
from keras_vit.tables import percent

UNSEEN = "unseen"  # the split of images that the model was not trained on


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """A classifier's predictions on a split, with their statistics.

    Attributes:
        classifier: the model with its class names.
        data: the images; `data.splits[split]` holds those that were scored.
        split: `"train"`, `"validation"`, `"test"`, or `"unseen"` for images that the
            model was not trained on.
        evaluation: labels and probabilities, and from them accuracy, F1, loss and the
            confusion matrix.
    """

    classifier: Classifier
    data: ImageData
    split: str
    evaluation: Evaluation

    @property
    def accuracy_name(self) -> str:
        """Label of the accuracy: the split, or the images that are scored."""
        if self.split == UNSEEN:
            return "accuracy on images not trained on"
        if set(self.data.splits) == {"train"}:
            return "accuracy on all images"
        return f"{self.split} accuracy"

    @property
    def loss_note(self) -> str:
        """A phrase on how the loss differs from the training's `val_loss`, or `""`."""
        run = self.classifier.run
        recipe = run.config()["recipe"] if run else {}
        parts = []
        if recipe.get("loss") == "sigmoid":
            parts.append("is the binary cross-entropy summed over the classes")
        if smoothing := recipe.get("label_smoothing"):
            parts.append(f"includes a label smoothing of {smoothing:g}")
        if not parts:
            return ""
        return f"cross-entropy; val_loss {' and '.join(parts)}"

    def summary(self) -> dict[str, object]:
        """The numbers by name, as `results.json` holds them."""
        note = {"loss_note": self.loss_note} if self.loss_note else {}
        return {"split": self.split, **self.evaluation.summary(), **note}

    def write_report(self, folder: str | os.PathLike[str]) -> str:
        """Writes the HTML report, with the training's history if the model has a run.

        Args:
            folder: where to write `index.html`; created if missing.

        Returns:
            The path of the page.
        """
        run = self.classifier.run
        history = run.history() if run else {}
        model = model_name(self.classifier.model.get_config())
        return write_report(
            folder,
            self.evaluation,
            title=f"{self.data.name} · {model}",
            accuracy_name=self.accuracy_name,
            history=history,
            settings=settings_of(run.config()) if run else {},
            names=relative(self.data.names(self.split)),
            images=lambda indices: self.data.images(self.split, indices),
            looks=lambda images: looks_of(self.classifier, images),
            remark=_checkpoint_remark(history, self.split),
            loss_note=self.loss_note,
        )


def model_name(config: dict[str, object]) -> str:
    """The paper's name of the size, else depth and width, from a model's config."""
    if name := size_name(config):
        return name
    if "hidden_dim" not in config:
        return config["name"]
    return f"ViT of depth {config['num_layers']} and width {config['hidden_dim']}"


def _checkpoint_remark(history, split):
    """A sentence on which checkpoint was evaluated; `""` without a history."""
    accuracies = history.get("val_accuracy")
    if not accuracies:
        return ""
    best = max(range(len(accuracies)), key=accuracies.__getitem__)
    chosen = (
        f"The checkpoint is that of step {history['step'][best]:,.0f} of "
        f"{history['step'][-1]:,.0f}, which has the best validation accuracy"
    )
    if split == "validation":
        return f"{chosen}. Accuracy on images that did not choose it may be a little lower."
    return f"{chosen} ({percent(accuracies[best])})."


def settings_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The report's tables of settings from a run's configuration."""
    data, recipe, model = config["data"], dict(config["recipe"]), config["model"]
    examples = ", ".join(f"{n:,} {split}" for split, n in data["examples"].items())
    return {
        "Data": {**data["arguments"], "images": examples, **config["images"]},
        f"Recipe {recipe.pop('name')}": flatten(recipe),
        "Model": {
            "weights": model["weights"],
            "parameters": f"{model['parameters']:,}",
            **flatten(model["config"]),
        },
        "Machine": {
            "date": config["date"],
            "backend": config["backend"],
            **{name: config["packages"][name] for name in sorted(config["packages"])},
            "machine": config["machine"],
        },
    }


def flatten(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Nested fields by dotted names, without those that are `None`."""
    flat = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": part for key, part in flatten(value).items()}
        elif value is not None:
            flat[name] = value
    return flat


def relative(names: Sequence[str]) -> Sequence[str]:
    """Paths relative to their common folder; other names as they are."""
    if not all(os.sep in name for name in names):
        return names
    folder = os.path.commonpath([os.path.dirname(name) for name in names])
    return [os.path.relpath(name, folder) for name in names]
