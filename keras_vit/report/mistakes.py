"""The most confident mistakes: pictures, and what the model read of them."""

from collections.abc import Callable, Sequence

import numpy as np

from keras_vit.report import pictures
from keras_vit.report.looks import Look, explain_maps, map_tiles
from keras_vit.report.markup import Markup, join, render
from keras_vit.report.statistics import Evaluation
from keras_vit.tables import percent


def mistakes(
    evaluation: Evaluation,
    names: Sequence[str] | None,
    images: Callable[[Sequence[int]], Sequence[np.ndarray]] | None,
    looks: Callable[[Sequence[np.ndarray]], Sequence[Look] | None] | None,
    most: int,
) -> Markup | str:
    """Renders the mistakes; see `write_report`.

    Args:
        evaluation: labels and probabilities of the examples.
        names: name of each example, or `None`.
        images: returns the images of examples; without it there is no section.
        looks: returns maps of these images.
        most: number of mistakes to show.
    """
    chosen = evaluation.confident_mistakes(most)
    if images is None or not most:
        return ""
    if not len(chosen):
        return render("parts/note", text="There are none.")
    shown = images([int(i) for i in chosen])
    found = looks(shown) if looks is not None else None
    tiles = [""] * len(shown) if found is None else _tiles(found)
    figures = [
        _mistake(
            evaluation, i, image, maps, names[i] if names is not None else f"example {i}"
        )
        for i, image, maps in zip(chosen, shown, tiles, strict=True)
    ]
    wrong = evaluation.num_examples - evaluation.num_correct
    return render(
        "mistakes/mistakes",
        shown=f"{len(chosen)} of the {wrong:,} mistakes" if wrong > len(chosen) else "All",
        maps=f" {explain_maps(found[0])}" if found is not None else "",
        kind="pictures" if found is None else "pictures looked",
        figures=join(figures),
    )


def _tiles(found):
    return [
        map_tiles(look, f"mistake-{i}", "what the model read")
        for i, look in enumerate(found)
    ]


def _mistake(evaluation, i, image, maps, name) -> Markup:
    true, predicted = (
        evaluation.class_names[k] for k in (evaluation.labels[i], evaluation.predictions[i])
    )
    confidence = percent(float(evaluation.probabilities[i].max())).replace(" ", "\xa0")
    picture = render(
        "mistakes/picture",
        kind=pictures.kind(image),
        address=pictures.photograph(image),
        description=f"{name}: {true}, predicted as {predicted}",
    )
    if maps:
        picture = render(
            "looks/tiles", tiles=join([render("looks/whole", picture=picture), maps])
        )
    return render(
        "mistakes/mistake",
        picture=picture,
        true=true,
        predicted=predicted,
        confidence=confidence,
        name=name,
    )
