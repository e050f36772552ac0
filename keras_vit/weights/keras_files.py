"""Keras' own files: `.keras` and `.weights.h5`."""

import os
import warnings
import zipfile
import zlib

import h5py
import keras

from keras_vit.weights.files import check_exists
from keras_vit.weights.report import LoadReport, tell_fresh_head

GRID = "position_embedding/grid"


def saved_model(path: str) -> keras.Model:
    """The model of a `.keras` file, not compiled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or not a model that Keras can load.
    """
    check_exists(path)
    try:
        return keras.models.load_model(path, compile=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, TypeError,
            ValueError) as error:  # fmt: skip
        raise ValueError(
            f"{path!r} is not a complete .keras file of a model known here: {error}"
        ) from error


def is_keras_hub(path: str) -> bool:
    """Whether a `.weights.h5` file is of a KerasHub ViT, not of a model of ours."""
    try:
        with h5py.File(path) as file:
            layers = file.get("layers", {})
            return any(name.startswith("vi_t_") for name in layers)
    except OSError:
        return False


def load_weights_h5(model, path: str, skip_mismatched_head: bool) -> LoadReport:
    """Lets Keras read its own file, which names no variables; the grid resizes itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or does not fit the model, which is unchanged.
    """
    check_exists(path)
    saved_grid = _check_number_of_weights(path, model)
    before = model.get_weights()
    head = [layer for layer in model.layers if layer.name == "head"]
    # Tried in turn: the whole model, then all but the head. Never the optimizer.
    attempts = [[], head] if head and skip_mismatched_head else [[]]
    optimizer = [getattr(model, "optimizer", None)]  # absent until compiled
    errors = []
    for skipped in attempts:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of layers that failed: told below
                model.load_weights(path, objects_to_skip=optimizer + skipped)
        except Exception as error:  # Keras passes on whatever HDF5 and its layers raise
            model.set_weights(before)
            errors.append(error)
        else:
            return _report(model, path, saved_grid, fresh_head=bool(skipped))
    raise ValueError(
        f"{path!r} does not fit the model {model.name!r}, which is unchanged: {errors[0]}"
    ) from errors[0]


def _check_number_of_weights(path, model):
    """Compares what Keras does not, and gives the shape of the position grid."""
    shapes = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset) and name.startswith("layers/"):
            shapes[name] = item.shape

    try:
        with h5py.File(path) as file:
            file.visititems(note)
    except OSError as error:
        raise ValueError(
            f"{path!r} ({os.path.getsize(path):,} bytes) is not a complete .weights.h5 "
            f"file: {error}"
        ) from error
    if len(shapes) != len(model.weights):
        raise ValueError(
            f"{path!r} does not fit the model {model.name!r}, which is unchanged: it "
            f"holds {len(shapes)} weights, expected {len(model.weights)}. Build the model "
            "with the arguments it was saved with, or save it as .keras, which holds them, "
            "for `keras_vit.from_pretrained`."
        )
    return shapes.get("layers/position_embedding/vars/grid")


def _report(model, path, saved_grid, fresh_head):
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    fresh = tuple(p for p in shapes if fresh_head and p.startswith("head/"))
    if fresh:
        tell_fresh_head(path, shapes["head/bias"][0])
    grid = shapes.get(GRID)
    return LoadReport(
        path,
        loaded=tuple(p for p in shapes if p not in fresh),
        resized={GRID: (saved_grid, grid)} if saved_grid != grid else {},
        dropped={"head": "the model's head has another size"} if fresh else {},
        fresh=fresh,
    )
