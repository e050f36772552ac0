"""Charts as SVG that takes its colours from the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from keras_vit.report.markup import escape

_WIDTH, _HEIGHT = 340, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 40
_MARKED = 40  # points, up to which each is marked


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: what it shows, for the legend.
        style: `"train"`, `"validation"` or `"rate"`, a class of the style sheet.
        x: numbers in rising order.
        y: as many numbers; those that are not finite are left out.
    """

    name: str
    style: str
    x: Sequence[float]
    y: Sequence[float]

    def points(self):
        """The pairs that can be drawn."""
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
    """Lines over a common axis, or nothing where there is no point to draw.

    Args:
        lines: what is drawn.
        description: what the chart shows, for those who do not see it.
        x_label: of the horizontal axis.
        shares: bool, whether the values are shares of 1, shown in percent.
        marked_x: where a vertical line stands, or `None`.
    """
    points = [point for line in lines for point in line.points()]
    if not points:
        return ""
    to_x, x_ticks = _axis([x for x, _ in points], _LEFT, _WIDTH - _RIGHT, integers=True)
    values = [y for _, y in points]
    to_y, y_ticks = _axis(values, _HEIGHT - _BOTTOM, _TOP, top=1 if shares else None)
    parts = [_grid(to_x, x_ticks, to_y, y_ticks, x_label, shares)]
    if marked_x is not None:
        x = f"{to_x(marked_x):.1f}"
        parts.append(
            f'<line class="marked" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
        )
    parts += [_drawn(line, to_x, to_y) for line in lines]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(description)}">{"".join(parts)}</svg>'
    )


def _axis(values, start, end, integers=False, top=None):
    """The function from values to pixels, and the values to write at the axis."""
    low, high = min(values), max(values)
    if low == high:
        margin = 0.5 if integers else abs(low) / 10 or 0.5
        low, high = low - margin, high + margin
    elif not integers:
        margin = (high - low) / 20
        # Losses and rates are never negative, shares never above one.
        low = max(low - margin, 0.0) if low >= 0 else low - margin
        high = min(high + margin, top) if top and high <= top else high + margin
    step = _step(high - low, integers)
    ticks = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return (lambda value: start + (value - low) / (high - low) * (end - start)), ticks


def _step(span, integers):
    """The round distance that makes four to eight ticks."""
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= 8)
    return max(1, round(step)) if integers else step


def _grid(to_x, x_ticks, to_y, y_ticks, x_label, shares):
    parts, bottom = [], _HEIGHT - _BOTTOM
    digits = _digits(y_ticks, scale=100 if shares else 1)
    for tick in y_ticks:
        y = to_y(tick)
        text = f"{100 * tick:.{digits}f} %" if shares else _number(tick, digits)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        )
    for tick in x_ticks:
        parts.append(
            f'<text x="{to_x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">'
            f"{tick:,.0f}</text>"
        )
    parts.append(
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" '
        f'y2="{bottom}"/>'
        f'<text class="label" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 4}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
    )
    return "".join(parts)


def _digits(ticks, scale):
    """Decimals that tell neighbouring ticks apart."""
    if len(ticks) < 2:
        return 2
    return max(0, -math.floor(math.log10((ticks[1] - ticks[0]) * scale) + 1e-9))


def _number(value, digits):
    if digits > 4:
        return f"{value:.0e}" if value else "0"
    return f"{value:.{digits}f}"


def _drawn(line, to_x, to_y):
    points = [(f"{to_x(x):.1f}", f"{to_y(y):.1f}") for x, y in line.points()]
    path = " ".join(f"{x},{y}" for x, y in points)
    marks = points if len(points) <= _MARKED else points[-1:]
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.6"/>' for x, y in marks)
    return f'<g class="{line.style}"><polyline points="{path}"/>{dots}</g>'
