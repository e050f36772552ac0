"""Settings that a resumed training must share with its checkpoint."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import keras

from keras_vit.data.image_data import ImageData
from keras_vit.keras_internals.fit_loop import FitLoop, Position
from keras_vit.log import log
from keras_vit.training.resume import training_state
from keras_vit.training.resume.checkpoint_files import Checkpoint
from keras_vit.weight_paths import public_path

FORMAT = 1  # version of the checkpoint format
_REFUSED = ("configuration", "data", "training", "first_epoch")  # if they differ
_WARNED = ("backend", "devices", "jit_compile", "versions")
_RENAMED = {"resolution": "image_size"}  # fields of recipes in older checkpoints
# Fields that older checkpoints lack, and the value that stands for what was done then.
_ADDED = {"evaluation_interpolation": "bilinear"}


def describe(
    loop: FitLoop, params: Mapping, data: ImageData | None, configuration: dict
) -> dict[str, Any]:
    """The settings of a training, as a dictionary for JSON.

    Args:
        loop: loop of a built model.
        params: parameters that `fit` gives to callbacks.
        data: training data of this package, or `None`.
        configuration: `configuration` of `ExactResume`.
    """
    model = loop.model
    compiled = _without_numbers(jsonable(model.get_compile_config() or {}))
    jit_compile = compiled.pop("jit_compile", None)
    return {
        "format": FORMAT,
        "configuration": configuration,
        "training": {
            "steps_per_epoch": params.get("steps"),
            "steps_per_execution": model.steps_per_execution,
            "dtype_policy": model.dtype_policy.name,
            **compiled,
        },
        "data": _data_settings(data),
        "epochs_asked": params.get("epochs"),
        "first_epoch": loop.first_epoch,
        "backend": keras.backend.backend(),
        "devices": training_state.devices(model),
        "jit_compile": jit_compile,
        "versions": training_state.versions(),
    }


def _data_settings(data):
    if data is None:
        return None
    pipeline = dataclasses.asdict(data.pipeline)
    pipeline.pop("num_parallel_calls")  # does not change the batches
    return {
        "fingerprint": data.fingerprint,
        "seed": data.seed,
        "pipeline": jsonable(pipeline),
    }


def check(checkpoint: Checkpoint, ours: dict, model: keras.Model) -> None:
    """Checks that a checkpoint is of this training; warns of another environment.

    Args:
        checkpoint: checkpoint to resume from.
        ours: result of `describe`.
        model: model to be trained.

    Raises:
        ValueError: if it is of another training or format; lists the differences.
    """
    theirs = checkpoint.record
    if theirs["format"] != FORMAT:
        raise ValueError(
            f"{str(checkpoint.path)!r} is in format {theirs['format']}, this version "
            f"of keras_vit writes {FORMAT}. Use keras_vit "
            f"{theirs['versions']['keras_vit']}, or choose another `directory`."
        )
    different = _differences(checkpoint, ours, model)
    if different:
        lines = "\n  ".join(different[:20])
        raise ValueError(
            "A training can resume only with the settings of its checkpoint. Received: "
            f"{str(checkpoint.path)!r}, which differs:\n  {lines}\nRestore the settings to "
            "resume; to train from the start, choose another `directory` or delete this "
            "one."
        )
    _warn(theirs, ours)


def _differences(checkpoint, ours, model):
    theirs, tensors = checkpoint.record, checkpoint.tensors
    parts = ("configuration", "data")
    theirs = {**theirs, **{part: _renamed(theirs[part], ours[part]) for part in parts}}
    same_backend = theirs["backend"] == ours["backend"]
    different = [
        line
        for part in _REFUSED
        for line in _compare(*map(_comparable, (theirs[part], ours[part])), part)
        # Each backend has its own classes of Keras' optimizers, of the same name.
        if same_backend or not _IMPLEMENTATION.match(line)
    ]
    for group in ("model", "optimizer"):
        different += training_state.differences(model, group, tensors, same_backend)
    position = Position(**theirs["position"])
    epochs = ours["epochs_asked"]
    if epochs is not None and position.epoch >= epochs:
        different.append(f"it is in epoch {position.epoch + 1}, `epochs` is {epochs}")
    if not different and position.step:
        different = training_state.differences(model, "metrics", tensors, same_backend)
    return different


def _renamed(theirs, ours):
    """A part of an older checkpoint's record with the fields of today."""
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return theirs
    names = {key: key if key in ours else _RENAMED.get(key, key) for key in theirs}
    added = {key: value for key, value in _ADDED.items() if key in ours}
    return added | {n: _renamed(theirs[key], ours.get(n)) for key, n in names.items()}


def _warn(theirs, ours):
    """Warns if results may differ from an uninterrupted run by rounding."""
    changes = [
        line
        for part in _WARNED
        for line in _compare(theirs[part], ours[part], part)
        if part != "versions" or "None" not in line  # version of the other backend
    ]
    if changes:
        log.warning(
            "Training resumes with the weights and the optimizer of the checkpoint, but "
            "not bit for bit: rounding (on another backend or number of devices also "
            "random numbers) will differ. %s",
            "; ".join(changes),
        )
    if theirs["epochs_asked"] != ours["epochs_asked"]:
        log.warning(
            "Training was started for %s epochs and resumes for %s.",
            *(theirs["epochs_asked"], ours["epochs_asked"]),
        )


def _compare(theirs, ours, name):
    """A line for each field that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [*theirs, *(key for key in ours if key not in theirs)]
        pairs = [(f"{name}.{key}", theirs.get(key), ours.get(key)) for key in keys]
        return [line for n, their, our in pairs for line in _compare(their, our, n)]
    if theirs == ours:
        return []
    return [f"{name}: {_short(theirs)} in the checkpoint, {_short(ours)} now"]


def _short(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _without_numbers(config):
    """A config without the numbers that Keras adds to default names: `"adam_1"`."""
    if isinstance(config, list):
        return [_without_numbers(item) for item in config]
    if not isinstance(config, dict):
        return config
    return {
        key: re.sub(r"_\d+$", "", value)
        if key == "name" and isinstance(value, str)
        else _without_numbers(value)
        for key, value in config.items()
    }


def _comparable(config):
    """A config without the model's name in paths and the modules of this package.

    A class of this package is told by its `registered_name`; its module may move.
    """
    if isinstance(config, list):
        return [_comparable(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: _comparable(value) for key, value in config.items()}
    if str(config.get("module")).startswith("keras_vit."):
        config["module"] = "keras_vit"
    if isinstance(multipliers := config.get("multipliers"), dict):
        factors: dict[str, list] = {}
        for path, factor in multipliers.items():
            factors.setdefault(public_path(path), []).append(factor)
        config["multipliers"] = {
            path: found[0] if len(set(found)) == 1 else sorted(found)
            for path, found in factors.items()
        }
    return config


_IMPLEMENTATION = re.compile(r"training\.[\w.]*\.(module|registered_name): ")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def jsonable(content: Any) -> Any:
    """The content as JSON would return it: tuples as lists, other objects as text."""

    def other(value):
        if hasattr(value, "tolist"):
            return value.tolist()
        if isinstance(value, Mapping):
            return dict(value)
        return _ADDRESS.sub("", repr(value))

    return json.loads(json.dumps(content, default=other))
