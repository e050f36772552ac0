"""Names of the predicted classes, as in `keras.applications`."""

import os
from typing import Any

import keras
import numpy as np

from keras_vit.download.web import FORBIDDEN, is_offline
from keras_vit.zoo.class_lists import LISTS, classes_in_file, published_classes

IMAGENET_1K = 1000


def decode_predictions(
    preds: Any,
    top: int = 5,
    class_index: str | os.PathLike[str] | None = None,
    model: keras.Model | None = None,
) -> list[list[tuple[str, str, float]]]:
    """Names the most probable classes: a model's own, or those of ImageNet.

    Args:
        preds: array or tensor (batch, classes), the output of a model. Without `model` and
            `class_index` the classes are the 1000 of ImageNet-1k, or those of a head of
            ImageNet-21k: Google's 21,843, timm's 21,841 (`in22k`) or 11,821 (`in12k`), or
            MIIL's 11,221.
        top: int, number of classes to name.
        class_index: path of a file with the names: a copy of Keras'
            `imagenet_class_index.json`; a text file with a line for each class, an id, a
            tab and a name; or one with names alone. `None` takes the published list, which
            is downloaded once: Keras' own into `~/.keras/models/`, timm's into the cache
            of checkpoints.
        model: a model of this package. If it has names of its classes, as after
            `training.finetune`, they are used and `class_index` is not read.

    Returns:
        For each image a list of (WordNet id, name, score), the highest score first. The
        classes of `model`, and of a file without ids, have their number, as a string,
        instead of a WordNet id. Names of ImageNet-21k are all nouns of an id.

    Raises:
        ValueError: if `preds` has another shape, or the file other contents, or another
            digest than the published one.
        FileNotFoundError: if there is no file at `class_index`.
        ConnectionError: if the file is not there and cannot be downloaded.
    """
    preds = keras.ops.convert_to_numpy(preds)
    if model is not None and (names := model.get_config().get("class_names")):
        return _decoded(preds, names, top)
    if preds.ndim != 2:
        raise ValueError(
            "`decode_predictions` takes an array of shape (batch, classes). Received: an "
            f"array of shape {preds.shape}"
        )
    count = preds.shape[1]
    if class_index is None and count in LISTS:
        return _named(preds, published_classes(count), top)
    if class_index is None and count != IMAGENET_1K:
        sizes = ", ".join(f"{size:,}" for size in sorted((IMAGENET_1K, *LISTS)))
        raise ValueError(
            f"`decode_predictions` knows the names of {sizes} classes (ImageNet-1k and "
            f"-21k), in an array of shape (batch, classes). Received: an array of shape "
            f"{preds.shape}. Give the `model` if it has `class_names`, or a file with a "
            "name in each line as `class_index`."
        )
    if class_index is None and is_offline():
        class_index = _downloaded_class_index()
    if class_index is None:
        try:
            return keras.applications.imagenet_utils.decode_predictions(preds, top)
        except Exception as error:  # Keras' downloader raises a bare Exception
            raise ConnectionError(
                f"Keras could not get imagenet_class_index.json: {error}. Without "
                "network, copy it from another machine's ~/.keras/models/ and give its "
                "path as `class_index`."
            ) from error
    return _named(preds, classes_in_file(class_index, count), top)


def _named(preds, classes, top):
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(*classes[i], row[i]) for i in indices]
        for row, indices in zip(preds, best, strict=True)
    ]


def _decoded(preds, names, top):
    if preds.ndim != 2 or preds.shape[1] != len(names):
        raise ValueError(
            f"The model names {len(names)} classes, in an array of shape (batch, "
            f"{len(names)}). Received: an array of shape {preds.shape}"
        )
    return _named(preds, [(str(i), name) for i, name in enumerate(names)], top)


def _downloaded_class_index() -> str:
    """Path of the file that Keras has downloaded before."""
    home = os.environ.get("KERAS_HOME", os.path.join(os.path.expanduser("~"), ".keras"))
    path = os.path.join(home, "models", "imagenet_class_index.json")
    if not os.path.exists(path):
        raise ConnectionError(
            f"{FORBIDDEN}, and there is no file {path!r}. Copy it from another machine's "
            "~/.keras/models/, or give its path as `class_index`."
        )
    return path
