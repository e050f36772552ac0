"""Sources of folders: `folder/<class>/…` or `folder/<split>/<class>/…`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_vit.data.images import image_suffixes
from keras_vit.data.listing import Listing, visible
from keras_vit.data.sources import ImageFiles
from keras_vit.data.spelling import one_spelling
from keras_vit.data.split_folders import (
    LAYOUTS,
    split_folders,
    split_folders_without_classes,
    subfolders,
)
from keras_vit.data.wording import listed


def load_folder(
    root: str | os.PathLike[str],
    splits: Mapping[str, str | Sequence[str]] | None,
    known: Sequence[str] | None = None,
    labels: str = "required",
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """Returns sources and class names of a folder; `splits` names its sub-folders by split.

    If the classes are `known`, a split may lack some of them. With `labels="none"`, or
    `"optional"` where images do not lie in folders of classes, there are no names.

    Raises:
        FileNotFoundError: if a folder that `splits` names does not exist.
        ValueError: if the folders do not make splits and classes.
    """
    root = Path(root)
    if labels == "none" or (labels == "optional" and not _has_classes(root, splits)):
        return _without_classes(root, splits), ()
    listing = Listing()
    folders = split_folders(root, splits)
    files = {}
    for split, several in folders.items():
        files[split] = {}
        for folder in several:
            for name, paths in _files_by_class(folder, listing).items():
                files[split].setdefault(name, []).extend(paths)
    if known is None:
        class_names = tuple(sorted(files["train"]))
        _check_depth(files["train"], folders["train"])
        _check_classes(files, folders, listing)
    else:
        class_names = _with_images(files)
    listing.log_others(root)
    sources = {
        split: _source(by_class, class_names, root) for split, by_class in files.items()
    }
    return sources, class_names


def _has_classes(root: Path, splits: Mapping | None) -> bool:
    """Tells if all images to train on lie in two folders or more."""
    training = split_folders_without_classes(root, splits)["train"]
    listing = Listing()
    if any(listing.images_in(folder) for folder in training):
        return False
    names = {
        one_spelling(name)
        for folder in training
        for name in subfolders(folder)
        if next(listing.images_below(folder / name), None)
    }
    return len(names) > 1


def _without_classes(root: Path, splits: Mapping | None) -> dict[str, ImageFiles]:
    """Returns all images of each split, which have the label 0."""
    listing, sources = Listing(), {}
    for split, folders in split_folders_without_classes(root, splits).items():
        paths = tuple(path for folder in folders for path in listing.images_below(folder))
        if not paths:
            left_out = listing.left_out()
            raise ValueError(
                "A split needs an image that can be read "
                f"({' '.join(image_suffixes())}). There is none in: "
                f"{listed(repr(os.fspath(folder)) for folder in folders)}."
                + (f" Files left out: {left_out}." if left_out else "")
            )
        sources[split] = ImageFiles(paths, np.zeros(len(paths), "int32"), root)
    listing.log_others(root)
    return sources


def _files_by_class(folder: Path, listing: Listing) -> dict[str, list[Path]]:
    loose = listing.images_in(folder)
    if loose:
        raise ValueError(
            f"Each image must lie in the folder of its class: {LAYOUTS}. Received: "
            f"{os.fspath(loose[0])!r}, and {len(loose) - 1} more without a class. Move "
            "them, or name the folders to take: splits={'train': …}"
        )
    classes = [path for path in visible(folder) if path.is_dir()]
    if not classes:
        raise ValueError(
            f"Images must lie in a folder for each class: {LAYOUTS}. Received: "
            f"{os.fspath(folder)!r} without such a folder"
        )
    files = {}
    for path in classes:
        # Unicode may spell the same letters as one character or as several.
        name = one_spelling(path.name)
        files.setdefault(name, []).extend(listing.images_below(path))
    return files


def _with_images(files: dict[str, dict]) -> tuple[str, ...]:
    """Returns the names of the classes that have an image in any split."""
    return tuple(
        sorted({n for by_class in files.values() for n in by_class if by_class[n]})
    )


def _check_depth(train: Mapping[str, list], folders: Sequence[Path]) -> None:
    """Refuses a single folder that holds the classes, as an unpacked archive does."""
    below = [path for path in visible(folders[0]) if path.is_dir()]
    inside = subfolders(below[0])
    if len(train) == 1 and len(inside) > 1:
        raise ValueError(
            f"There must be two classes or more to tell apart. {os.fspath(folders[0])!r} "
            f"holds one folder, {below[0].name!r}. If the folders in it are the classes "
            f"({listed(map(repr, inside))}), give that one: {os.fspath(below[0])!r}"
        )


def _check_classes(files: dict[str, dict], folders: dict, listing: Listing) -> None:
    for split, by_class in files.items():
        folder = os.fspath(folders[split][0])
        empty = [os.path.join(folder, name) for name in by_class if not by_class[name]]
        if empty:
            others = listing.left_out()
            raise ValueError(
                "Every class needs an image that can be read "
                f"({' '.join(image_suffixes())}). There is none in: "
                f"{listed(map(repr, empty))}. Remove the folder, or add an image."
                + (f" Files left out: {others}." if others else "")
            )
        unknown = sorted(set(by_class) - set(files["train"]))
        if unknown:
            raise ValueError(
                f"Every class must have images to train on. Received in {split!r} only: "
                f"{listed(map(repr, unknown))}, in {folder!r}"
            )


def _source(by_class, class_names, root: Path) -> ImageFiles:
    paths = [path for name in class_names for path in by_class.get(name, ())]
    counts = [len(by_class.get(name, ())) for name in class_names]
    labels = np.repeat(np.arange(len(class_names), dtype="int32"), counts)
    return ImageFiles(tuple(paths), labels, root)
