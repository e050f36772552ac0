"""Plots of what `keras_vit.analysis` computes, in the colours of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.analysis.canvas import (
    color_bar,
    colors_of,
    empty_figure,
    figure_with_axes,
    sheet_of,
    size_of,
)
from keras_vit.resize import resize_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_filters(
    filters: np.ndarray, *, title: str | None = None, dark: bool = False
) -> Figure:
    """Draws the filters of a patch embedding side by side.

    Source: ViT (arXiv 2010.11929), figure 7 (left). Each filter is shown on its own scale,
    zero as grey.

    Args:
        filters: array (components, height, width, channels) of one or three channels, as
            of `embedding_filters`.
        title: text above the plot, or `None`.
        dark: bool, whether the background is dark.

    Returns:
        A matplotlib figure: `figure.savefig("filters.png")`.

    Raises:
        ValueError: if there are other channels, as in a hybrid.
        ImportError: if matplotlib is not installed.
    """
    number, _, width, channels = np.shape(filters)
    if channels not in (1, 3):
        raise ValueError(
            "Filters are drawn if they have one or three channels. Received: filters of "
            f"shape {np.shape(filters)}. Those of a hybrid are of the ResNet's features."
        )
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    shades = 0.5 + 0.5 * filters / np.where(largest > 0, largest, 1)
    columns = min(number, math.ceil(math.sqrt(1.75 * number)))
    sheet = sheet_of(shades, columns, gap=max(1, round(width / 8)))
    figure, axes = figure_with_axes(size_of(sheet, 6.4), title, dark)
    cmap = "gray" if channels == 1 else None
    axes.imshow(sheet, interpolation="nearest", cmap=cmap, vmin=0, vmax=1)
    axes.set_axis_off()
    return figure


def plot_positions(
    similarity: np.ndarray, *, title: str | None = None, dark: bool = False
) -> Figure:
    """Draws, for the position of each patch, how similar all positions are to it.

    Source: ViT (arXiv 2010.11929), figure 7 (middle).

    Args:
        similarity: array (rows, columns, rows, columns), as of `position_similarity`.
        title: text above the plot, or `None`.
        dark: bool, whether the background is dark.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    rows, columns = similarity.shape[:2]
    gap = max(1, round(columns / 7))
    tiles = np.reshape(similarity, (rows * columns, rows, columns, 1))
    sheet = sheet_of(tiles, columns, gap)
    width, height = size_of(sheet, 5.6)
    figure, axes = figure_with_axes((width + 0.9, height + 0.3), title, dark)
    shown = axes.imshow(sheet, interpolation="nearest", vmin=-1, vmax=1)
    for set_ticks, number in ((axes.set_xticks, columns), (axes.set_yticks, rows)):
        numbers = range(0, number, max(1, math.ceil(number / 7)))
        middles = [n * (number + gap) + (number - 1) / 2 for n in numbers]
        set_ticks(middles, [str(n) for n in numbers])
    axes.set_xlabel("column of the patch")
    axes.set_ylabel("row of the patch")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    color_bar(figure, axes, shown, "cosine similarity", dark)
    return figure


def plot_distances(
    distances: np.ndarray, *, title: str | None = None, dark: bool = False
) -> Figure:
    """Draws the mean attention distance of each head by depth, and the mean of the heads.

    Source: ViT (arXiv 2010.11929), figure 7 (right) and figure 11.

    Args:
        distances: array (blocks, heads), in pixels, as of `attention_distance`.
        title: text above the plot, or `None`.
        dark: bool, whether the background is dark.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    colors = colors_of(dark)
    blocks, heads = np.shape(distances)
    figure, axes = figure_with_axes((5.6, 3.8), title, dark)
    depth = np.arange(blocks)
    axes.grid(axis="y", color=colors["rule"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.plot(
        *(depth, np.mean(distances, axis=1)),
        color=colors["wrong"],
        linewidth=1.6,
        label="mean of the heads",
    )
    axes.scatter(
        *(np.repeat(depth, heads), np.ravel(distances)),
        s=22,
        color=colors["right"],
        alpha=0.75,
        linewidths=0,
        label="a head",
        zorder=3,
    )
    axes.set_xlabel("block")
    axes.set_ylabel("mean attention distance in pixels")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(
        *(axes.get_legend_handles_labels()),
        frameon=False,
        labelcolor=colors["soft"],
        fontsize=9,
        loc="lower right",
    )
    return figure


def plot_maps(
    images: Any,
    maps: np.ndarray,
    *,
    titles: Sequence[str] | None = None,
    title: str | None = None,
    dark: bool = False,
    data_format: str = "channels_last",
) -> Figure:
    """Draws images, and beside each what is left of it where a map is small.

    Source: ViT (arXiv 2010.11929), figures 6 and 14: the image times the map, enlarged
    bilinearly and divided by its largest value. Colours of features, as of
    `feature_colors`, are drawn as they are.

    Args:
        images: array (batch, height, width, channels), pixel values from 0 to 255 if they
            are integers; others are shown from the least value of an image to its largest.
        maps: array (batch, rows, columns), as of `rollout_map`, `relevance`, `grad_cam` or
            one head's of `class_attention`; or (batch, rows, columns, 3).
        titles: a text above each image, or `None`.
        title: text above the plot, or `None`.
        dark: bool, whether the background is dark.
        data_format: `"channels_last"` or `"channels_first"`, of the images.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if there is not one map, or title, for each image.
        ImportError: if matplotlib is not installed.
    """
    images = np.asarray(images)
    if data_format == "channels_first":
        images = np.moveaxis(images, 1, -1)
    for name, values in (("maps", maps), ("titles", titles)):
        if values is not None and len(values) != len(images):
            raise ValueError(
                f"`{name}` must be as many as the images. Received: {len(values)} {name} "
                f"for {len(images)} images"
            )
    rows = math.ceil(len(images) / 3)
    pairs = math.ceil(len(images) / rows)  # side by side
    height = 1.7 * images.shape[1] / images.shape[2] + 0.25 * (titles is not None)
    size = (3.7 * pairs, height * rows + 0.35 * bool(title))
    figure = empty_figure(size, title, dark)
    # An image, its map, and room before the next.
    widths = ([1, 1, 0.06] * pairs)[:-1]
    grid = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, (image, one) in enumerate(zip(images, maps, strict=True)):
        row, column = divmod(i, pairs)
        left, right = grid[row, 3 * column : 3 * column + 2]
        image = _displayed(image)
        left.imshow(image)
        right.imshow(_masked(image, np.asarray(one)))
        if titles is not None:
            color = colors_of(dark)["soft"]
            left.set_title(titles[i], fontsize=9, loc="left", color=color)
    return figure


def _masked(image, one):
    """An image (height, width, 3) darkened by a map; or enlarged colours of features."""
    size = image.shape[:2]
    if one.ndim == 3:
        rows, columns = (
            np.arange(n) * m // n for n, m in zip(size, one.shape[:2], strict=True)
        )
        return one[rows][:, columns]
    enlarged = resize_grid(np.float64(one)[..., None], size, "bilinear")
    largest = enlarged.max()
    return image * np.clip(enlarged / (largest if largest > 0 else 1), 0, 1)


def _displayed(image):
    """An image with values from 0 to 1 and three channels."""
    if np.issubdtype(image.dtype, np.integer):
        image = image / 255
    else:
        low, high = image.min(), image.max()
        image = (image - low) / (high - low if high > low else 1)
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, -1)
