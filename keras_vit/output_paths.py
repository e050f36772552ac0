"""Checks of paths before files are written to them."""

import os


def check_free(target: str, overwrite: bool) -> None:
    """Checks that a path can be written to, before work that takes minutes.

    Raises:
        ValueError: if `target` is a file or a full folder, and not `overwrite`.
        FileNotFoundError: if the folder of `target` does not exist.
    """
    taken = os.listdir(target) if os.path.isdir(target) else os.path.exists(target)
    if taken and not overwrite:
        raise ValueError(
            f"There is something at {target!r} already. Choose another path, or give "
            "`overwrite` to replace it."
        )
    folder = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"There is no folder {folder!r} to write to. Make it first."
        )


def check_kind(target: str, is_folder: bool) -> None:
    """Refuses to replace a folder by a file, or a file by a folder.

    Raises:
        ValueError: if `target` is of the other kind.
    """
    if not is_folder and os.path.isdir(target):
        raise ValueError(
            f"{target!r} is a folder, and a file is to be written. Give the path of a file "
            "in it."
        )
    if is_folder and os.path.isfile(target):
        raise ValueError(
            f"{target!r} is a file, and a folder is to be written. Choose another path."
        )
