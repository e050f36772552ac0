"""The page of an image and of those that are most like it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_vit.report import pictures
from keras_vit.report.document import write_page
from keras_vit.report.markup import Markup, join, render


@dataclass(frozen=True, eq=False)
class Picture:
    """An image with its name.

    Attributes:
        name: path or address.
        image: uint8 (height, width, channels); `None` if it cannot be shown.
    """

    name: str
    image: np.ndarray | None


def write_neighbors(
    path: str | os.PathLike[str],
    query: Picture,
    neighbors: Sequence[tuple[Picture, float]],
    *,
    model: str,
    layer: str,
) -> None:
    """Writes one page of pictures, without scripts, other files or network.

    Args:
        path: path of the page.
        query: the image that others are compared with.
        neighbors: images with their cosine similarity, in the order of the page.
        model: name of the model.
        layer: name of the layer whose outputs are compared.
    """
    note = f"Similarity is the cosine of the outputs of the layer {layer!r} of {model}."
    headline = join(
        [
            render("neighbors/pictures", figures=_figure(query, "")),
            render("parts/remark", text=note),
        ]
    )
    figures = join(
        _figure(picture, f"{similarity:.3f}") for picture, similarity in neighbors
    )
    content = render("neighbors/pictures", figures=figures)
    sections = [("nearest", f"The nearest {len(neighbors)} images", content)]
    write_page(path, f"Images like {os.path.basename(query.name)}", headline, sections)


def _figure(picture, similarity) -> Markup:
    if picture.image is None:
        shown = render("neighbors/missing")
    else:
        shown = render(
            "neighbors/picture",
            kind=pictures.kind(picture.image),
            address=pictures.photograph(picture.image),
            description=picture.name,
        )
    value = render("neighbors/similarity", value=similarity) if similarity else ""
    return render("neighbors/figure", shown=shown, similarity=value, name=picture.name)
