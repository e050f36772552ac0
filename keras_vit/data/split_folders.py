"""Folders of the splits of a data set: `folder/{train,validation,test}/…`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_vit.data.listing import Listing, visible
from keras_vit.data.spelling import spelled_on_disk
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


def split_folders(root: Path, splits: Mapping | None) -> dict[str, list[Path]]:
    """Returns the folders of each split; without splits the whole folder is "train"."""
    if splits is not None:
        return {
            split: [_innermost(_existing(root, name), split) for name in _several(names)]
            for split, names in splits.items()
        }
    names = subfolders(root)
    known = splits_of(names)
    training = [name for name, split in known.items() if split == "train"]
    if not any(subfolders(root / name) for name in training):
        _check_that_they_are_classes(root, names)
        return {"train": [root]}
    others = [name for name in names if name not in known]
    if others:
        raise ValueError(
            f"{os.fspath(root)!r} holds a folder {training[0]!r} of folders, so each "
            f"folder in it must be a split: {', '.join(KNOWN)}. Received also: "
            f"{listed(map(repr, others))}. {_to_take(known)}. {ARE_CLASSES}"
        )
    return _folder_of_each(root, known)


def split_folders_without_classes(
    root: Path, splits: Mapping | None
) -> dict[str, list[Path]]:
    """Returns the folders of each split, where no folder need be a class.

    Without `splits` folders are splits if all of them have names of splits, one of
    training; otherwise the whole folder is "train".
    """
    if splits is not None:
        return split_folders(root, splits)
    names = subfolders(root)
    known = splits_of(names)
    if "train" in known.values() and len(known) == len(names):
        return _folder_of_each(root, known)
    return {"train": [root]}


def _folder_of_each(root: Path, known: Mapping[str, str]) -> dict[str, list[Path]]:
    """Returns the one folder of each split, from the split of each folder's name."""
    folders = {}
    for split in KNOWN:
        found = [name for name in known if known[name] == split]
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


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, without those that systems leave."""
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
    inside = {name: subfolders(root / name) for name in names}
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
