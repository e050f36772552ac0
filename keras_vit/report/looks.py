"""Pictures as a model sees them, with maps of what it reads over them."""

from dataclasses import dataclass

import numpy as np

from keras_vit.report import pictures
from keras_vit.report.markup import Markup, join, render

ROLLOUT = "rollout"
# By the kind of the class map: a short name, and what it is.
CLASS_MAPS = {
    "class token": (
        "class token",
        "Class token: its attention to the patches in the last block, the mean of "
        "the heads.",
    ),
    "pooling": (
        "pooling head",
        "Pooling head: its attention to the patches, the mean of its heads.",
    ),
    "relevance": (
        "relevance",
        "Relevance of the patches for the most probable class (arXiv 2103.15679): "
        "attention weighted by its gradient. This model averages its patches, so no "
        "attention is that of a class.",
    ),
    "": (
        "",
        "This model has neither a class token nor a pooling, so there is no class map.",
    ),
}
_ROLLOUT = (
    "Rollout (arXiv 2005.00928): attention through all blocks, from what the head reads "
    "down to the image."
)
_NO_ROLLOUT = "Nor does attention rollout have tokens to begin at."
_SHADE = "A picture is dark where its map is small beside the map's largest value."


@dataclass(frozen=True, eq=False)
class Look:
    """A picture and maps over it.

    Attributes:
        picture: as the model sees it, uint8 (height, width, channels).
        class_map: float array (rows, columns), not negative, or `None`.
        rollout: the same.
        class_map_kind: a key of `CLASS_MAPS`.
    """

    picture: np.ndarray
    class_map: np.ndarray | None = None
    rollout: np.ndarray | None = None
    class_map_kind: str = ""


def explain_maps(look: Look) -> str:
    """Sentences on the maps of a picture, and of others by the same model."""
    sentences = [CLASS_MAPS[look.class_map_kind][1]]
    sentences.append(_NO_ROLLOUT if look.rollout is None else _ROLLOUT)
    if look.class_map_kind or look.rollout is not None:
        sentences.append(_SHADE)
    return " ".join(sentences)


def look_tiles(look: Look, key: str, description: str) -> Markup:
    """Renders a picture, and beside it what is left of it where a map is small.

    The page holds the picture once.

    Args:
        look: the picture and its maps.
        key: a name for the picture that is no other's on the page.
        description: text for readers who do not see it.
    """
    layers = [("picture", ""), *_layers(look)]
    return render("looks/tiles", tiles=_tiles(look, layers, key, description))


def map_tiles(look: Look, key: str, description: str) -> Markup:
    """Renders the maps of `look_tiles` alone, to stand beside another picture."""
    return _tiles(look, _layers(look), key, description)


def _layers(look):
    """(name, address of the layer) of each map."""
    named = ((CLASS_MAPS[look.class_map_kind][0], look.class_map), (ROLLOUT, look.rollout))
    return [(name, pictures.shade(one)) for name, one in named if one is not None]


def _tiles(look, layers, key, description) -> Markup:
    height, width = look.picture.shape[:2]
    size = {"width": width, "height": height}
    base = render(
        "looks/base",
        key=key,
        kind=pictures.kind(look.picture),
        address=pictures.photograph(look.picture),
        **size,
    )
    tiles = []
    for name, address in layers:
        # A little larger than the picture, whose edges would shine through.
        layer = render("looks/layer", address=address) if address else ""
        text = f"{description}: {name}"
        tiles.append(
            render(
                "looks/tile", base=base, layer=layer, name=name, description=text, **size
            )
        )
        base = render("looks/again", key=key)
    return join(tiles)
