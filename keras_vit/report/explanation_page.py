"""The page of images with their predictions and maps, and of the inside of a model."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_vit.report import pictures
from keras_vit.report.charts import Line, line_chart
from keras_vit.report.document import write_document
from keras_vit.report.looks import Look, explain_maps, look_tiles
from keras_vit.report.markup import Markup, join, render
from keras_vit.tables import percent


@dataclass(frozen=True, eq=False)
class ExplainedImage:
    """An image on the page.

    Attributes:
        name: path or address.
        look: the picture and its maps; `None` if it cannot be read.
        classes: (name, probability) of the most probable classes.
        error: why it cannot be read.
    """

    name: str
    look: Look | None
    classes: Sequence[tuple[str, float]] = ()
    error: str = ""


def write_explanation(
    folder: str | os.PathLike[str],
    images: Sequence[ExplainedImage],
    *,
    model: str,
    filters: np.ndarray | None,
    similarity: np.ndarray | None,
    distances: np.ndarray | None,
    remarks: Mapping[str, str],
) -> str:
    """Writes `index.html`, one page without scripts, other files or network.

    Args:
        folder: where to write the page; created if missing.
        images: the images, in the order of the page.
        model: name of the model.
        filters: (components, height, width, channels), or `None`.
        similarity: of positions, (rows, columns, rows, columns), or `None`.
        distances: mean attention distances in pixels, (blocks, heads), or `None`.
        remarks: why one of these three is `None`, by its name.

    Returns:
        The path of the page.
    """
    shown = [image for image in images if image.look is not None]
    failed = [image for image in images if image.look is None]
    maps = [render("parts/remark", text=explain_maps(one.look)) for one in shown[:1]]
    inside = join(
        [
            _filters(filters, remarks),
            _positions(similarity, remarks),
            _distances(distances, remarks, len(shown)),
        ]
    )
    sections = [
        ("images", "Images", _images(shown)),
        ("failed", "Images that cannot be read", _failed(failed)),
        ("inside", "Inside the model", render("explanation/sheets", sheets=inside)),
    ]
    return write_document(folder, f"{model}: what it looks at", join(maps), sections)


def _images(images) -> Markup:
    return join(_image(image, i) for i, image in enumerate(images))


def _image(image, number) -> Markup:
    rows = join(
        render("explanation/class", name=name, meter=_meter(share))
        for name, share in image.classes
    )
    return render(
        "explanation/image",
        looks=look_tiles(image.look, f"picture-{number}", image.name),
        name=image.name,
        classes=render("explanation/classes", rows=rows) if rows else "",
    )


def _meter(share) -> Markup:
    return render("parts/meter", width=f"{100 * share:.0f}", text=percent(share))


def _failed(images) -> Markup | str:
    rows = join(
        render("explanation/failed", name=image.name, error=image.error) for image in images
    )
    return render("explanation/failures", rows=rows) if rows else ""


# The model, as in figure 7 of the ViT paper.


def _filters(filters, remarks) -> Markup:
    title = "Filters of the patch embedding"
    if filters is None:
        return render("explanation/no_sheet", title=title, note=remarks["filters"])
    note = f"The first {len(filters)} principal components, each on its own scale."
    address = pictures.filter_sheet(filters)
    return render("explanation/sheet", title=title, address=address, note=note)


def _positions(similarity, remarks) -> Markup:
    title = "Similarity of position embeddings"
    if similarity is None:
        return render("explanation/no_sheet", title=title, note=remarks["similarity"])
    address, step = pictures.position_sheet(similarity)
    which = "each patch" if step == 1 else f"every {step}th row and column of patches"
    note = (
        f"A tile for {which}: the cosine similarity of its position to all others. Blue is "
        "1, vermilion −1, grey 0."
    )
    return render("explanation/sheet", title=title, address=address, note=note)


def _distances(distances, remarks, num_images) -> Markup:
    title = "Mean attention distance, in pixels"
    if distances is None:
        return render("explanation/no_sheet", title=title, note=remarks["distances"])
    blocks, heads = distances.shape
    depth, means = list(range(blocks)), distances.mean(axis=1)
    lines = [
        Line("head", "heads", np.repeat(depth, heads), distances.ravel(), is_joined=False),
        Line("mean", "mean", depth, means),
    ]
    description = (
        f"{title}, by block: the mean of {heads} heads from {means[0]:.1f} in the first of "
        f"{blocks} blocks to {means[-1]:.1f} in the last"
    )
    legend = join(
        render("parts/legend_key", style=line.style, name=line.name) for line in lines
    )
    images = "this image" if num_images == 1 else f"these {num_images:,} images"
    note = f"How far from a patch those are that it reads, by block, on {images}."
    chart = line_chart(lines, description=description, x_label="block")
    return render("explanation/chart", title=title, legend=legend, chart=chart, note=note)
