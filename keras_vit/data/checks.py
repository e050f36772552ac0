"""Checks of a data set as it is loaded: damaged images, classes without images."""

from collections.abc import Callable, Mapping

import numpy as np

from keras_vit.data.images import Header
from keras_vit.data.sources import Source
from keras_vit.data.threads import map_indices
from keras_vit.data.wording import listed
from keras_vit.log import log


def check_images(sources: Mapping[str, Source]) -> dict[str, list[Header | None]]:
    """Reads the header of every file.

    Returns:
        The headers of each split; `None` for an example that is no file.

    Raises:
        ValueError: if files are damaged; the message lists them.
    """
    headers, bad = {}, []
    for split, source in sources.items():
        headers[split] = [None] * len(source)

        def check(index, found=headers[split], source=source):
            found[index] = source.check(index)

        bad += _failures(source, check).values()
    if bad:
        count = sum(map(len, sources.values()))
        raise ValueError(
            f"{len(bad)} of {count} images cannot be read. Repair or remove them, or leave "
            f"them out with bad_images='skip':\n  " + listed(bad, "\n  ")
        )
    return headers


def without_bad_images(
    sources: Mapping[str, Source], class_names: tuple[str, ...] | None
) -> dict[str, Source]:
    """Decodes every image once, and leaves out those that fail.

    Args:
        sources: the source of each split.
        class_names: names of the classes that must keep images to train on; `None` if the
            data is only evaluated.

    Raises:
        ValueError: if a class has no image left to train on, or a split has none at all.
    """
    good, bad = {}, []
    for split, source in sources.items():
        failures = _failures(source, lambda index, source=source: source.read(index, 3))
        bad += failures.values()
        good[split] = source
        if failures:
            kept = [index for index in range(len(source)) if index not in failures]
            good[split] = source.take(kept)
            if not kept:
                raise ValueError(f"No image of {split!r} can be read: {listed(bad)}")
    if bad:
        count = sum(map(len, sources.values()))
        log.warning("Left out %d of %d images:\n  %s", len(bad), count, "\n  ".join(bad))
        if class_names is not None:
            check_classes(good["train"], class_names)
    return good


def check_classes(train: Source, class_names: tuple[str, ...]) -> None:
    """Checks that every class has an example to train on.

    Raises:
        ValueError: if one has none.
    """
    counts = np.bincount(train.labels, minlength=len(class_names))
    empty = [repr(class_names[i]) for i in np.flatnonzero(counts == 0)]
    if empty:
        raise ValueError(
            f"Every class must have images to train on. There is none of: {listed(empty)}"
        )


def _failures(source: Source, use: Callable[[int], object]) -> dict[int, str]:
    """Returns the messages of the examples at which `use` fails, by index."""

    def failure(index):
        try:
            use(index)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    reasons = map_indices(failure, len(source))
    return {index: reason for index, reason in enumerate(reasons) if reason}
