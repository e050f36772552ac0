"""Labels of data in the order of a model's classes, matched by name."""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_vit.data.sources import Source
from keras_vit.data.spelling import one_spelling
from keras_vit.data.wording import listed


class UnknownClassError(ValueError):
    """Error: classes of the data are not among the model's, by their names."""


def relabel(
    sources: Mapping[str, Source],
    found: Sequence[str],
    class_names: Sequence[str],
    name: str,
) -> tuple[dict[str, Source], tuple[str, ...]]:
    """Returns the sources with labels that are indices into `class_names`, and these.

    Args:
        sources: source of each split, with labels that are indices into `found`.
        found: names of the data's classes.
        class_names: names of the classes of the model.
        name: name of the data set.

    Raises:
        ValueError: if a class of the data is not among `class_names`.
    """
    class_names = tuple(map(str, class_names))
    if tuple(found) == class_names:
        return dict(sources), class_names
    places = indices_of(found, class_names, name)
    return {split: source.relabel(places) for split, source in sources.items()}, class_names


def indices_of(found: Sequence[str], class_names: Sequence[str], name: str) -> np.ndarray:
    """Returns the index in `class_names` of each name found in a data set, int32 (n,).

    Two Unicode spellings of a name are equal.

    Raises:
        ValueError: if a name is not in `class_names`, or twice.
    """
    places = {}
    for place, known in enumerate(class_names):
        places.setdefault(one_spelling(known), []).append(place)
    unknown = [known for known in found if one_spelling(known) not in places]
    if unknown:
        raise UnknownClassError(
            "The data must have no other classes than the model was trained on. Unknown: "
            f"{listed(map(repr, unknown))}, in {name!r}. Known: "
            f"{listed(map(repr, class_names))}"
        )
    twice = [known for known in found if len(places[one_spelling(known)]) > 1]
    if twice:
        raise UnknownClassError(
            "Classes are matched by their names, so each must have a name of its own. "
            f"Several classes of the model have the name: {listed(map(repr, twice))}"
        )
    return np.array([places[one_spelling(known)][0] for known in found], "int32")
