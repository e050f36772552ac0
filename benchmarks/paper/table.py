"""The table in Markdown, and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.paper.cells import Cell, mean_and_deviation

# Below its cell a table shows what is missing, by number.
NOTHING = "–"


def measured(cell: Cell) -> str:
    """Accuracy with its standard deviation in percent; `""` if none was measured."""
    accuracies = cell.accuracies()
    if not accuracies:
        return ""
    mean, deviation = mean_and_deviation(accuracies)
    spread = "" if deviation is None else f" ± {deviation:.2f}"
    left = len(cell.seeds) - len(accuracies)
    return f"{mean:.2f}{spread}" + (f" ({left} of {len(cell.seeds)} to run)" * (left > 0))


def text(cell: Cell, note: str) -> str:
    """The accuracy that was measured, and the published one with the difference."""
    ours = measured(cell)
    if cell.published is None:
        return ours or note or NOTHING
    published = f"{cell.published:.2f}"
    if not ours:
        return f"{note or NOTHING} [{published}]"
    difference = mean_and_deviation(cell.accuracies())[0] - cell.published
    return f"{ours} [{published}, {difference:+.2f}]"


def markdown(rows: Sequence[Sequence[Cell]]) -> str:
    """The table, and the list of what is missing.

    Args:
        rows: the cells of each model, in the same columns.
    """
    titles = ["Model", "Pre-trained on", *(cell.column.title for cell in rows[0])]
    titles.append("TPUv3-core-days")
    lines = [titles, ["---"] * len(titles)]
    notes: dict[str, int] = {}
    for cells in rows:
        model = cells[0].model
        days = NOTHING if model.core_days is None else f"{model.core_days:,.0f}"
        line = [model.name, model.data]
        for cell in cells:
            reason = "" if measured(cell) else cell.missing() or "not run yet"
            number = notes.setdefault(reason, len(notes) + 1) if reason else 0
            line.append(text(cell, f"({number})" if reason else ""))
        lines.append([*line, days])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    below = "\n".join(f"({number}) {reason}" for reason, number in notes.items())
    head = "Accuracy in percent: measured ± standard deviation [published, difference]."
    return f"{head}\n\n{table}\n\n{below}".rstrip() + "\n"


def as_json(rows: Sequence[Sequence[Cell]]) -> list[Mapping[str, Any]]:
    """The same numbers, a dictionary for each cell."""
    return [
        {
            "model": cell.model.name,
            "pre_trained_on": cell.model.data,
            "preset": cell.model.preset,
            "data": cell.column.name,
            "accuracies": cell.accuracies(),
            "published": cell.published,
            "core_days": cell.model.core_days,
            "missing": "" if cell.accuracies() else cell.missing(),
        }
        for cells in rows
        for cell in cells
    ]
