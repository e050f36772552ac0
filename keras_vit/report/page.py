"""A training and its result as one page."""

import datetime
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_vit._version import __version__
from keras_vit.report import pictures
from keras_vit.report.charts import Line, line_chart
from keras_vit.report.markup import escape, facts, table
from keras_vit.report.statistics import Evaluation, absent_note, percent
from keras_vit.report.style import STYLE

_NUMBERED = 20  # classes, up to which the cells of the matrix have numbers
_POINTED = 120  # up to which they tell what they are when pointed at
_LISTED = 40  # classes listed before the rest is folded away
_CONFUSIONS = 15


def write_report(
    folder: str | os.PathLike,
    evaluation: Evaluation,
    *,
    title: str,
    accuracy_name: str = "accuracy",
    history: Mapping[str, Sequence[float]] | None = None,
    settings: Mapping[str, Mapping] | None = None,
    names: Sequence[str] | None = None,
    images: Callable[[Sequence[int]], Sequence[np.ndarray]] | None = None,
    num_mistakes: int = 24,
    remark: str = "",
    loss_note: str = "",
) -> str:
    """Writes `index.html`, one page with all in it: no script, no other file, no network.

    Args:
        folder: where to write it; made where it is missing.
        evaluation: labels and probabilities of the examples that the page is about.
        title: of the page, such as the data set and the model.
        accuracy_name: of what the accuracy is, such as `"test accuracy"`.
        history: lists of one number an epoch, as in `keras.callbacks.History.history`:
            `loss`, `accuracy`, the same with `val_`, `learning_rate`, and `step`, over
            which they are drawn, each where it is.
        settings: tables of names and values by their caption.
        names: name of each example, such as its path, in the order of the labels.
        images: gives the pictures of the examples of given indices, uint8 (height, width,
            channels), to show the most confident mistakes.
        num_mistakes: int, how many of these to show.
        remark: a sentence for below the headline.
        loss_note: how the evaluation's loss differs from `val_loss`, where it does.

    Returns:
        The path of the page.
    """
    sections = [
        ("curves", "Learning curves", _curves(history or {}, loss_note)),
        ("confusion", "What is taken for what", _confusion(evaluation)),
        ("classes", "Class by class", _classes(evaluation)),
        (
            "mistakes",
            "The most confident mistakes",
            _mistakes(evaluation, names, images, num_mistakes),
        ),
        ("settings", "Settings", _settings(settings or {})),
    ]
    page = _page(title, _headline(evaluation, accuracy_name, remark), sections)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "index.html")
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        file.write(page)
    os.replace(f"{path}.part", path)
    return path


def _page(title, headline, sections):
    sections = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
    body = "".join(
        f'<section id="{name}"><h2>{heading}</h2>{content}</section>'
        for name, heading, content in sections
    )
    date = datetime.datetime.now().astimezone()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<header><h1>{escape(title)}</h1>{headline}</header>
<nav aria-label="Sections">{links}</nav>
{body}
</main>
<footer>Written by keras-vit {__version__},
<time datetime="{date:%Y-%m-%d}">{date:%d %B %Y, %H:%M}</time>.</footer>
</body>
</html>
"""


# The headline.


def _headline(evaluation, accuracy_name, remark):
    low, high = evaluation.interval
    top_5 = evaluation.top_5_accuracy
    figures = [
        (f"{evaluation.num_correct:,} of {evaluation.num_examples:,}", "correct"),
        *([(percent(top_5), "among the five most probable")] if top_5 is not None else []),
        (percent(evaluation.balanced_accuracy), "balanced accuracy"),
        (percent(evaluation.macro_f1), "macro F1"),
        (f"{evaluation.loss:.3f}", "mean cross-entropy"),
        (f"{len(evaluation.class_names):,}", "classes"),
    ]
    others = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for value, name in figures
    )
    remarks = (remark, absent_note(evaluation))
    remark = "".join(f'<p class="remark">{escape(text)}</p>' for text in remarks if text)
    return (
        f'<div class="result"><p class="accuracy"><strong>'
        f"{percent(evaluation.accuracy)}</strong> {escape(accuracy_name)}</p>"
        f"{_interval_bar(evaluation.accuracy, low, high)}"
        f'<p class="interval">95 % interval {100 * low:.1f} to {100 * high:.1f} %</p>'
        f"<dl>{others}</dl></div>{remark}"
    )


def _interval_bar(accuracy, low, high):
    low, middle, high = (f"{400 * share:.1f}" for share in (low, accuracy, high))
    return (
        '<svg class="bar" viewBox="0 0 400 12" aria-hidden="true" '
        'preserveAspectRatio="none">'
        '<rect class="whole" x="0" y="4" width="400" height="4"/>'
        f'<rect class="range" x="{low}" y="2" height="8" '
        f'width="{float(high) - float(low):.1f}"/>'
        f'<rect class="value" x="{float(middle) - 1:.1f}" y="0" width="2" height="12"/>'
        "</svg>"
    )


# The learning curves.


def _curves(history, loss_note):
    accuracies = np.nan_to_num(history.get("val_accuracy", []), nan=-1.0)
    best = _places(history)[int(np.argmax(accuracies))] if len(accuracies) else None
    charts = [
        _curve(history, "accuracy", "Accuracy", shares=True, marked_x=best),
        _curve(history, "loss", "Loss", marked_x=best),
        _curve(history, "learning_rate", "Learning rate"),
    ]
    if not any(charts):
        return ""
    marked = "The dotted line marks the best validation accuracy. "
    note = (
        (marked if best else "")
        + "Training figures are means since the point before, with augmentation, dropout "
        "and label smoothing where there are any, so they can be worse than validation."
        + (f" The loss above is {escape(loss_note)}." if loss_note else "")
    )
    return f'<div class="charts">{"".join(charts)}</div><p class="note">{note}</p>'


def _places(history):
    """Where the points of the curves lie."""
    length = max(map(len, history.values()))
    return history.get("step") or range(1, length + 1)


def _curve(history, metric, title, **options):
    styles = {metric: ("training", "train"), f"val_{metric}": ("validation", "validation")}
    if metric == "learning_rate":
        styles = {metric: ("learning rate", "rate")}
    lines = [
        Line(name, style, _places(history), history[key])
        for key, (name, style) in styles.items()
        if history.get(key)
    ]
    said = "; ".join(
        f"{line.name} from {line.y[0]:.4g} to {line.y[-1]:.4g}" for line in lines
    )
    axis = "step" if "step" in history else "epoch"
    description = f"{title} by {axis}: {said}"
    chart = line_chart(lines, description=description, x_label=axis, **options)
    if not chart:
        return ""
    keys = "".join(f'<span class="key {line.style}">{line.name}</span>' for line in lines)
    legend = keys if len(lines) > 1 else ""
    return f"<figure><figcaption><b>{title}</b>{legend}</figcaption>{chart}</figure>"


# The confusions.


def _confusion(evaluation):
    size = len(evaluation.class_names)
    if size <= _NUMBERED:
        matrix = _matrix_with_numbers(evaluation)
    elif size <= _POINTED:
        matrix = _matrix_of_cells(evaluation)
    else:
        matrix = _matrix_as_picture(evaluation)
    return matrix + _frequent_confusions(evaluation)


def _matrix_with_numbers(evaluation):
    names = [escape(name) for name in evaluation.class_names]
    head = "".join(
        f'<th scope="col" title="{name}"><span>{name}</span></th>' for name in names
    )
    rows = []
    for i, (name, counts) in enumerate(zip(names, evaluation.confusion, strict=True)):
        cells = "".join(_cell(n, counts.sum(), i == j) for j, n in enumerate(counts))
        rows.append(f'<tr><th scope="row" title="{name}"><span>{name}</span></th>{cells}')
    return (
        '<p class="note" id="reading">Rows: the true class. Columns: the predicted class. '
        "The stronger the colour, the larger the share of the row.</p>"
        '<div class="scroll"><table class="matrix" aria-describedby="reading">'
        f'<thead><tr><td class="corner"></td>{head}</tr></thead>'
        f"<tbody>{'</tr>'.join(rows)}</tr></tbody></table></div>"
    )


def _cell(count, total, is_right):
    if not count:
        return '<td class="none">0</td>'
    # The root, for rare mistakes to be seen too.
    shade = count / total if is_right else (count / total) ** 0.5
    kind = ("right" if is_right else "wrong") + (" strong" if shade > 0.6 else "")
    return f'<td class="{kind}" style="--share:{100 * shade:.0f}%">{count:,}</td>'


def _matrix_of_cells(evaluation):
    names, size = evaluation.class_names, len(evaluation.class_names)
    totals = evaluation.confusion.sum(axis=1)
    cells = []
    for i, j in zip(*np.nonzero(evaluation.confusion), strict=True):
        count = evaluation.confusion[i, j]
        told = escape(f"{names[i]} taken for {names[j]}: {count} of {totals[i]}")
        kind, shade = "right" if i == j else "wrong", (count / totals[i]) ** 0.5
        cells.append(
            f'<rect class="{kind}" x="{j}" y="{i}" width="1" height="1" '
            f'opacity="{shade:.2f}"><title>{told}</title></rect>'
        )
    return _map_figure(
        f'<svg viewBox="0 0 {size} {size}" role="img" '
        f'aria-label="{_described(evaluation)}">{"".join(cells)}</svg>',
        "Point at a cell to see what it is.",
    )


def _matrix_as_picture(evaluation):
    address, per_cell = pictures.heat_map(evaluation.confusion)
    note = f"A cell stands for {per_cell} × {per_cell} classes." if per_cell > 1 else ""
    return _map_figure(f'<img src="{address}" alt="{_described(evaluation)}">', note)


def _described(evaluation):
    return (
        f"Confusion matrix of {len(evaluation.class_names)} classes: "
        f"{percent(evaluation.accuracy)} of the examples lie on the diagonal. The table "
        "below lists the most frequent confusions."
    )


def _map_figure(drawing, note):
    return (
        f'<figure class="map"><div class="axes"><span class="y">true class</span>{drawing}'
        '<span class="x">predicted class</span></div><figcaption>'
        '<span class="key right">right</span><span class="key wrong">wrong</span> '
        "The stronger the colour, the larger the share of the row. Classes in the order "
        f"of the data set. {note}</figcaption></figure>"
    )


def _frequent_confusions(evaluation):
    confusions = evaluation.confusions(_CONFUSIONS)
    if not confusions:
        return '<p class="note">No example is taken for another class.</p>'
    totals, names = evaluation.confusion.sum(axis=1), evaluation.class_names
    rows = [
        (
            escape(names[i]),
            escape(names[j]),
            f"{count:,} of {totals[i]:,}",
            percent(count / totals[i]),
        )
        for i, j, count in confusions
    ]
    return table(
        ("True class", "taken for", "examples", "of the class"),
        rows,
        caption="The most frequent confusions",
        left=2,
    )


# The classes.


def _classes(evaluation):
    rows = evaluation.by_class()
    known = [row for row in rows if row.examples]
    # Worst first; those without an example at the end.
    known.sort(key=lambda row: (row.f1, row.name))
    rows = known + [row for row in rows if not row.examples]
    caption = "Worst first, by F1"
    if len(rows) <= _LISTED:
        return _class_table(rows, caption)
    return (
        _class_table(rows[:_LISTED], f"The {_LISTED} worst of {len(rows)}, by F1")
        + f"<details><summary>The other {len(rows) - _LISTED} classes</summary>"
        + _class_table(rows[_LISTED:], caption)
        + "</details>"
    )


def _class_table(rows, caption):
    header = ("Class", "examples", "recall", "precision", "F1")
    cells = (
        (
            escape(row.name),
            f"{row.examples:,}",
            _meter(row.recall),
            _meter(row.precision),
            _meter(row.f1),
        )
        for row in rows
    )
    return table(header, cells, caption=caption)


def _meter(share):
    width = 0 if share is None else 100 * share
    return f'<span class="meter" style="--share:{width:.0f}%">{percent(share)}</span>'


# The mistakes.


def _mistakes(evaluation, names, images, most):
    chosen = evaluation.confident_mistakes(most)
    if images is None or not most:
        return ""
    if not len(chosen):
        return '<p class="note">There is none: every example is recognised.</p>'
    shown = images([int(i) for i in chosen])
    figures = [
        _mistake(evaluation, i, image, names[i] if names is not None else f"example {i}")
        for i, image in zip(chosen, shown, strict=True)
    ]
    wrong = evaluation.num_examples - evaluation.num_correct
    of_all = f"{len(chosen)} of the {wrong:,} mistakes" if wrong > len(chosen) else "All"
    return (
        f'<p class="note">{of_all}, the most confident first. Look here for wrong labels '
        f'as well.</p><div class="mistakes">{"".join(figures)}</div>'
    )


def _mistake(evaluation, i, image, name):
    true, predicted = (
        evaluation.class_names[k] for k in (evaluation.labels[i], evaluation.predictions[i])
    )
    confidence = percent(float(evaluation.probabilities[i].max())).replace(" ", "\xa0")
    described = escape(f"{name}: {true}, taken for {predicted}")
    kind = ' class="pixels"' if max(image.shape[:2]) < 96 else ""
    return (
        f'<figure><img{kind} src="{pictures.photograph(image)}" alt="{described}">'
        f"<figcaption><span>is <b>{escape(true)}</b></span>"
        f'<span class="taken">taken for <b>{escape(predicted)}</b>, {confidence}</span>'
        f'<span class="file">{escape(name)}</span></figcaption></figure>'
    )


def _settings(settings):
    tables = (facts(rows.items(), caption=name) for name, rows in settings.items() if rows)
    return "".join(tables)
