"""Contents of a model's part of the page: pictures, and texts as HTML."""

from typing import Any, NamedTuple

import numpy as np

from keras_vit.explorer.explored import ExploredModel, OpenedImage
from keras_vit.explorer.overlay import overlay
from keras_vit.explorer.view import Place, View
from keras_vit.report.markup import Markup, join, render
from keras_vit.tables import percent

PICTURES, TEXTS = ("patch", "class_map", "rollout"), ("reading", "predictions")
PARTS = (*PICTURES, *TEXTS)
Contents = dict[str, Any]  # of some of the parts: a picture, a text, or None


class Choice(NamedTuple):
    """The attention that is looked at.

    Args:
        block: int, number of the block.
        head: int, number of the head; `None` for the mean of the heads.
    """

    block: int
    head: int | None


def of_image(image: OpenedImage) -> Contents:
    """The parts that only an image changes."""
    found = image.explanation
    maps = {"rollout": found.rollout, "class_map": found.class_map}
    contents = {
        name: None if one is None else overlay(image.picture, one, image.view)
        for name, one in maps.items()
    }
    return {**contents, "predictions": _predictions(image)}


def of_choice(model: ExploredModel, image: OpenedImage, choice: Choice) -> Contents:
    """The parts that a block and a head change, besides `of_patch`."""
    if model.class_map_kind != "class token":
        return {}
    weights = image.view.grid.maps(model.row(image, *choice, token=0))
    return {"class_map": overlay(image.picture, weights, image.view)}


def of_patch(
    model: ExploredModel, image: OpenedImage, choice: Choice, place: Place
) -> Contents:
    """The parts that a clicked patch changes, and a block and a head, too."""
    view = image.view
    row = model.row(image, *choice, token=view.token_at(place))
    picture = overlay(image.picture, view.grid.maps(row), view, view.patch_at(place))
    return {"patch": picture, "reading": _reading(model, row, view, place)}


def without_image(error: str = "") -> Contents:
    """Every part where there is no image, or one that cannot be read."""
    text = render("explorer/refusal", error=error) if error else ""
    return {**dict.fromkeys(PICTURES), "reading": "", "predictions": text}


def heading(model: ExploredModel) -> Markup:
    """The model's name and size."""
    rows, columns = model.image_size
    return render(
        "explorer/heading",
        name=model.name,
        size=f"{rows} × {columns} pixels, {model.num_blocks} blocks, "
        f"{model.num_heads} heads",
    )


def caption(text: str) -> Markup:
    """A text above a picture."""
    return render("explorer/caption", caption=text)


def _predictions(image):
    rows = join(
        render(
            "explorer/prediction",
            name=row.name,
            width=f"{100 * row.probability:.2f}",
            percent=percent(row.probability),
        )
        for row in image.explanation.prediction.classes
    )
    rows = rows or render("explorer/headless")
    remark = render("explorer/remark", remark=image.remark) if image.remark else ""
    return render("explorer/predictions", name=image.name, rows=rows, remark=remark)


def _reading(model: ExploredModel, row: np.ndarray, view: View, place: Place) -> Markup:
    """Shares of what a patch reads, in numbers."""
    grid = view.grid
    strongest = divmod(int(row[grid.num_prefix :].argmax()), grid.columns)
    patch = view.patch_at(place)
    shares = [
        (f"patch {_numbers(strongest)}, its largest", row[grid.num_prefix :].max()),
        ("itself", row[view.token_at(place)]),
        *zip(model.prefix_names, row[: grid.num_prefix], strict=True),
    ]
    outside = "" if view.shows(place) else render("explorer/outside")
    return render(
        "explorer/reading",
        patch=_numbers(patch),
        shares=join(
            render("explorer/share", name=name, percent=percent(float(share)))
            for name, share in shares
        ),
        outside=outside,
    )


def _numbers(patch):
    return f"{patch[0]}, {patch[1]}"
