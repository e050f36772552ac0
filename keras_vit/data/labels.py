"""Labels of data in the order of a model's classes, found by name."""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_vit.data.sources import Source
from keras_vit.data.spelling import one_spelling
from keras_vit.data.wording import listed


class UnknownClassError(ValueError):
    """Classes of data that have no place among a model's, by their names."""


def relabelled(
    sources: Mapping[str, Source],
    found: Sequence[str],
    class_names: Sequence[str],
    name: str,
) -> tuple[dict[str, Source], tuple[str, ...]]:
    """The sources with labels that count in `class_names`, and these as a tuple.

    Args:
        sources: of each split, with labels that count in `found`.
        found: names of the data's classes.
        class_names: names of the classes that labels are to count in.
        name: of the data set.

    Raises:
        ValueError: if the data has a class without a place among `class_names`.
    """
    class_names = tuple(map(str, class_names))
    if tuple(found) == class_names:
        return dict(sources), class_names
    places = indices_of(found, class_names, name)
    return {split: source.relabel(places) for split, source in sources.items()}, class_names


def indices_of(found: Sequence[str], class_names: Sequence[str], name: str) -> np.ndarray:
    """int32 array: where each of the names found in a data set is among `class_names`.

    Two Unicode spellings of one name are the same name.

    Raises:
        ValueError: if one is not among them, or there twice.
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
            "Classes are found by their names, so each must have one of its own. "
            f"Several classes of the model have the name: {listed(map(repr, twice))}"
        )
    return np.array([places[one_spelling(known)][0] for known in found], "int32")
