"""Sources of folders: `folder/<class>/…` or `folder/<split>/<class>/…`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_vit.data.images import image_suffixes
from keras_vit.data.listing import Listing, visible
from keras_vit.data.sources import ImageFiles
from keras_vit.data.spelling import one_spelling, spelled_on_disk
from keras_vit.data.split_names import (
    KNOWN,
    look_like_splits,
    mention_several_splits,
    mentions_training,
    splits_of,
)
from keras_vit.data.wording import listed
from keras_vit.log import log

LAYOUTS = "folder/<class>/<image> or folder/{train,validation,test}/<class>/<image>"
NAME_THEM = "Name the folder of each split: splits={'train': …, 'validation': …, 'test': …}"
ARE_CLASSES = (
    "Name the folder itself if these are the classes: splits={'train': '.'} "
    "and validation_split=0.2"
)


def load_folder(
    root: str | os.PathLike[str],
    splits: Mapping[str, str | Sequence[str]] | None,
    known: Sequence[str] | None = None,
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """Returns sources and class names of a folder; `splits` names its sub-folders by split.

    If the classes are `known`, a split may lack some of them.

    Raises:
        FileNotFoundError: if a folder that `splits` names does not exist.
        ValueError: if the folders do not make splits and classes.
    """
    root = Path(root)
    listing = Listing()
    folders = _split_folders(root, splits)
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


def _split_folders(root: Path, splits: Mapping | None) -> dict[str, list[Path]]:
    """Returns the folders of each split; without splits the whole folder is "train"."""
    if splits is not None:
        return {
            split: [_innermost(_existing(root, name), split) for name in _several(names)]
            for split, names in splits.items()
        }
    subfolders = [path.name for path in visible(root) if path.is_dir()]
    known = splits_of(subfolders)
    training = [name for name, split in known.items() if split == "train"]
    if not any(_subfolders(root / name) for name in training):
        _check_that_they_are_classes(root, subfolders)
        return {"train": [root]}
    others = [name for name in subfolders if name not in known]
    if others:
        raise ValueError(
            f"{os.fspath(root)!r} holds a folder {training[0]!r} of folders, so each "
            f"folder in it must be a split: {', '.join(KNOWN)}. Received also: "
            f"{listed(map(repr, others))}. {_to_take(known)}. {ARE_CLASSES}"
        )
    folders = {}
    for split in KNOWN:
        found = [name for name in subfolders if known[name] == split]
        if len(found) > 1:
            raise ValueError(
                f"{os.fspath(root)!r} holds several folders for the split {split!r}: "
                f"{', '.join(found)}. {NAME_THEM}"
            )
        if found:
            folders[split] = [_innermost(root / found[0], split)]
    return folders


def _to_take(known: Mapping[str, str]) -> str:
    """Advice to name the folders that are known splits."""
    if len(set(known.values())) < len(known):  # several of one split
        return NAME_THEM
    named = {split: name for name, split in known.items()}
    return f"Name the folder of each split, others are left out: splits={named}"


def _several(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _existing(root: Path, name: str) -> Path:
    folder = spelled_on_disk(root / name)
    if not folder.is_dir():
        raise FileNotFoundError(f"`splits` names a folder that does not exist: {folder}")
    return folder


def _subfolders(folder: Path) -> list[str]:
    return [path.name for path in visible(folder) if path.is_dir()]


def _innermost(folder: Path, split: str) -> Path:
    """The folder of classes, also if an archive nests it: `seg_train/seg_train/<class>`."""
    inside = list(visible(folder))
    names = [path.name for path in inside]
    if len(inside) == 1 and inside[0].is_dir() and splits_of(names) == {names[0]: split}:
        return _innermost(inside[0], split)
    return folder


def _check_that_they_are_classes(root: Path, names: Sequence[str]) -> None:
    """Refuses folders that seem to be parts of a data set and not classes."""
    inside = {name: _subfolders(root / name) for name in names}
    are_parts = any(inside.values()) or mentions_training(names)
    if len(names) > 1 and are_parts and look_like_splits(names):
        raise ValueError(
            f"The folders in {os.fspath(root)!r} look like parts of a data set, not like "
            f"classes: {listed(map(repr, names))}. {NAME_THEM}; each of them holds a "
            f"folder for each class. {ARE_CLASSES}"
        )
    for name, folders in inside.items():
        is_divided = len(folders) > 1 and look_like_splits(folders)
        if is_divided and "train" in splits_of(folders).values():
            folder = os.fspath(root / name)
            raise ValueError(
                f"The folder {folder!r} holds parts of a data set, "
                f"{listed(map(repr, folders))}, so the images of all of them would be one "
                f"class. If its parts hold the classes, give that folder instead. "
                f"Otherwise sort the images by split first: {LAYOUTS}; or give a CSV file "
                "with a column 'split'."
            )
    _check_if_all_hold_the_same(root, inside)


def _check_if_all_hold_the_same(root: Path, inside: Mapping[str, Sequence[str]]) -> None:
    """Refuses or warns if all folders hold folders of the same names, as splits do.

    This finds splits with names in any language.
    """
    most = max(inside.values(), key=len, default=[])
    if len(inside) < 2 or len(most) < 2 or not all(inside.values()):
        return
    is_same = all(set(most) >= set(names) for names in inside.values())
    if not is_same or any(Listing().images_in(root / name) for name in inside):
        return
    if mention_several_splits(inside):  # "train_mini" and "val", "Train - Copy" and "Test"
        raise ValueError(
            f"The folders in {os.fspath(root)!r} hold folders of the same names "
            f"({listed(map(repr, most))}) and seem to be splits: "
            f"{listed(map(repr, inside))}. {NAME_THEM}. {ARE_CLASSES}"
        )
    log.warning(
        "The folders of the classes (%s) hold folders of the same names (%s). If the "
        "first are parts of the data set and the second its classes, name the parts with "
        "`splits`.",
        listed(map(repr, inside)),
        listed(map(repr, most)),
    )


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
    inside = _subfolders(below[0])
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
