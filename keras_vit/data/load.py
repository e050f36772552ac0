"""`load`: labelled images from folders, CSV files, TensorFlow Datasets and arrays."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit import arguments
from keras_vit.data.arrays import SPLITS, load_arrays
from keras_vit.data.checks import check_classes, check_images, without_bad_images
from keras_vit.data.csv_file import load_csv
from keras_vit.data.duplicates import (
    DUPLICATES,
    check_labels,
    find_duplicates,
    log_copies,
    without_duplicates,
)
from keras_vit.data.folder import load_folder
from keras_vit.data.formula.source import FormulaImages, formula_splits
from keras_vit.data.formula.spelling import formula_options, is_formula
from keras_vit.data.image_data import ImageData
from keras_vit.data.labels import relabel
from keras_vit.data.pipeline import Pipeline
from keras_vit.data.pixel_checks import check_values
from keras_vit.data.records import Records
from keras_vit.data.sources import ImageFiles, Source
from keras_vit.data.spelling import check_utf8, log_look_alikes
from keras_vit.data.splits import choose_for_split
from keras_vit.data.tfds import load_tfds
from keras_vit.log import log

VALIDATION_SPLIT = 0.2
LABELS = ("required", "optional", "none")
TFDS_NAME = re.compile(r"[a-zA-Z]\w*(:[a-zA-Z]\w*)?(/[\w.\-]+)?(:[\d.*]+)?")
WITH_SPLITS = (Records, FormulaImages)  # sources whose splits are drawn already
LARGEST_SEED = 2**63 - 1


def load(
    source: Any,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    splits: Mapping[str, str | Sequence[str]] | None = None,
    validation_split: float | None = None,
    test_split: float = 0.0,
    image_column: str = "path",
    label_column: str = "label",
    split_column: str | None = None,
    class_names: Sequence[str] | None = None,
    labels: str = "required",
    bad_images: str = "raise",
    duplicates: str = "raise",
    seed: int = 0,
    **pipeline: Any,
) -> ImageData:
    """Loads labelled images as batches for training, validation and test.

    Args:
        source: one of

            - a folder: `folder/<class>/<image>`, or
              `folder/{train,validation,test}/<class>/<image>` (other spellings such as
              `Training`, `val`, `dev`, `seg_test` are known, too). The classes are in the
              order of their folders' names. Files and folders that systems leave (hidden
              ones, `__MACOSX`, `@eaDir`, `Thumbs.db`, …) are skipped; other files that are
              no images are counted in a warning;
            - a `.csv` or `.tsv` file in UTF-8 with a header and a row for each image: path
              relative to the file's folder, label, and perhaps split, separated by commas,
              semicolons or tabs. The classes are in the order of their names, or of their
              numbers if all are whole numbers;
            - the name of a data set of TensorFlow Datasets that has an image and a label,
              such as `"cifar10"` or `"eurosat/rgb:2.0.0"`;
            - `"formula"`, images by formula, with arguments of `formula_images` as in
              `"formula:count=5000,kinds=fractals+strokes"`;
            - a pair of arrays (images, labels), or a dictionary of such pairs with the
              keys `"train"`, `"validation"`, `"test"`. Images are (n, height, width) or
              (n, height, width, 1, 3 or 4), with values from 0 to 255; labels are integers
              from 0, strings or one-hot rows.
        data_dir: folder of TensorFlow Datasets' data; `None` for its default,
            `~/tensorflow_datasets`.
        splits: names of `"train"`, `"validation"` and `"test"` in the source: sub-folders,
            values in the split column, or expressions of TensorFlow Datasets such as
            `{"train": "train[:90%]", "validation": "train[90%:]"}`. Folders and values may
            be a list. Other folders, rows and splits are not used. `None` takes all splits
            that the source has.
        validation_split: fraction in [0, 1) of the training examples of each class to use
            for validation, if there is no such split. `None` is 0.2, and 0 if `splits` are
            given, and for images by formula; for TensorFlow Datasets it is the last 0.02,
            as in the ViT paper's code. Each class keeps at least one training example.
        test_split: the same for test.
        image_column: name of the CSV file's column of paths.
        label_column: name of its column of labels.
        split_column: name of its column of splits; `None` takes `"split"`, or the column
            whose name or values look like splits (`Split`, `subset`, `fold`). `"none"`
            ignores such a column.
        class_names: names of the classes in the order of the labels, for instance those of
            a model to evaluate. The data may lack some of them, and integer labels of
            arrays are indices into them. `None` takes the names in the data, each of which
            must have images to train on.
        labels: `"required"`; `"none"`, where images are all that is read: any files in a
            folder and its sub-folders, a CSV file without a column of labels, a data set
            of TensorFlow Datasets without classes, an array of images alone, or one for
            each split; `"optional"`, where labels are read if there are any: if no image to
            train on lies outside of two folders or more, if the CSV file has the column,
            the data set a class, or arrays are pairs. Without labels `class_names` of the
            result is empty, and every example has the label 0.
        bad_images: `"raise"` reads the header of every file, and fails if some are damaged.
            Damage later in a file, and any in a file of TensorFlow Datasets, fails when the
            image is decoded. `"skip"` decodes every image once, and leaves out those that
            fail, with a warning that names them.
        duplicates: treatment of an image that is in two of the given splits, by its path,
            through a link, or as a file of the same bytes (not for TensorFlow Datasets).
            `"raise"` fails and lists them. `"drop"` leaves images out of training that are
            in another split, and out of validation those in test. `"keep"` does not look
            for any. Except with `"keep"`, a file with two labels is an error, and copies
            stay together when a split is drawn.
        seed: random seed of split, order and augmentation, from 0 to 2**63 - 1.
        **pipeline: fields of `Pipeline`, such as `image_size`, `batch_size` and
            `value_range`.

    Returns:
        An `ImageData`.

    Raises:
        FileNotFoundError: if a folder or file does not exist.
        ValueError: if the examples do not make a data set: damaged images, a single class,
            classes without images, labels or values out of range, folders or columns that
            look like splits without saying which, the same image in two splits, images that
            would be almost black. The message names them.
        RuntimeError: if TensorFlow Datasets cannot prepare the data set.
        ImportError: if a package of the `data` extra is missing.
    """
    arguments.one_of(duplicates, DUPLICATES, "duplicates")
    arguments.one_of(labels, LABELS, "labels")
    _check_arguments(splits, validation_split, test_split, bad_images, seed)
    if labels != "required" and class_names is not None:
        raise ValueError(
            "`class_names` are names of labels, which must be required then. Received: "
            f"labels={labels!r}. Leave one of them out."
        )
    settings = Pipeline(**pipeline)
    columns = (image_column, label_column, split_column)
    fractions = (validation_split, test_split)
    if isinstance(source, str | os.PathLike):
        name, sources, found = _found_files(
            source, data_dir, splits, columns, fractions, class_names, labels
        )
    else:
        name = "arrays"
        sources, found = load_arrays(source, splits, settings.reading, class_names, labels)
    _check_names(sources, found)
    is_trained_on = class_names is None and bool(found)
    if is_trained_on:
        _check_classes(sources, found, name)
    sources = {split: s.read_as(settings.reading) for split, s in sources.items()}
    if bad_images == "skip":
        sources = without_bad_images(sources, found if is_trained_on else None)
    check_values(sources, settings.reading, check_images(sources))
    if class_names is None:
        class_names = found
    else:
        sources, class_names = relabel(sources, found, class_names, name)
    if "train" in sources and not isinstance(sources["train"], WITH_SPLITS):
        if validation_split is None:
            validation_split = VALIDATION_SPLIT if splits is None else 0.0
        sources, groups = _without_duplicates(sources, duplicates)
        if is_trained_on:
            check_classes(sources["train"], class_names)
        sources = _with_splits(sources, groups, validation_split, test_split, seed)
    ordered = {split: sources[split] for split in SPLITS if split in sources}
    return ImageData(name, class_names, ordered, settings, seed)


def find(source: str | os.PathLike[str], **pipeline: Any) -> ImageData:
    """Finds the images that `load` would load from a path or a name, and checks none.

    They are in the splits that they are given in; no other is drawn.

    Args:
        source: as in `load`, but no arrays.
        **pipeline: fields of `Pipeline`.

    Raises:
        FileNotFoundError: if there is no such folder, file or data set.
        ValueError: if they do not make a data set.
    """
    columns, fractions = ("path", "label", None), (0.0, 0.0)
    name, sources, found = _found_files(
        source, None, None, columns, fractions, None, "required"
    )
    ordered = {split: sources[split] for split in SPLITS if split in sources}
    return ImageData(name, found, ordered, Pipeline(**pipeline))


def _found_files(
    source: str | os.PathLike, data_dir, splits, columns, fractions, class_names, labels
) -> tuple[str, dict[str, Source], tuple[str, ...]]:
    """Name, sources and class names of a path or a data set of TensorFlow Datasets."""
    path = Path(source)
    if path.is_dir():
        return path.resolve().name, *load_folder(source, splits, class_names, labels)
    if path.suffix.lower() in (".csv", ".tsv"):
        return path.stem, *load_csv(source, *columns, splits, class_names, labels)
    if is_formula(source):
        return _formula_images(source, splits, fractions, labels)
    if isinstance(source, str) and TFDS_NAME.fullmatch(source):
        sources, found, name = load_tfds(source, data_dir, splits, *fractions, labels)
        return name, sources, found
    raise FileNotFoundError(f"There is no folder or CSV file {os.fspath(source)!r}")


def _formula_images(
    source: str, splits, fractions, labels
) -> tuple[str, dict[str, Source], tuple[str, ...]]:
    if splits is not None:
        raise ValueError(
            "Images by formula have no splits to choose from. Give a share: "
            f"validation_split=0.1. Received: splits={splits}"
        )
    found = formula_splits(**formula_options(source), fractions=fractions)
    names = found["train"].class_names
    if labels != "none":
        return source, dict(found), names
    zeros = np.zeros(len(names), "int32")
    return source, {split: one.relabel(zeros) for split, one in found.items()}, ()


def _check_names(sources: Mapping[str, Source], class_names: Sequence[str]) -> None:
    if all(isinstance(source, ImageFiles) for source in sources.values()):
        check_utf8(name for source in sources.values() for name in source.names)
    log_look_alikes(class_names)


def _check_arguments(splits, validation_split, test_split, bad_images, seed) -> None:
    arguments.one_of(bad_images, ("raise", "skip"), "bad_images")
    if not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"`seed` must be an integer from 0 to 2**63 - 1. Received: {seed}")
    if splits is not None and not {"train"} <= set(splits) <= set(SPLITS):
        raise ValueError(
            "`splits` must name 'train', and perhaps 'validation' and 'test'. Received: "
            f"splits={splits}"
        )
    fractions = {"validation_split": validation_split or 0.0, "test_split": test_split}
    for name, fraction in fractions.items():
        arguments.rate(fraction, name)
    if sum(fractions.values()) >= 1:
        raise ValueError(
            "`validation_split` and `test_split` must leave examples to train on. "
            f"Received: {fractions}"
        )


def _check_classes(sources: Mapping[str, Source], class_names, name: str) -> None:
    if len(class_names) < 2:
        raise ValueError(
            "There must be two classes or more to tell apart. Received: "
            f"{', '.join(map(repr, class_names))} only, in {name!r}. To detect one thing, "
            "add a class of images without it."
        )
    if not isinstance(sources["train"], Records):  # reading their labels reads all images
        check_classes(sources["train"], class_names)


def _without_duplicates(
    sources: Mapping[str, Source], duplicates: str
) -> tuple[dict[str, Source], np.ndarray]:
    """Returns splits without an image in common, and the group of each training example.

    Copies of an image are one group, which must stay in one split.
    """
    if duplicates == "keep":
        return dict(sources), np.arange(len(sources["train"]))
    found = find_duplicates(sources)
    check_labels(sources, found)
    sources, found = without_duplicates(sources, found, duplicates)
    return sources, found.contents["train"]


def _with_splits(
    sources: Mapping[str, Source],
    groups: np.ndarray,
    validation_split: float,
    test_split: float,
    seed: int,
) -> dict[str, Source]:
    """Returns the given splits, and missing ones drawn from "train" by whole groups."""
    sources = dict(sources)
    train = sources["train"]
    for split, fraction in (("test", test_split), ("validation", validation_split)):
        if split in sources or not fraction:
            continue
        # The share of the remaining examples that is this fraction of all.
        rest = sources["train"]
        share = fraction * len(train) / len(rest)
        taken = choose_for_split(rest.labels, groups, share, seed, split)
        if not taken.any():
            log.warning(
                "There are no examples for %s: no class has enough for a fraction of %s.",
                split,
                fraction,
            )
            continue
        if len(rest) == len(train):
            log_copies(groups)
        sources[split] = rest.take(np.flatnonzero(taken))
        sources["train"] = rest.take(np.flatnonzero(~taken))
        groups = groups[~taken]
    return sources
