"""Figures in the colours of the report, light and dark."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# As in the style sheet of the report.
LIGHT = {"paper": "#fbfbf9", "ink": "#1d2125", "soft": "#5b636b", "rule": "#dcdedb"}
LIGHT |= {"right": "#0072b2", "wrong": "#d55e00"}
DARK = {"paper": "#14171a", "ink": "#e4e6e3", "soft": "#9ba3aa", "rule": "#30363b"}
DARK |= {"right": "#56b4e9", "wrong": "#f0a35e"}


def colors_of(dark: bool) -> dict[str, str]:
    """The colours by name, of a light or a dark background."""
    return DARK if dark else LIGHT


def sheet_of(tiles: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """Puts tiles side by side, row by row, with transparent gaps.

    Args:
        tiles: float array (number, height, width, channels).
        columns: int, number of tiles in a row.
        gap: int, width of the gaps, in pixels of the tiles.

    Returns:
        An array (height, width, 4) of three channels and their opacity; or (height, width)
        of tiles with one channel, NaN in the gaps.
    """
    number, height, width, channels = tiles.shape
    rows = math.ceil(number / columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap)
    sheet = np.zeros((*shape, 4)) if channels == 3 else np.full((*shape, 1), np.nan)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        place = sheet[top : top + height, left : left + width]
        place[..., :channels] = tile
        place[..., channels:] = 1
    return sheet if channels == 3 else sheet[..., 0]


def size_of(sheet: np.ndarray, width: float) -> tuple[float, float]:
    """(width, height) in inches of a figure of a sheet, of which the width is given."""
    return width, width * sheet.shape[0] / sheet.shape[1]


def empty_figure(size: tuple[float, float], title: str | None, dark: bool) -> Figure:
    """A figure of a size (width, height) in inches, with a title or without."""
    # Not by pyplot, which would keep the figure and choose a window.
    module = require("matplotlib.figure", "A plot", "plot")
    colors = colors_of(dark)
    figure = module.Figure(figsize=size, layout="constrained", facecolor=colors["paper"])
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=colors["ink"])
    return figure


def figure_with_axes(
    size: tuple[float, float], title: str | None, dark: bool
) -> tuple[Figure, Axes]:
    """`empty_figure` with one pair of axes, whose lines and texts are soft."""
    colors = colors_of(dark)
    figure = empty_figure(size, title, dark)
    axes = figure.subplots()
    axes.set_facecolor(colors["paper"])
    axes.tick_params(colors=colors["soft"], labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=colors["soft"], fontsize=10)
    axes.spines["bottom"].set_color(colors["soft"])
    return figure, axes


def color_bar(figure: Figure, axes: Axes, shown: Any, label: str, dark: bool) -> None:
    """Adds the scale of a picture's colours."""
    colors = colors_of(dark)
    bar = figure.colorbar(shown, ax=axes, shrink=0.9, aspect=30, pad=0.02)
    bar.set_label(label, color=colors["soft"], fontsize=10)
    bar.ax.tick_params(colors=colors["soft"], labelsize=9, length=0)
    bar.outline.set_visible(False)
