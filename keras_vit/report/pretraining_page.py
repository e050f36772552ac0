"""The report of a pre-training without labels: one HTML page."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vit.report import pictures
from keras_vit.report.curves import History, curve, positions
from keras_vit.report.document import write_document
from keras_vit.report.looks import Look, look_tiles
from keras_vit.report.markup import Markup, facts, join, render


@dataclass(frozen=True, eq=False)
class PictureRows:
    """Pictures of some images.

    Attributes:
        heading: heading of the section.
        note: sentences on what they show.
        columns: captions of the pictures of an image.
        rows: for each image its name and its pictures, uint8 (height, width, channels).
    """

    heading: str
    note: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[np.ndarray]]]


@dataclass(frozen=True)
class Curve:
    """A chart of the learning curves.

    Attributes:
        metric: name of the metric in the history, without `val_`.
        title: title of the chart.
        shares: whether its values are shares of 1.
    """

    metric: str
    title: str
    shares: bool = False


def write_pretraining_page(
    folder: str | os.PathLike[str],
    *,
    title: str,
    result: tuple[str, str],
    figures: Mapping[str, str],
    remarks: Sequence[str],
    history: History,
    curves: Sequence[Curve],
    best: int,
    note: str,
    examples: Sequence[PictureRows],
    looks: tuple[str, Sequence[tuple[str, Look]]],
    settings: Mapping[str, Mapping[str, Any]],
) -> str:
    """Writes `index.html`, one page without scripts, other files or network.

    Args:
        folder: where to write the page; created if missing.
        title: title of the page.
        result: the headline's number as text, and its name.
        figures: further numbers by their names.
        remarks: sentences below the headline.
        history: see `write_report`.
        curves: the charts.
        best: index of the evaluation whose checkpoint was kept.
        note: a note below the charts.
        examples: sections of pictures.
        looks: a note, and the name of each image with maps of what the encoder reads.
        settings: tables of names and values by their caption.

    Returns:
        The path of the page.
    """
    value, name = result
    headline = render(
        "parts/mean",
        accuracy=value,
        accuracy_name=name,
        figures=join(
            render("parts/figure_of_headline", name=name, value=value)
            for name, value in figures.items()
        ),
        remarks=join(render("parts/remark", text=text) for text in remarks),
    )
    sections = [("curves", "Learning curves", _curves(history, curves, best, note))]
    sections += [
        (f"examples-{i}", example.heading, _pictures(example))
        for i, example in enumerate(examples)
    ]
    sections.append(("attention", "Where it looks", _looks(*looks)))
    tables = join(facts(rows.items(), caption=name) for name, rows in settings.items())
    sections.append(("settings", "Settings", tables))
    return write_document(folder, title, headline, sections)


def _curves(history, curves, best, note) -> str:
    if not history:
        return ""
    marked = positions(history)[best]
    charts = [
        curve(history, one.metric, one.title, shares=one.shares, marked_x=marked)
        for one in curves
    ]
    if not any(charts):
        return ""
    return render("parts/charts", charts=join(charts), note=note)


def _pictures(example) -> Markup | str:
    if not example.rows:
        return ""
    rows = [
        render("examples/row", name=name, pictures=_strip(name, shown, example.columns))
        for name, shown in example.rows
    ]
    columns = len(example.columns)
    return render("examples/rows", note=example.note, columns=columns, rows=join(rows))


def _looks(note, looks) -> Markup:
    rows = [
        render("examples/looks", name=name, panels=look_tiles(look, f"look-{number}", name))
        for number, (name, look) in enumerate(looks)
    ]
    return render("examples/rows", note=note, columns=3, rows=join(rows))


def _strip(name, shown, columns) -> Markup:
    return join(
        render(
            "examples/picture",
            kind=pictures.kind(image),
            address=pictures.photograph(image),
            description=f"{name}: {caption}",
            caption=caption,
        )
        for image, caption in zip(shown, columns, strict=True)
    )
