"""Strict loading: every tensor is used or dropped for a stated reason, or none is."""

import os
import re
from collections import defaultdict

import keras
import numpy as np

from keras_vit.weights.google import GoogleCheckpoint
from keras_vit.weights.keras_files import (
    GRID,
    load_weights_h5,
    model_tensors,
    saved_model,
)
from keras_vit.weights.report import LoadReport, tell_fresh_head
from keras_vit.weights.resize import resize_grid

LOADABLE = ".npz (Google's layout), .keras or .weights.h5 (Keras' own)"


def load_file(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    skip_mismatched_head: bool = True,
    position_grid: tuple[int, int] | None = None,
) -> LoadReport:
    """Loads a local checkpoint; see `keras_vit.load_weights`."""
    path = os.fspath(path)
    if path.endswith(".npz"):
        with GoogleCheckpoint(path, position_grid) as checkpoint:
            grid = _variables(model).get(GRID)
            model_grid = None if grid is None else tuple(grid.shape[:2])
            tensors = checkpoint.tensors(model_grid)
        return assign(model, tensors, path, skip_mismatched_head=skip_mismatched_head)
    if path.endswith(".keras"):
        tensors = model_tensors(saved_model(path))
        return assign(model, tensors, path, skip_mismatched_head=skip_mismatched_head)
    if path.endswith(".weights.h5"):
        return load_weights_h5(model, path, skip_mismatched_head)
    raise ValueError(
        f"`load_weights` reads {LOADABLE}. Received: {path!r}. Rename the file if its "
        "ending hides one of these."
    )


def assign(
    model: keras.Model,
    tensors: dict[str, np.ndarray],
    source: str,
    *,
    skip_mismatched_head: bool = True,
) -> LoadReport:
    """Assigns tensors to the variables of the same path, all of them or none.

    A position grid of another size is resized, and a head of another size dropped if
    `skip_mismatched_head`; anything else that does not fit is an error.

    Raises:
        ValueError: listing every tensor that is unused, missing or of another shape.
    """
    variables = _variables(model)
    tensors = dict(tensors)
    dropped = _drop_head(variables, tensors, skip_mismatched_head)
    resized = {}
    if GRID in tensors and GRID in variables:
        old, new = tensors[GRID], tuple(variables[GRID].shape)
        if old.ndim == 3 and old.shape[2] == new[2] and old.shape != new:
            interpolation = model.get_layer("position_embedding").interpolation
            tensors[GRID] = resize_grid(old, new[:2], interpolation)
            resized[GRID] = (old.shape, new)

    head = {path for path in variables if path.startswith("head/")}
    fresh = head if any(name.startswith("head/") for name in dropped) else set()
    if skip_mismatched_head and not head & set(tensors):
        fresh = head
    unused = set(tensors) - set(variables)
    missing = set(variables) - set(tensors) - fresh
    misshaped = {
        path: (tensors[path].shape, tuple(variables[path].shape))
        for path in set(tensors) & set(variables)
        if tensors[path].shape != tuple(variables[path].shape)
    }
    if unused or missing or misshaped:
        raise _mismatch(source, model, unused, missing, misshaped)

    for path in list(tensors):
        variables[path].assign(tensors.pop(path))
    if fresh:
        tell_fresh_head(source, variables["head/bias"].shape[0])
    loaded = tuple(path for path in variables if path not in fresh)
    return LoadReport(source, loaded, resized, dropped, tuple(sorted(fresh)))


def _variables(model):
    """The model's weights by path; the names by which conversion tables know them."""
    return {variable.path: variable for variable in model.weights}


def _drop_head(variables, tensors, skip_mismatched_head):
    """Takes out of `tensors` what the model's own head replaces; gives the reasons."""
    if not any(path.startswith("head/") for path in variables):
        reason, layers = "the model has no head", ["head"]
        if "pre_logits/kernel" not in variables:
            layers.append("pre_logits")
    elif skip_mismatched_head and any(
        path.startswith("head/") and array.shape != tuple(variables[path].shape)
        for path, array in tensors.items()
        if path in variables
    ):
        reason, layers = "the model's head has another size", ["head"]
        if "pre_logits/kernel" not in variables:
            # Fine-tuning replaces the whole pre-training head (section 3.2 of the paper).
            layers.append("pre_logits")
    else:
        return {}
    names = [name for name in tensors if name.split("/")[0] in layers]
    for name in names:
        del tensors[name]
    return dict.fromkeys(names, reason)


def _mismatch(source, model, unused, missing, misshaped):
    lines = [f"{source!r} does not fit the model {model.name!r}, which is unchanged."]
    if unused:
        lines.append(f"In the file, but not in the model: {_listed(unused)}")
    if missing:
        lines.append(f"In the model, but not in the file: {_listed(missing)}")
    if misshaped:
        shapes = [f"{p} {old}, expected {new}" for p, (old, new) in misshaped.items()]
        lines.append(f"Of another shape: {_listed(shapes)}")
    lines.append(
        "`keras_vit.from_pretrained` builds the model that fits a file; "
        "`skip_mismatched_head=True` lets a head of another size be."
    )
    return ValueError("\n".join(lines))


def _listed(names):
    """Names in order; those that differ in the block's number alone as one."""
    alike = defaultdict(list)
    for name in sorted(names):
        alike[re.sub(r"block_\d+/", "block_*/", name)].append(name)
    return ", ".join(
        f"{pattern} (in {len(group)} blocks)" if len(group) > 1 else group[0]
        for pattern, group in alike.items()
    )
