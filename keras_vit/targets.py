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
