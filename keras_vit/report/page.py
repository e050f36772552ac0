"""The report of a training and its result: one HTML page."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit.report import pictures
from keras_vit.report.curves import curve, positions
from keras_vit.report.document import write_document
from keras_vit.report.looks import Look
from keras_vit.report.markup import Markup, facts, join, render, table
from keras_vit.report.mistakes import mistakes
from keras_vit.report.statistics import Evaluation, absent_note
from keras_vit.tables import percent

# Numbers of classes.
_NUMBERED = 20  # up to which the cells of the matrix have numbers
_POINTED = 120  # up to which cells show what they are under the pointer
_LISTED = 40  # listed before the others are folded away
_CONFUSIONS = 15  # most frequent confusions listed


def write_report(
    folder: str | os.PathLike[str],
    evaluation: Evaluation,
    *,
    title: str,
    accuracy_name: str = "accuracy",
    history: Mapping[str, Sequence[float]] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    names: Sequence[str] | None = None,
    images: Callable[[Sequence[int]], Sequence[np.ndarray]] | None = None,
    looks: Callable[[Sequence[np.ndarray]], Sequence[Look] | None] | None = None,
    num_mistakes: int = 24,
    remark: str = "",
    loss_note: str = "",
) -> str:
    """Writes `index.html`, one page without scripts, other files or network.

    Args:
        folder: where to write the page; created if missing.
        evaluation: labels and probabilities of the examples.
        title: title of the page, such as the data set and the model.
        accuracy_name: name of the accuracy, such as `"test accuracy"`.
        history: lists with a number for each epoch, as in
            `keras.callbacks.History.history`, of `loss`, `accuracy`, the same with
            `val_`, `learning_rate`, and `step`, the horizontal axis; each may be missing.
        settings: tables of names and values by their caption.
        names: name of each example, such as its path, in the order of the labels.
        images: returns the images of the examples of given indices, uint8 (height, width,
            channels), to show the most confident mistakes.
        looks: returns, for the images of these mistakes, maps of what the model reads of
            them, or `None` if there are none.
        num_mistakes: number of mistakes to show.
        remark: a sentence below the headline.
        loss_note: how the evaluation's loss differs from `val_loss`, if it does.

    Returns:
        The path of the page.
    """
    sections = [
        ("curves", "Learning curves", _curves(history or {}, loss_note)),
        ("confusion", "Confusion matrix", _confusion(evaluation)),
        ("classes", "Class by class", _classes(evaluation)),
        (
            "mistakes",
            "The most confident mistakes",
            mistakes(evaluation, names, images, looks, num_mistakes),
        ),
        ("settings", "Settings", _settings(settings or {})),
    ]
    headline = _headline(evaluation, accuracy_name, remark)
    return write_document(folder, title, headline, sections)


# The headline.


def _headline(evaluation, accuracy_name, remark) -> Markup:
    low, high = evaluation.interval
    top_5 = evaluation.top_5_accuracy
    figures = [
        (f"{evaluation.num_correct:,} of {evaluation.num_examples:,}", "correct"),
        *([(percent(top_5), "top-5 accuracy")] if top_5 is not None else []),
        (percent(evaluation.balanced_accuracy), "balanced accuracy"),
        (percent(evaluation.macro_f1), "macro F1"),
        (f"{evaluation.loss:.3f}", "mean cross-entropy"),
        (f"{len(evaluation.class_names):,}", "classes"),
    ]
    remarks = (remark, absent_note(evaluation))
    return render(
        "parts/headline",
        accuracy=percent(evaluation.accuracy),
        accuracy_name=accuracy_name,
        bar=_interval_bar(evaluation.accuracy, low, high),
        low=f"{100 * low:.1f}",
        high=f"{100 * high:.1f}",
        figures=join(
            render("parts/figure_of_headline", name=name, value=value)
            for value, name in figures
        ),
        remarks=join(render("parts/remark", text=text) for text in remarks if text),
    )


def _interval_bar(accuracy, low, high) -> Markup:
    """The interval and the accuracy on a bar of 400 units from 0 to 1."""
    low, middle, high = (round(400 * share, 1) for share in (low, accuracy, high))
    width, middle = f"{high - low:.1f}", f"{middle - 1:.1f}"
    return render("parts/interval_bar", low=low, width=width, middle=middle)


# The learning curves.


def _curves(history, loss_note) -> str:
    accuracies = np.nan_to_num(history.get("val_accuracy", []), nan=-1.0)
    best = positions(history)[int(np.argmax(accuracies))] if len(accuracies) else None
    charts = [
        curve(history, "accuracy", "Accuracy", shares=True, marked_x=best),
        curve(history, "loss", "Loss", marked_x=best),
        curve(history, "learning_rate", "Learning rate"),
    ]
    if not any(charts):
        return ""
    marked = "The dotted line marks the best validation accuracy. "
    note = (
        (marked if best else "")
        + "Training accuracy and loss are means since the point before, with augmentation, "
        "dropout and label smoothing if the recipe has them, so they can be worse than "
        "those of validation." + (f" The loss above is {loss_note}." if loss_note else "")
    )
    return render("parts/charts", charts=join(charts), note=note)


# The confusion matrix.


def _confusion(evaluation) -> Markup:
    size = len(evaluation.class_names)
    if size <= _NUMBERED:
        matrix = _matrix_with_numbers(evaluation)
    elif size <= _POINTED:
        matrix = _matrix_of_cells(evaluation)
    else:
        matrix = _matrix_as_picture(evaluation)
    return join([matrix, _frequent_confusions(evaluation)])


def _matrix_with_numbers(evaluation) -> Markup:
    names = evaluation.class_names
    rows = []
    for i, (name, counts) in enumerate(zip(names, evaluation.confusion, strict=True)):
        cells = join(_cell(n, counts.sum(), i == j) for j, n in enumerate(counts))
        rows.append(render("confusion/matrix_row", name=name, cells=cells))
    head = join(render("confusion/column_name", name=name) for name in names)
    return render("confusion/matrix", head=head, rows=join(rows))


def _cell(count, total, is_right) -> Markup:
    if not count:
        return render("confusion/empty_cell")
    # The root makes rare mistakes visible.
    shade = count / total if is_right else (count / total) ** 0.5
    kind = ("right" if is_right else "wrong") + (" strong" if shade > 0.6 else "")
    return render(
        "confusion/cell", kind=kind, share=f"{100 * shade:.0f}", count=f"{count:,}"
    )


def _matrix_of_cells(evaluation) -> Markup:
    names, size = evaluation.class_names, len(evaluation.class_names)
    totals = evaluation.confusion.sum(axis=1)
    cells = []
    for i, j in zip(*np.nonzero(evaluation.confusion), strict=True):
        count = evaluation.confusion[i, j]
        cell = render(
            "confusion/drawn_cell",
            kind="right" if i == j else "wrong",
            x=j,
            y=i,
            opacity=f"{(count / totals[i]) ** 0.5:.2f}",
            text=f"{names[i]} predicted as {names[j]}: {count} of {totals[i]}",
        )
        cells.append(cell)
    drawing = render(
        "confusion/drawing",
        size=size,
        description=_described(evaluation),
        cells=join(cells),
    )
    return render("confusion/map", drawing=drawing, note="Point at a cell to see its name.")


def _matrix_as_picture(evaluation) -> Markup:
    address, per_cell = pictures.heat_map(evaluation.confusion)
    note = f"A cell stands for {per_cell} × {per_cell} classes." if per_cell > 1 else ""
    drawing = render(
        "confusion/picture", address=address, description=_described(evaluation)
    )
    return render("confusion/map", drawing=drawing, note=note)


def _described(evaluation):
    """A description of the matrix for readers who do not see it."""
    return (
        f"Confusion matrix of {len(evaluation.class_names)} classes: "
        f"{percent(evaluation.accuracy)} of the examples lie on the diagonal. The table "
        "below lists the most frequent confusions."
    )


def _frequent_confusions(evaluation) -> Markup:
    confusions = evaluation.confusions(_CONFUSIONS)
    if not confusions:
        return render("parts/note", text="Every example is classified correctly.")
    totals, names = evaluation.confusion.sum(axis=1), evaluation.class_names
    rows = [
        (names[i], names[j], f"{count:,} of {totals[i]:,}", percent(count / totals[i]))
        for i, j, count in confusions
    ]
    return table(
        ("True class", "predicted", "examples", "share of the class"),
        rows,
        caption="The most frequent confusions",
        left=2,
    )


# The classes.


def _classes(evaluation) -> Markup:
    rows = evaluation.by_class()
    known = [row for row in rows if row.examples]
    # Worst first; classes without examples last.
    known.sort(key=lambda row: (row.f1, row.name))
    rows = known + [row for row in rows if not row.examples]
    caption = "Worst first, by F1"
    if len(rows) <= _LISTED:
        return _class_table(rows, caption)
    others = render(
        "parts/folded",
        count=len(rows) - _LISTED,
        content=_class_table(rows[_LISTED:], caption),
    )
    caption = f"The {_LISTED} worst of {len(rows)}, by F1"
    return join([_class_table(rows[:_LISTED], caption), others])


def _class_table(rows, caption) -> Markup:
    header = ("Class", "examples", "recall", "precision", "F1")
    cells = (
        (
            row.name,
            f"{row.examples:,}",
            _meter(row.recall),
            _meter(row.precision),
            _meter(row.f1),
        )
        for row in rows
    )
    return table(header, cells, caption=caption)


def _meter(share) -> Markup:
    width = 0 if share is None else 100 * share
    return render("parts/meter", width=f"{width:.0f}", text=percent(share))


def _settings(settings) -> Markup:
    return join(
        facts(rows.items(), caption=name) for name, rows in settings.items() if rows
    )
