"""Pictures as a model sees them, with maps of what it reads over them."""

from dataclasses import dataclass

import numpy as np

from keras_vit.report import pictures
from keras_vit.report.markup import Markup, join, render


@dataclass(frozen=True, eq=False)
class Look:
    """A picture and maps over it.

    Attributes:
        picture: uint8 (height, width, channels).
        maps: (name, float array (rows, columns)) of each map, not negative.
    """

    picture: np.ndarray
    maps: tuple[tuple[str, np.ndarray], ...]


def panels(look: Look, key: str, description: str, name: str = "picture") -> Markup:
    """Renders a picture, and beside it what is left of it where a map is small.

    The page holds the picture once.

    Args:
        look: the picture and its maps.
        key: a name for the picture that is no other's on the page.
        description: text for readers who do not see it.
        name: text below the picture itself.
    """
    height, width = look.picture.shape[:2]
    size = {"width": width, "height": height}
    picture = render(
        "looks/picture",
        key=key,
        kind=pictures.kind(look.picture),
        address=pictures.photograph(look.picture),
        description=description,
        name=name,
        **size,
    )
    maps = [
        render(
            "looks/map",
            key=key,
            address=pictures.shade(one),
            description=f"{description}: {map_name}",
            name=map_name,
            **size,
        )
        for map_name, one in look.maps
    ]
    return render("looks/panels", panels=join([picture, *maps]))
