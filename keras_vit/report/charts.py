"""Line charts as SVG with the colours of the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from keras_vit.report.markup import Markup, join, render

_WIDTH, _HEIGHT = 340, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 40
_MARKED = 40  # number of points up to which each has a dot


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: name in the legend.
        style: `"train"`, `"validation"` or `"rate"`, a class of the style sheet.
        x: numbers in rising order.
        y: as many numbers; NaN and infinity are left out.
        is_joined: whether a line joins the points.
    """

    name: str
    style: str
    x: Sequence[float]
    y: Sequence[float]
    is_joined: bool = True

    def points(self) -> list[tuple[float, float]]:
        """The pairs of finite numbers."""
        pairs = zip(self.x, self.y, strict=True)
        return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def line_chart(
    lines: Sequence[Line],
    *,
    description: str,
    x_label: str,
    shares: bool = False,
    marked_x: float | None = None,
) -> str:
    """Draws lines over a common axis; `""` without a point to draw.

    Args:
        lines: the lines.
        description: text for readers who do not see the chart.
        x_label: label of the horizontal axis.
        shares: whether the values are shares of 1, shown in percent.
        marked_x: where to draw a vertical line, or `None`.
    """
    points = [point for line in lines for point in line.points()]
    if not points:
        return ""
    to_x, x_ticks = _axis([x for x, _ in points], _LEFT, _WIDTH - _RIGHT, integers=True)
    values = [y for _, y in points]
    to_y, y_ticks = _axis(values, _HEIGHT - _BOTTOM, _TOP, top=1 if shares else None)
    parts = [_grid(to_x, x_ticks, to_y, y_ticks, x_label, shares)]
    if marked_x is not None:
        ends = {"top": _TOP, "bottom": _HEIGHT - _BOTTOM}
        x = f"{to_x(marked_x):.1f}"
        parts.append(render("chart/vertical", kind="marked", x=x, **ends))
    parts += [_drawn(line, to_x, to_y) for line in lines]
    return render(
        "chart/chart",
        width=_WIDTH,
        height=_HEIGHT,
        description=description,
        parts=join(parts),
    )


def _axis(values, start, end, integers=False, top=None):
    """The function from values to pixels, and the values of the ticks."""
    low, high = min(values), max(values)
    if low == high:
        margin = 0.5 if integers else abs(low) / 10 or 0.5
        low, high = low - margin, high + margin
    elif not integers:
        margin = (high - low) / 20
        # Losses and rates are not negative, shares are at most one.
        low = max(low - margin, 0.0) if low >= 0 else low - margin
        high = min(high + margin, top) if top and high <= top else high + margin
    step = _step(high - low, integers)
    ticks = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return (lambda value: start + (value - low) / (high - low) * (end - start)), ticks


def _step(span, integers):
    """The distance of the ticks: a round number that gives four to eight."""
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= 8)
    return max(1, round(step)) if integers else step


def _grid(to_x, x_ticks, to_y, y_ticks, x_label, shares) -> Markup:
    """The axes, with lines and numbers at the ticks."""
    parts, bottom = [], _HEIGHT - _BOTTOM
    digits = _digits(y_ticks, scale=100 if shares else 1)
    for tick in y_ticks:
        y = to_y(tick)
        text = f"{100 * tick:.{digits}f} %" if shares else _number(tick, digits)
        parts.append(_horizontal("grid", f"{y:.1f}"))
        parts.append(_text("tick", _LEFT - 8, f"{y + 4:.1f}", "end", text))
    for tick in x_ticks:
        x = f"{to_x(tick):.1f}"
        parts.append(_text("tick", x, bottom + 18, "middle", f"{tick:,.0f}"))
    parts.append(_horizontal("axis", bottom))
    middle = f"{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}"
    parts.append(_text("label", middle, _HEIGHT - 4, "middle", x_label))
    return join(parts)


def _horizontal(kind, y) -> Markup:
    ends = {"left": _LEFT, "right": _WIDTH - _RIGHT}
    return render("chart/horizontal", kind=kind, y=y, **ends)


def _text(kind, x, y, anchor, text) -> Markup:
    return render("chart/text", kind=kind, x=x, y=y, anchor=anchor, text=text)


def _digits(ticks, scale):
    """Number of decimals that distinguishes neighbouring ticks."""
    if len(ticks) < 2:
        return 2
    return max(0, -math.floor(math.log10((ticks[1] - ticks[0]) * scale) + 1e-9))


def _number(value, digits):
    if digits > 4:
        return f"{value:.0e}" if value else "0"
    return f"{value:.{digits}f}"


def _drawn(line, to_x, to_y) -> Markup:
    points = [(f"{to_x(x):.1f}", f"{to_y(y):.1f}") for x, y in line.points()]
    path = " ".join(f"{x},{y}" for x, y in points) if line.is_joined else ""
    marks = points if len(points) <= _MARKED or not line.is_joined else points[-1:]
    dots = join(render("chart/dot", x=x, y=y) for x, y in marks)
    return render("chart/line", style=line.style, points=path, dots=dots)
