"""Accuracy against compute, and few-shot accuracy against the size of pre-training."""

import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.cells import Cell, mean_and_deviation
from benchmarks.paper.few_shot import FewShotPoint

OURS, PAPERS = "measured here", "published"


COLUMNS = 4  # of panels; the last panel of all holds the legend


def accuracy_against_compute(rows: Sequence[Sequence[Cell]], path: str | os.PathLike[str]):
    """Draws accuracy against the compute of pre-training, a panel for each data set.

    Hollow marks are published, filled ones were measured here.

    Args:
        rows: the cells of each model, in the same columns.
        path: path of the picture.
    """
    plt = _pyplot()
    columns = [cell.column for cell in rows[0]]
    lines = -(-(len(columns) + 1) // COLUMNS)
    figure, grid = plt.subplots(
        lines, COLUMNS, figsize=(12, 3 * lines), layout="constrained", squeeze=False
    )
    for unused in grid.flat[len(columns) :]:
        unused.axis("off")
    for index, panel in enumerate(grid.flat[: len(columns)]):
        for number, cells in enumerate(rows):
            cell, color = cells[index], f"C{number}"
            if cell.model.core_days is None:
                continue
            days = cell.model.core_days
            if cell.published is not None:
                panel.plot(days, cell.published, "o", mfc="none", color=color)
            if accuracies := cell.accuracies():
                mean, deviation = mean_and_deviation(accuracies)
                panel.errorbar(days, mean, deviation or 0, fmt="o", color=color)
        panel.set_xscale("log")
        panel.set_title(columns[index].title, fontsize="medium")
        panel.grid(alpha=0.3)
    figure.supxlabel("TPUv3-core-days of pre-training", fontsize="medium")
    figure.supylabel("accuracy, %", fontsize="medium")
    names = [
        plt.Line2D([], [], marker="o", ls="", color=f"C{number}", label=_name(cells))
        for number, cells in enumerate(rows)
        if cells[0].model.core_days is not None
    ]
    marks = [
        plt.Line2D([], [], marker="o", ls="", color="grey", mfc="none", label=PAPERS),
        plt.Line2D([], [], marker="o", ls="", color="grey", label=OURS),
    ]
    grid.flat[-1].legend(handles=[*names, *marks], loc="center", fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _name(cells):
    model = cells[0].model
    return f"{model.name},\n{model.data}"


def few_shot_against_examples(points: Sequence[FewShotPoint], path: str | os.PathLike[str]):
    """Draws few-shot accuracy against the number of pre-training images.

    Args:
        points: those that were measured.
        path: path of the picture.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for name in dict.fromkeys(point.model.name for point in points):
        line = sorted(
            (point.model.num_examples, 100 * point.accuracy, point.half_width)
            for point in points
            if point.model.name == name
        )
        sizes, accuracies, widths = zip(*line, strict=True)
        axes.errorbar(sizes, accuracies, [100 * w for w in widths], fmt="o-", label=name)
    axes.set_xscale("log")
    data = {point.model.num_examples: point.model.data for point in points}
    texts = [f"{name}\n{count / 1e6:.1f} million" for count, name in data.items()]
    axes.set_xticks(list(data), texts)
    axes.minorticks_off()
    axes.set_xlabel("images of pre-training")
    axes.set_ylabel(f"{points[0].shots}-shot accuracy on ImageNet, %")
    axes.grid(alpha=0.3)
    axes.legend(title=f"{OURS}, 95 % interval")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def write_charts(
    rows: Sequence[Sequence[Cell]], points: Sequence[FewShotPoint], folder: Path
) -> list[Path]:
    """Draws both charts into a folder; returns the paths of those that have a point."""
    compute, examples = folder / "compute.png", folder / "few_shot.png"
    accuracy_against_compute(rows, compute)
    if not points:
        return [compute]
    few_shot_against_examples(points, examples)
    return [compute, examples]
