"""`load`: labelled images from wherever they are."""

import os
from collections.abc import Mapping
from pathlib import Path

from keras_vit.data.arrays import SPLITS, load_arrays
from keras_vit.data.folder import load_folder
from keras_vit.data.image_data import ImageData
from keras_vit.data.pipeline import Pipeline
from keras_vit.data.splits import take_split


def load(
    source,
    *,
    splits: Mapping[str, str] | None = None,
    validation_split: float = 0.2,
    test_split: float = 0.0,
    seed: int = 0,
    **pipeline,
) -> ImageData:
    """Labelled images, as batches for training, validation and test.

    Args:
        source: a folder `folder/<class>/<image>` or
            `folder/{train,validation,test}/<class>/<image>`, a pair of arrays (images,
            labels), or a dictionary of such pairs by split.
        seed: int, 0 or more.
        **pipeline: fields of `Pipeline`, such as `image_size` and `batch_size`.

    Returns:
        An `ImageData`.
    """
    pipeline = Pipeline(**pipeline)
    if isinstance(source, str | os.PathLike):
        sources, class_names = load_folder(source, splits)
        name = Path(source).resolve().name
    else:
        sources, class_names = load_arrays(source)
        name = "arrays"
    sources = with_splits(sources, validation_split, test_split, seed)
    return ImageData(name, class_names, sources, pipeline, seed)


def with_splits(sources, validation_split, test_split, seed):
    sources = dict(sources)
    for split, fraction in (("test", test_split), ("validation", validation_split)):
        if split not in sources and fraction:
            sources["train"], taken = take_split(sources["train"], fraction, seed, split)
            if taken is not None:
                sources[split] = taken
    return {split: sources[split] for split in SPLITS if split in sources}
