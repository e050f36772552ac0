"""The report of a pre-training: numbers, curves, and pictures of held-out images."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_vit.analysis import attention_summary
from keras_vit.data import ImageData
from keras_vit.pretraining.pictures import displayed
from keras_vit.report.looks import Look, explain_maps
from keras_vit.report.pretraining_page import Curve, PictureRows, write_pretraining_page
from keras_vit.runs.folder import OBJECTIVE, REPORT, RunFolder
from keras_vit.runs.looks import as_looks
from keras_vit.runs.neighbor_accuracy import NEIGHBORS
from keras_vit.runs.objectives import Objective
from keras_vit.runs.results import flatten, model_name, relative, settings_of
from keras_vit.tables import percent

NUM_IMAGES = 8


def write_pretraining_report(
    run: RunFolder, data: ImageData, objective: Objective, summary: Mapping[str, Any]
) -> str:
    """Writes the report of a finished pre-training.

    Args:
        run: the folder of the training.
        data: the images, prepared for the encoder.
        objective: the objective.
        summary: the content of `results.json`.

    Returns:
        The path of the page.
    """
    model = keras.models.load_model(run.file(OBJECTIVE), compile=False)
    encoder, config = model.kept_encoder, run.config()
    names, images = _held_out(data)
    history = run.history()
    result, figures, remarks = _headline(summary, objective)
    return write_pretraining_page(
        run.file(REPORT),
        title=f"{data.name} · {model_name(encoder.get_config())} · {objective.title}",
        result=result,
        figures=figures,
        remarks=remarks,
        history=history,
        curves=_curves(objective),
        best=list(map(int, history["step"])).index(summary["step"]),
        note=_note(data),
        examples=_learned(model, objective, names, images),
        looks=_attention(encoder, names, images),
        settings=_settings(config),
    )


def _held_out(data) -> tuple[list[str], np.ndarray]:
    """Names and prepared images of a few validation images."""
    source = data.splits["validation"]
    chosen = np.unique(np.linspace(0, len(source) - 1, NUM_IMAGES).astype(int))
    names = [relative(data.names("validation"))[i] for i in chosen]
    few = replace(data, splits={"validation": source.take(chosen)})
    batches = [np.asarray(images) for images, *_ in few.evaluation("validation", False)]
    return names, np.concatenate(batches)


def _headline(summary, objective):
    """The headline's number with its name, further numbers, and remarks."""
    figures = {"validation loss": f"{summary['loss']:.4g}"}
    if "accuracy" in summary:
        figures["of the colours predicted"] = percent(summary["accuracy"])
    if "baseline_accuracy" in summary:
        figures["by the most frequent colour"] = percent(summary["baseline_accuracy"])
    figures["steps"] = f"{summary['steps']:,}"
    checkpoint = (
        f"The checkpoint is that of step {summary['step']:,} of {summary['steps']:,}"
    )
    best = f", which has the best {objective.monitor}"
    remarks = [f"{checkpoint}{'' if objective.monitor == 'step' else best}."]
    if "knn_accuracy" not in summary:
        return (figures.pop("validation loss"), "validation loss"), figures, remarks
    if (before := summary["knn_accuracy_before"]) is not None:
        figures = {"before the first step": percent(before), **figures}
    remarks.append(
        f"The accuracy is that of a vote of the {NEIGHBORS} most similar training images. "
        "Labels serve for it alone; the encoder has not seen them."
    )
    name = "nearest-neighbour accuracy"
    return (percent(summary["knn_accuracy"]), name), figures, remarks


def _curves(objective) -> list[Curve]:
    curves = [
        Curve(metric, title, shares="accuracy" in metric)
        for metric, title in objective.curves.items()
    ]
    curves.append(Curve("knn_accuracy", "Nearest-neighbour accuracy", shares=True))
    curves.append(Curve("learning_rate", "Learning rate"))
    return curves


def _note(data) -> str:
    note = (
        "The dotted line marks the checkpoint that was kept. Values of training are means "
        "since the point before, with augmentation."
    )
    if data.class_names:
        note += (
            " The nearest-neighbour accuracy is of at most 1,000 validation images among "
            "at most 2,000 training images."
        )
    return note


def _learned(model, objective, names, images) -> list[PictureRows]:
    if objective.pictures is None:
        return []
    found = objective.pictures(model, images)
    rows = list(zip(names, found.rows, strict=True))
    return [PictureRows("What it has learned", found.note, found.columns, rows)]


def _attention(encoder, names, images) -> tuple[str, list[tuple[str, Look]]]:
    """A note, and each image with maps of what the encoder reads of it."""
    found = attention_summary(encoder, images)
    looks = as_looks(found, displayed(encoder, images))
    note = f"The same images. {explain_maps(looks[0])}"
    return note, list(zip(names, looks, strict=True))


def _settings(config) -> dict[str, dict[str, Any]]:
    own = flatten(config["objective"])
    tables = settings_of(config)
    name = own.pop("name")
    return {**tables, f"Objective {name}": own}
