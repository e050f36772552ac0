"""Names of the predicted classes, as in `keras.applications`."""

import json
import os
from typing import Any

import keras
import numpy as np

from keras_vit.download.web import FORBIDDEN, is_offline


def decode_predictions(
    preds: Any,
    top: int = 5,
    class_index: str | os.PathLike[str] | None = None,
    model: keras.Model | None = None,
) -> list[list[tuple[str, str, float]]]:
    """Names the most probable classes: a model's own, or those of ImageNet-1k.

    Args:
        preds: array or tensor (batch, classes), the output of a model; without `model`, of
            one with the 1000 classes of ImageNet-1k.
        top: int, number of classes to name.
        class_index: path of a copy of Keras' `imagenet_class_index.json`, for use without
            network. `None` takes the file that `keras.applications` downloads once into
            `~/.keras/models/`.
        model: a model of this package. If it has names of its classes, as after
            `training.finetune`, they are used and `class_index` is not read.

    Returns:
        For each image a list of (WordNet id, name, score), the highest score first. The
        classes of `model` have their number, as a string, instead of a WordNet id.

    Raises:
        ValueError: if `preds` has another shape, or the file other contents.
        FileNotFoundError: if there is no file at `class_index`.
        ConnectionError: if the file is not there and cannot be downloaded.
    """
    preds = keras.ops.convert_to_numpy(preds)
    if model is not None and (names := model.get_config().get("class_names")):
        return _decoded(preds, names, top)
    if preds.ndim != 2 or preds.shape[1] != 1000:
        raise ValueError(
            "`decode_predictions` names the 1000 classes of ImageNet-1k, in an array of "
            f"shape (batch, 1000). Received: an array of shape {preds.shape}"
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
    with open(class_index, encoding="utf-8") as file:
        names = json.load(file)
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(1000)}:
        raise ValueError(
            f"{os.fspath(class_index)!r} is not Keras' imagenet_class_index.json, which "
            'maps "0" … "999" to [WordNet id, name]'
        )
    best = np.argsort(-preds, axis=1)[:, :top]
    return [
        [(*names[str(i)], row[i]) for i in indices]
        for row, indices in zip(preds, best, strict=True)
    ]


def _decoded(preds, names, top):
    if preds.ndim != 2 or preds.shape[1] != len(names):
        raise ValueError(
            f"The model names {len(names)} classes, in an array of shape (batch, "
            f"{len(names)}). Received: an array of shape {preds.shape}"
        )
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(str(i), names[i], row[i]) for i in indices]
        for row, indices in zip(preds, best, strict=True)
    ]


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
