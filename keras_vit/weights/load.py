"""Strict loading: every tensor is used or dropped for a stated reason, or none is."""

import logging
import os
import re
import warnings
import zipfile
import zlib
from collections import defaultdict
from dataclasses import dataclass, field

import h5py
import keras
import numpy as np

from keras_vit.weights.google import GoogleCheckpoint
from keras_vit.weights.resize import resize_grid

logger = logging.getLogger("keras_vit")

GRID = "position_embedding/grid"
LOADABLE = ".npz (Google's layout), .keras or .weights.h5 (Keras' own)"


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of a checkpoint and of each variable of a model.

    Attributes:
        source: the checkpoint.
        loaded: paths of the variables that were filled.
        resized: path → (shape in the checkpoint, shape in the model).
        dropped: name of a tensor that was not used → the reason.
        fresh: paths of the variables that keep the values they had.
    """

    source: str
    loaded: tuple[str, ...]
    resized: dict[str, tuple] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()

    def __str__(self):
        lines = [f"{self.source}: {len(self.loaded)} variables loaded"]
        for path, (old, new) in self.resized.items():
            lines.append(f"  resized {path} from {old} to {new}")
        for name, reason in self.dropped.items():
            lines.append(f"  dropped {name}: {reason}")
        for path in self.fresh:
            lines.append(f"  left as it was: {path}")
        return "\n".join(lines)


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
        return _load_weights_h5(model, path, skip_mismatched_head)
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
    _tell_fresh(source, fresh, variables)
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


def saved_model(path: str | os.PathLike) -> keras.Model:
    """The model of a `.keras` file, not compiled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or not a model that Keras can load.
    """
    _check_exists(path)
    try:
        return keras.models.load_model(path, compile=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, TypeError,
            ValueError) as error:  # fmt: skip
        raise ValueError(
            f"{path!r} is not a complete .keras file of a model known here: {error}"
        ) from error


def model_tensors(model: keras.Model) -> dict[str, np.ndarray]:
    """The weights of a model by path, as `assign` takes them."""
    return {
        path: keras.ops.convert_to_numpy(variable)
        for path, variable in _variables(model).items()
    }


def _load_weights_h5(model, path, skip_mismatched_head):
    """Lets Keras read its own file, which names no variables; the grid resizes itself."""
    _check_exists(path)
    variables = _variables(model)
    grid_shape = _check_weights_h5(path, model)
    before = model.get_weights()
    head = [layer for layer in model.layers if layer.name == "head"]
    # Tried in turn: the whole model, then all but the head. Never the optimizer.
    attempts = [[]] + ([head] if head and skip_mismatched_head else [])
    optimizer = [getattr(model, "optimizer", None)]  # absent until compiled
    errors = []
    for skipped in attempts:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of layers that failed: told below
                model.load_weights(path, objects_to_skip=optimizer + skipped)
        except Exception as error:
            model.set_weights(before)
            errors.append(error)
            continue
        fresh = [p for p in variables if skipped and p.startswith("head/")]
        _tell_fresh(path, fresh, variables)
        new = tuple(variables[GRID].shape) if GRID in variables else None
        return LoadReport(
            path,
            loaded=tuple(p for p in variables if p not in fresh),
            resized={GRID: (grid_shape, new)} if grid_shape != new else {},
            dropped={"head": "the model's head has another size"} if fresh else {},
            fresh=tuple(fresh),
        )
    raise ValueError(
        f"{path!r} does not fit the model {model.name!r}, which is unchanged: {errors[0]}"
    ) from errors[0]


def _check_weights_h5(path, model):
    """Compares the number of weights, which Keras does not; gives the grid's shape."""
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
            f"holds {len(shapes)} weights, expected {len(model.weights)}. Build the "
            "model with the arguments it was saved with, or save it as .keras, which "
            "holds them, for `keras_vit.from_pretrained`."
        )
    return shapes.get("layers/position_embedding/vars/grid")


def _check_exists(path):
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"There is no checkpoint at {path!r}. Expected the path of a file."
        )


def _tell_fresh(source, fresh, variables):
    if fresh:
        logger.warning(
            "%s: the head of %d classes is not in the checkpoint and keeps the values "
            "it has, which are zeros if it is new.",
            source,
            variables["head/bias"].shape[0],
        )
