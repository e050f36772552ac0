"""A folder of images as a source: `folder/<class>/…` or `folder/<split>/<class>/…`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_vit.data.sources import ImageFiles
from keras_vit.data.wording import listed

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
LAYOUTS = "folder/<class>/<image> or folder/{train,validation,test}/<class>/<image>"


def load_folder(
    root: str | os.PathLike,
    splits: Mapping[str, str] | None,
    known: Sequence[str] | None = None,
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """Sources and class names of a folder; `splits` names its sub-folders by split.

    Where the classes are `known`, each split may lack some of them.
    """
    root = Path(root)
    folders = _split_folders(root, splits)
    files = {split: _files_by_class(folder) for split, folder in folders.items()}
    if known is None:
        class_names = tuple(sorted(files["train"]))
        _check_classes(files, folders)
    else:
        class_names = _with_images(files)
    sources = {
        split: _source(by_class, class_names, root) for split, by_class in files.items()
    }
    return sources, class_names


def _split_folders(root: Path, splits: Mapping[str, str] | None) -> dict[str, Path]:
    """Folder of each split; that of all examples as "train" where there are no splits."""
    if splits is not None:
        return {split: _existing(root / name) for split, name in splits.items()}
    subfolders = {folder.name for folder in _visible(root) if folder.is_dir()}
    if "train" not in subfolders or not _holds_folders(root / "train"):
        return {"train": root}
    known = {name for names in SPLIT_FOLDERS.values() for name in names}
    if subfolders - known:
        raise ValueError(
            f"{os.fspath(root)!r} holds a folder 'train' of folders, so each folder in it "
            f"must be a split: {', '.join(sorted(known))}. Received also: "
            f"{listed(map(repr, sorted(subfolders - known)))}. Name the folder of each "
            "split: splits={'train': …, 'validation': …, 'test': …}"
        )
    folders = {}
    for split, names in SPLIT_FOLDERS.items():
        found = [name for name in names if name in subfolders]
        if len(found) > 1:
            raise ValueError(
                f"{os.fspath(root)!r} holds several folders for the split {split!r}: "
                f"{', '.join(found)}. Name one: splits={{'train': …, {split!r}: …}}"
            )
        if found:
            folders[split] = root / found[0]
    return folders


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"`splits` names a folder that is not there: {folder}")
    return folder


def _holds_folders(folder: Path) -> bool:
    return any(path.is_dir() for path in _visible(folder))


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    inside = list(_visible(folder))
    loose = [path for path in inside if _is_image(path)]
    if loose:
        raise ValueError(
            f"Each image must lie in the folder of its class: {LAYOUTS}. Received: "
            f"{os.fspath(loose[0])!r}, and {len(loose) - 1} more without one"
        )
    classes = {path.name: path for path in inside if path.is_dir()}
    if not classes:
        raise ValueError(
            f"Images must lie in a folder for each class: {LAYOUTS}. There is no such "
            f"folder in {os.fspath(folder)!r}"
        )
    return {name: list(_images_in(path)) for name, path in classes.items()}


def _images_in(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Images in a folder and the folders in it, in the order of their names."""
    real = folder.resolve()
    if real in above:  # a link to a folder that it lies in
        return
    for path in _visible(folder):
        if _is_image(path):
            yield path
        elif path.is_dir():
            yield from _images_in(path, (*above, real))


def _visible(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name != "__MACOSX":
            yield path


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def _with_images(files: dict[str, dict]) -> tuple[str, ...]:
    """Names of the classes that have an image in any split."""
    return tuple(
        sorted({n for by_class in files.values() for n in by_class if by_class[n]})
    )


def _check_classes(files: dict[str, dict], folders: dict[str, Path]) -> None:
    for split, by_class in files.items():
        folder = os.fspath(folders[split])
        empty = [os.path.join(folder, name) for name in by_class if not by_class[name]]
        if empty:
            raise ValueError(
                "Every class needs an image with one of the suffixes "
                f"{' '.join(SUFFIXES)}. There is none in: "
                f"{listed(map(repr, empty))}. Remove the folder, or add an image."
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
