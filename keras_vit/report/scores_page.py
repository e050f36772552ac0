"""The report of accuracies on several tasks: one HTML page."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from keras_vit.report.bars import BarGroup, bar_chart
from keras_vit.report.document import write_document
from keras_vit.report.markup import Markup, facts, join, render, table


def write_scores_report(
    folder: str | os.PathLike[str],
    groups: Sequence[BarGroup],
    *,
    title: str,
    mean: str,
    mean_name: str,
    means: Mapping[str, str],
    rows: Sequence[Sequence[str]],
    remarks: Sequence[str] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Writes `index.html`, one page without scripts, other files or network.

    Args:
        folder: where to write the page; created if missing.
        groups: the tasks' accuracies.
        title: title of the page.
        mean: the mean of all tasks, as text.
        mean_name: name of it.
        means: the mean of each group, as text, by the group's name.
        rows: the table of the tasks; its first row is the header.
        remarks: sentences below the headline, such as on tasks without an accuracy.
        settings: tables of names and values by their caption.

    Returns:
        The path of the page.
    """
    figures = join(
        render("parts/figure_of_headline", name=name, value=value)
        for name, value in means.items()
    )
    headline = render(
        "parts/mean",
        accuracy=mean,
        accuracy_name=mean_name,
        figures=figures,
        remarks=join(render("parts/remark", text=text) for text in remarks),
    )
    header, *body = rows
    known = (settings or {}).items()
    sections = [
        ("tasks", "Task by task", _chart(groups)),
        ("numbers", "Numbers", table(header, body, caption="Test examples", left=2)),
        ("settings", "Settings", join(facts(f.items(), caption=n) for n, f in known)),
    ]
    return write_document(folder, title, headline, sections)


def _chart(groups) -> Markup | str:
    shares = ", ".join(
        f"{bar.name} {100 * bar.share:.1f} %" for group in groups for bar in group.bars
    )
    chart = bar_chart(groups, f"Accuracy on each task: {shares}")
    if not chart:
        return ""
    note = "Thin lines are 95 % intervals; a dotted line is the mean of a group."
    return render("parts/scores", chart=chart, note=note)
