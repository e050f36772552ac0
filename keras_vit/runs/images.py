"""The images of a run: loaded from arguments that `config.json` keeps."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_vit.data import ImageData, load
from keras_vit.data.listing import Listing


def absolute_source(source: str | os.PathLike[str]) -> str:
    """The absolute path of a file or folder; the name of a data set as it is.

    Raises:
        ValueError: if it is neither a path nor a name.
    """
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            "`data` must be a folder, a CSV file or the name of a data set, which a run "
            f"loads again later. Received: {type(source).__name__}. Train on data in "
            "memory with keras_vit.training.finetune(model, data)."
        )
    source = os.fspath(source)
    return os.path.abspath(source) if os.path.exists(source) else source


def load_data(arguments: Mapping[str, Any]) -> ImageData:
    """Calls `keras_vit.data.load`.

    Args:
        arguments: the arguments by name, with `source` among them.

    Raises:
        ValueError: also if TensorFlow Datasets cannot prepare the data set.
    """
    arguments = dict(arguments)
    try:
        return load(arguments.pop("source"), **arguments)
    except RuntimeError as error:  # of TensorFlow Datasets
        raise ValueError(str(error)) from error


def images_in(folder: str | os.PathLike[str]) -> tuple[list[str], str]:
    """Sorted paths of the images below a folder, and a text on the files left out."""
    listing = Listing()
    paths = [os.fspath(path) for path in listing.images_below(Path(folder))]
    return paths, listing.left_out()
