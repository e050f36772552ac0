"""Places that files are written to."""

import os


def check_free(target: str, overwrite: bool) -> None:
    """That something can be written to a path, before what takes minutes.

    Raises:
        ValueError: if there is a file or a folder that is not empty, and not `overwrite`.
        FileNotFoundError: if there is no folder to write it to.
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
    """Refuses a folder where a file is to be written, and a file in place of a folder.

    Raises:
        ValueError: if one does, which is never replaced by the other.
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
