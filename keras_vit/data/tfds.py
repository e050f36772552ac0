"""Sources of TensorFlow Datasets, read by index."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.packages import require, tensorflow
from keras_vit.data.record_files import FILE_FORMATS
from keras_vit.data.records import Label, NoLabel, Records, StoredLabel
from keras_vit.download.web import FORBIDDEN, is_offline
from keras_vit.log import log

VALIDATION_SPLIT = 0.02  # in the paper's code, for data sets without a validation split


def load_tfds(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    splits: Mapping[str, str | Sequence[str]] | None,
    validation_split: float | None,
    test_split: float,
    labels: str = "required",
) -> tuple[dict[str, Records], tuple[str, ...], str]:
    """Returns sources, class names and full name of a data set; prepares it if needed.

    With `labels="none"`, or `"optional"` where it has none, there are no names.

    Raises:
        ValueError: if the data set, its features or `splits` do not fit.
        RuntimeError: if TensorFlow Datasets cannot prepare the data set.
        ImportError: if a package of the `data` extra is missing.
    """
    if splits is not None and (validation_split or test_split):
        raise ValueError(
            "With `splits`, TensorFlow Datasets takes no `validation_split` and "
            "`test_split`: leave them out, and write parts as 'train[:90%]'"
        )
    tensorflow()
    builder = prepared_builder(name, data_dir)
    image_key, label_key = _keys(builder, labels)
    if splits is None:
        splits = _default_splits(builder.info.splits, validation_split, test_split)
    label = StoredLabel(label_key) if label_key else NoLabel()
    sources = records_of(builder, splits, image_key, label)
    names = tuple(builder.info.features[label_key].names) if label_key else ()
    return sources, names, builder.info.full_name


def find_prepared(name: str, data_dir: str | os.PathLike[str] | None) -> Any | None:
    """Finds a data set that is prepared, in any of its versions; prepares nothing.

    Args:
        name: name in TensorFlow Datasets, with its configuration if it has several, such
            as `"eurosat/rgb"`.
        data_dir: folder of TensorFlow Datasets' data; `None` for its default.

    Returns:
        The `tfds.core.DatasetBuilder` of the latest version there, or `None`.

    Raises:
        ImportError: if a package of the `data` extra is missing.
    """
    tensorflow()
    tfds = require("tensorflow_datasets")
    _check_on_this_machine(data_dir)
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        return None


def records_of(
    builder: Any,
    splits: Mapping[str, str | Sequence[str]],
    image_key: str,
    label: Label,
    label_name: str = "",
) -> dict[str, Records]:
    """Returns a source for each split of a prepared data set.

    Args:
        builder: `tfds.core.DatasetBuilder`.
        splits: expression of TensorFlow Datasets for each split, or a list of them.
        image_key: name of the feature that is the encoded image.
        label: returns the class of a record.
        label_name: name of the label where a data set has several; part of the digest.

    Raises:
        ValueError: if a split is unknown or empty, or a file does not fit.
    """
    files = functools.cache(functools.partial(_record_file, builder))
    sources = {}
    for split, expression in splits.items():
        if not isinstance(expression, str):
            expression = "+".join(expression)
        parts = _file_instructions(builder, expression)
        description = f"{builder.info.full_name} {expression}"
        sources[split] = Records(
            files=tuple(files(p.filename, p.examples_in_shard) for p in parts),
            places=_places(parts),
            image_key=image_key,
            label=label,
            description=f"{description} {label_name}" if label_name else description,
        )
    return sources


def prepared_builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """Returns the builder of a data set, which it prepares if needed.

    A version that is prepared is used where the one of this TensorFlow Datasets is not,
    with a warning: another download would take hours.

    Raises:
        FileNotFoundError: if there is no such data set.
        ValueError: if there is no such version of it.
        RuntimeError: if TensorFlow Datasets cannot prepare it.
    """
    tfds = require("tensorflow_datasets")
    try:
        builder = _builder(tfds, name, data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"There is neither a file or folder {name!r} here, nor a data set of that "
            "name in TensorFlow Datasets or in `data_dir`. Received: "
            f"data_dir={data_dir!r}"
        ) from error
    except AssertionError as error:  # a version that it does not know
        if earlier := find_prepared(name, data_dir):
            return earlier
        raise ValueError(
            f"TensorFlow Datasets has no such data set, and `data_dir` none that is "
            f"prepared. Received: {name!r}, data_dir={data_dir!r}. {error}"
        ) from error
    if not builder.is_prepared():
        if earlier := find_prepared(name, data_dir):
            log.warning(
                "TensorFlow Datasets would prepare %s. Used is %s, which is prepared.",
                *(builder.info.full_name, earlier.info.full_name),
            )
            return earlier
        try:
            _prepare(builder)
        # Network, disk, a missing package, a data set to download by hand …
        except Exception as error:
            raise RuntimeError(
                f"TensorFlow Datasets could not prepare {name!r} in "
                f"{os.fspath(builder.data_dir)!r}: {type(error).__name__}: {error}. If "
                "another machine has it prepared, copy its folder and give its parent "
                "as `data_dir`; or give a folder of images, folder/<class>/<image>."
            ) from error
    return builder


def _builder(tfds, name, data_dir):
    """Returns the builder of a data set; offline it looks up none on the web."""
    _check_on_this_machine(data_dir)
    if not is_offline():
        return tfds.builder(name, data_dir=data_dir)
    visibility = tfds.core.visibility
    with visibility.set_availables_tmp([visibility.DatasetType.TFDS_PUBLIC]):
        if ":" not in name.partition("/")[0]:
            return tfds.builder(name, data_dir=data_dir)
        found, arguments = tfds.core.naming.parse_builder_name_kwargs(
            name, data_dir=data_dir
        )
        if not found.namespace:  # the colon belongs to a version
            return tfds.builder(name, data_dir=data_dir)
        return tfds.core.read_only_builder.builder_from_files(str(found), **arguments)


def _check_on_this_machine(data_dir):
    if is_offline() and "://" in os.fspath(data_dir or ""):
        raise ValueError(
            f"{FORBIDDEN}. Received: data_dir={data_dir!r}, which is not on this machine"
        )


def _prepare(builder):
    if is_offline():
        raise ConnectionError(FORBIDDEN)
    builder.download_and_prepare()


def _keys(builder, labels) -> tuple[str, str | None]:
    """Returns the names of the features that are image and label.

    The label is `None` where `labels` does not require one.
    """
    features = builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    are_found = _are_image_and_label(keys, features)
    if labels != "required" and not (are_found and labels == "optional"):
        keys = (_image_key(builder, keys), None)
    elif not are_found:
        raise ValueError(
            f"The data set {builder.info.full_name!r} must have an image and a label of "
            f"one class. Received the features: {features}. Write its images to a folder "
            "or a CSV file instead."
        )
    if features[keys[0]].np_dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"The images of {builder.info.full_name!r} must be of 8 or 16 bits. Received: "
            f"{np.dtype(features[keys[0]].np_dtype)}"
        )
    return keys


def _are_image_and_label(keys, features) -> bool:
    tfds = require("tensorflow_datasets")
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    return len(keys) == 2 and all(
        isinstance(key, str) and key in features and isinstance(features[key], kind)
        for key, kind in zip(keys, kinds, strict=True)
    )


def _image_key(builder, keys) -> str:
    """Name of the feature that is the image: the supervised one, or the only one."""
    kind, features = require("tensorflow_datasets").features.Image, builder.info.features
    images = [name for name, feature in features.items() if isinstance(feature, kind)]
    if isinstance(keys[0], str) and keys[0] in images:
        return keys[0]
    if len(images) != 1:
        raise ValueError(
            f"The data set {builder.info.full_name!r} must have one image in each example. "
            f"Received the features: {features}. Write its images to a folder instead."
        )
    return images[0]


def _default_splits(available, validation_split: float | None, test_split: float):
    """Returns the data set's splits, and parts of the end of "train" for missing ones."""
    if "train" not in available:
        raise ValueError(
            "The data set has no split 'train'. Name the splits: splits={'train': …, "
            f"'validation': …, 'test': …}}. It has: {', '.join(available)}"
        )
    wanted = {
        "validation": VALIDATION_SPLIT if validation_split is None else validation_split,
        "test": test_split,
    }
    end = available["train"].num_examples
    splits = {split: split for split in wanted if split in available}
    for split, fraction in wanted.items():
        count = round(available["train"].num_examples * fraction)
        if split not in available and count:
            splits[split] = f"train[{end - count}:{end}]"
            end -= count
    return {"train": f"train[:{end}]", **splits}


def _file_instructions(builder, expression: str):
    try:
        parts = builder.info.splits[expression].file_instructions
    except (KeyError, ValueError, AssertionError) as error:
        raise ValueError(
            f"`splits` must name splits of {builder.info.full_name!r} or parts of them, "
            f"such as 'train[:90%]'. Received: {expression!r}. There are: "
            f"{', '.join(builder.info.splits)}"
        ) from error
    if not parts:
        raise ValueError(
            f"The split {expression!r} of {builder.info.full_name!r} has no example"
        )
    return parts


def _places(parts) -> np.ndarray:
    return np.concatenate(
        [
            np.stack([np.full(part.take, i), part.skip + np.arange(part.take)], axis=1)
            for i, part in enumerate(parts)
        ]
    )


def _record_file(builder, path: str, num_examples: int):
    file_format = builder.info.file_format.value
    if "://" in path or file_format not in FILE_FORMATS:
        raise ValueError(
            f"Files of TensorFlow Datasets must be of the format "
            f"{' or '.join(FILE_FORMATS)}, and on this machine. Received: {path!r} of "
            f"{file_format!r}"
        )
    file = FILE_FORMATS[file_format](Path(path))
    if len(file) != num_examples:
        raise ValueError(
            f"The file {path!r} must hold {num_examples} examples and holds {len(file)}; "
            "prepare the data set again"
        )
    return file
