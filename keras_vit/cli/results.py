"""What `finetune` and `evaluate` have in common: a result, printed and as a page."""

import os

from keras_vit.data import ImageData
from keras_vit.models.sizes import size_name
from keras_vit.report import Evaluation, write_report
from keras_vit.report.statistics import absent_note, accuracy_text, percent
from keras_vit.runs import Classifier

UNSEEN = "unseen"  # images that a training was not trained on, as a split


def print_result(evaluation: Evaluation, name: str, loss_note: str = "") -> None:
    """Prints the accuracy under a name, with its interval, and what else there is."""
    print(f"{name} {accuracy_text(evaluation)}")
    print(
        f"balanced accuracy {percent(evaluation.balanced_accuracy)}, "
        f"macro F1 {percent(evaluation.macro_f1)}"
    )
    top_5 = evaluation.top_5_accuracy
    more = "" if top_5 is None else f"top-5 accuracy {percent(top_5)}, "
    note = f" ({loss_note})" if loss_note else ""
    print(f"{more}loss {evaluation.loss:.4f}{note}")
    if note := absent_note(evaluation):
        print(note)


def loss_note(classifier: Classifier) -> str:
    """Sentence on how an evaluation's loss differs from `val_loss`, or nothing."""
    recipe = classifier.run.config()["recipe"] if classifier.run else {}
    parts = []
    if recipe.get("loss") == "sigmoid":
        parts.append("is the binary cross-entropy summed over the classes")
    if smoothing := recipe.get("label_smoothing"):
        parts.append(f"includes a label smoothing of {smoothing:g}")
    if not parts:
        return ""
    return f"cross-entropy; val_loss {' and '.join(parts)}"


def result_of(classifier: Classifier, evaluation: Evaluation, split: str) -> dict:
    """The numbers of an evaluation, for JSON."""
    note = loss_note(classifier)
    return {
        "split": split,
        **evaluation.summary(),
        **({"loss_note": note} if note else {}),
    }


def accuracy_name(data: ImageData, split: str) -> str:
    """Label of the accuracy: the split, or the images that are scored."""
    if split == UNSEEN:
        return "accuracy on images not trained on"
    if set(data.splits) == {"train"}:
        return "accuracy on all images"
    return f"{split} accuracy"


def write_report_of(
    classifier: Classifier,
    evaluation: Evaluation,
    data: ImageData,
    split: str,
    folder: str | os.PathLike,
) -> str:
    """Writes the page of an evaluation; of a training with all that its folder tells."""
    run = classifier.run
    config = run.config() if run else {}
    history = run.history() if run else {}
    model = model_name(classifier.model.get_config())
    return write_report(
        folder,
        evaluation,
        title=f"{data.name} · {model}",
        accuracy_name=accuracy_name(data, split),
        history=history,
        settings=_settings(config),
        names=_relative(data.names(split)),
        images=lambda indices: data.images(split, indices),
        remark=_remark(history, split),
        loss_note=loss_note(classifier),
    )


def model_name(config: dict) -> str:
    """The paper's name of the size, else its numbers."""
    if name := size_name(config):
        return name
    if "hidden_dim" not in config:
        return config["name"]
    return f"ViT of depth {config['num_layers']} and width {config['hidden_dim']}"


def listed(names, most: int) -> str:
    """Names with commas, the first of them where there are many."""
    more = ", …" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _remark(history, split):
    accuracies = history.get("val_accuracy")
    if not accuracies:
        return ""
    best = max(range(len(accuracies)), key=accuracies.__getitem__)
    chosen = (
        f"The checkpoint is that of step {history['step'][best]:,.0f} of "
        f"{history['step'][-1]:,.0f}, which has the best validation accuracy"
    )
    if split == "validation":
        return f"{chosen}; on images that it was not chosen by it may be a little lower."
    return f"{chosen} ({percent(accuracies[best])})."


def _settings(config):
    if not config:
        return {}
    data, recipe, model = config["data"], dict(config["recipe"]), config["model"]
    examples = ", ".join(f"{n:,} {split}" for split, n in data["examples"].items())
    return {
        "Data": {**data["arguments"], "images": examples, **config["images"]},
        f"Recipe {recipe.pop('name')}": _flat(recipe),
        "Model": {
            "weights": model["weights"],
            "parameters": f"{model['parameters']:,}",
            **_flat(model["config"]),
        },
        "Machine": {
            "date": config["date"],
            "backend": config["backend"],
            **{name: config["packages"][name] for name in sorted(config["packages"])},
            "machine": config["machine"],
        },
    }


def _flat(fields):
    """Fields of fields with their full names; without those that are not set."""
    flat = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": part for key, part in _flat(value).items()}
        elif value is not None:
            flat[name] = value
    return flat


def _relative(names):
    """Paths of files without the folder that they have in common."""
    if not all(os.sep in name for name in names):
        return names
    folder = os.path.commonpath([os.path.dirname(name) for name in names])
    return [os.path.relpath(name, folder) for name in names]
