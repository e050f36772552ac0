"""Bar charts of accuracies as SVG with the colours of the page's style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass

from keras_vit.report.markup import Markup, join, render
from keras_vit.tables import percent

_WIDTH, _LEFT, _RIGHT = 460, 156, 400  # bars lie between left and right
_ROW, _BAR, _AXIS = 21, 13, 20  # heights of a row, of its bar and of the axis
_TICKS = (0, 0.25, 0.5, 0.75, 1)


@dataclass(frozen=True)
class Bar:
    """A bar of a chart.

    Args:
        name: text to the left.
        share: length of the bar, from 0 to 1; it is the text to the right.
        low: lower end of the interval of the share.
        high: upper end.
    """

    name: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class BarGroup:
    """Bars under a heading.

    Args:
        heading: text above the bars.
        bars: the bars, from top to bottom.
        mean: share at which a dotted line crosses the bars; `None` for no line.
    """

    heading: str
    bars: Sequence[Bar]
    mean: float | None = None


def bar_chart(groups: Sequence[BarGroup], description: str) -> str:
    """Draws groups of horizontal bars with intervals; `""` without a bar.

    Args:
        groups: the groups; those without bars are left out.
        description: text for readers who do not see the chart.
    """
    groups = [group for group in groups if group.bars]
    if not groups:
        return ""
    parts, top = [], 0
    for group in groups:
        parts.append(_text("group", 0, top + 15, "start", group.heading))
        top += _ROW
        bottom = top + _ROW * len(group.bars)
        parts += [_vertical("grid", tick, top, bottom) for tick in _TICKS]
        parts += [_bar(bar, top + i * _ROW) for i, bar in enumerate(group.bars)]
        if group.mean is not None:
            parts.append(_vertical("marked", group.mean, top, bottom))
        top = bottom + _ROW // 3
    for tick in _TICKS:
        text = f"{100 * tick:.0f} %"
        parts.append(_text("tick", f"{_x(tick):.1f}", top + 10, "middle", text))
    return render(
        "chart/chart",
        width=_WIDTH,
        height=top + _AXIS,
        description=description,
        parts=join(parts),
    )


def _x(share):
    return _LEFT + share * (_RIGHT - _LEFT)


def _vertical(kind, share, top, bottom) -> Markup:
    x = f"{_x(share):.1f}"
    return render("chart/vertical", kind=kind, x=x, top=top, bottom=bottom)


def _bar(bar, top) -> Markup:
    middle = top + _ROW / 2
    return render(
        "chart/bar",
        name=_text("name", _LEFT - 8, f"{middle + 4:.1f}", "end", bar.name),
        left=_LEFT,
        top=f"{middle - _BAR / 2:.1f}",
        width=f"{_x(bar.share) - _LEFT:.1f}",
        height=_BAR,
        low=f"{_x(bar.low):.1f}",
        high=f"{_x(bar.high):.1f}",
        middle=f"{middle:.1f}",
        text=_text("tick", _RIGHT + 8, f"{middle + 4:.1f}", "start", percent(bar.share)),
    )


def _text(kind, x, y, anchor, text) -> Markup:
    return render("chart/text", kind=kind, x=x, y=y, anchor=anchor, text=text)
