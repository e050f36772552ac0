"""Paths of files to write: checks, and writing in two steps."""

import contextlib
import os
from collections.abc import Iterator


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


def check_file(target: str, overwrite: bool) -> None:
    """Checks that a file can be written to a path, before work that takes minutes.

    Raises:
        ValueError: if `target` is a folder, or a file and not `overwrite`.
        FileNotFoundError: if the folder of `target` does not exist.
    """
    check_kind(target, is_folder=False)
    check_free(target, overwrite)


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


@contextlib.contextmanager
def partial_path(target: str, ending: str = "") -> Iterator[str]:
    """A path beside `target` to write to; it becomes `target` after the `with` block.

    After an error nothing is left at it, and `target` is unchanged.

    Args:
        target: path of the file.
        ending: ending of the path to write to, if the writer depends on it.
    """
    partial = f"{target}.{os.getpid()}.part{ending}"
    try:
        yield partial
        os.replace(partial, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)
