"""Learning curves of a history: a chart for each metric."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_vit.report.charts import Line, line_chart
from keras_vit.report.markup import join, render

History = Mapping[str, Sequence[float]]  # a number for each epoch by the metric's name


def positions(history: History) -> Sequence[float]:
    """The horizontal positions of the points: steps, or else epochs."""
    length = max(map(len, history.values()))
    return history.get("step") or range(1, length + 1)


def curve(history: History, metric: str, title: str, **options: Any) -> str:
    """A chart of a metric of training and of validation; `""` without any.

    Args:
        history: lists of numbers by name, see `report.write_report`.
        metric: name of the metric, without `val_`.
        title: title of the chart.
        **options: arguments of `line_chart`.
    """
    styles = {metric: ("training", "train"), f"val_{metric}": ("validation", "validation")}
    if metric == "learning_rate":
        styles = {metric: ("learning rate", "rate")}
    lines = [
        Line(name, style, positions(history), history[key])
        for key, (name, style) in styles.items()
        if history.get(key)
    ]
    values = "; ".join(
        f"{line.name} from {line.y[0]:.4g} to {line.y[-1]:.4g}" for line in lines
    )
    axis = "step" if "step" in history else "epoch"
    description = f"{title} by {axis}: {values}"
    chart = line_chart(lines, description=description, x_label=axis, **options)
    if not chart:
        return ""
    keys = [render("parts/legend_key", style=line.style, name=line.name) for line in lines]
    legend = join(keys) if len(lines) > 1 else ""
    return render("parts/chart_figure", title=title, legend=legend, chart=chart)
