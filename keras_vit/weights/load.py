"""Strict loading: every tensor is used or dropped for a stated reason, or none is."""

import os
from collections.abc import Iterator, Mapping
from typing import Protocol

import keras
import numpy as np

from keras_vit import weight_paths
from keras_vit.distribution.processes import whole
from keras_vit.models.notes import OF_THE_HEAD
from keras_vit.models.sizes import image_size_of
from keras_vit.resize import resize_grid, resize_patch_kernel
from keras_vit.weights.architecture import KERNEL, STEM, num_units
from keras_vit.weights.checkpoint import Checkpoint
from keras_vit.weights.keras_files import (
    GRID,
    KERAS,
    is_keras_hub,
    is_saved_model,
    load_weights_h5,
    saved_model,
)
from keras_vit.weights.layouts.layout import Layout
from keras_vit.weights.report import LoadReport, merge_blocks, tell_fresh_head


class Tensors(Protocol):
    """Tensors by the paths of our variables, which are read as they are needed."""

    source: str
    layout: Layout
    shapes: Mapping[str, tuple[int, ...]]
    unused: tuple[str, ...]
    dropped: Mapping[str, str]

    def check(self, targets: set[str]) -> None: ...

    def read(self, targets: set[str]) -> Iterator[tuple[str, np.ndarray]]: ...


class ModelTensors:
    """The weights of a model in memory, as `Tensors`."""

    layout = KERAS
    unused = ()

    def __init__(self, model: keras.Model, source: str):
        self.source = source
        self._variables = variables(model)
        self.shapes = {path: tuple(v.shape) for path, v in self._variables.items()}
        self.dropped: dict[str, str] = {}

    def check(self, targets):
        pass

    def read(self, targets):
        # In one order in every process of several, where reading and assigning exchange.
        for path, variable in self._variables.items():
            if path in targets:
                yield path, whole(variable)


def load_file(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    skip_mismatched_head: bool = True,
    key: str | None = None,
    position_grid: tuple[int, int] | None = None,
    resize_patches: bool = False,
    preset: tuple[str, Mapping] | None = None,
    plain_vit: bool = False,
) -> LoadReport:
    """Loads a local checkpoint; see `keras_vit.load_weights`."""
    path = os.fspath(path)
    options = {
        "skip_mismatched_head": skip_mismatched_head,
        "resize_patches": resize_patches,
    }
    is_model = is_saved_model(path)
    is_weights = path.endswith(".weights.h5") and not is_model and not is_keras_hub(path)
    if is_model or is_weights:
        check_no_key(path, key)
    if is_weights:
        return load_weights_h5(model, path, skip_mismatched_head)
    if is_model:
        saved = saved_model(path)
        report = assign(model, ModelTensors(saved, path), **options)
        _take_names(model, report, saved.get_config())
        return report
    with Checkpoint(
        path,
        preset=preset,
        model=told_by(model),
        position_grid=position_grid,
        plain_vit=plain_vit,
        key=key,
    ) as checkpoint:
        checkpoint.check_look_alike()
        report = assign(model, checkpoint, **options)
        if "head/bias" in report.loaded:
            classes = checkpoint.shapes["head/bias"][0]
            _take_names(model, report, checkpoint.notes(classes))
        return report


def _take_names(model, report, told: Mapping) -> None:
    """Notes what a source tells of its head, where the model has that head now.

    Where the source tells nothing, the model's own names stay: whoever gave them may mean
    this head.
    """
    told = {name: told[name] for name in OF_THE_HEAD if told.get(name) is not None}
    if told and "head/bias" in report.loaded and hasattr(model, "note"):
        model.note(**told)


def check_no_key(source: str, key: str | None) -> None:
    """Refuses a key of what is one model; a ValueError."""
    if key is not None:
        raise ValueError(
            "`key` chooses one of the models in a file of tensors. Received: "
            f"key={key!r} for {source!r}, which is one model. Leave it out."
        )


def told_by(model: keras.Model) -> dict:
    """Arguments that a model's weights tell where a checkpoint is silent."""
    shapes = {path: tuple(v.shape) for path, v in variables(model).items()}
    told = {}
    if "block_0/attention/qkv/kernel" in shapes:
        told["num_heads"] = shapes["block_0/attention/qkv/kernel"][2]
        if GRID not in shapes:
            told["position"] = "none"  # or a fixed one
    if GRID in shapes and KERNEL in shapes:
        units = num_units(shapes, STEM)
        stem = None if units is None else {"num_units": units}
        told["image_size"] = image_size_of(shapes[GRID][:2], shapes[KERNEL][:2], stem)
    return told


def assign(
    model: keras.Model,
    tensors: Tensors,
    *,
    skip_mismatched_head: bool = True,
    resize_patches: bool = False,
    is_new: bool = False,
) -> LoadReport:
    """Assigns tensors to the variables of the same path, all of them or none.

    A position grid of another size is resized, and a head of another size dropped if
    `skip_mismatched_head`; anything else that does not fit is an error, before which
    nothing is assigned. Tensors are read twice, first for their errors alone, as keeping
    them would take the model's memory again; once if the model `is_new`, and of no use
    to anyone after an error.

    Raises:
        ValueError: listing every tensor that is unused, missing or of another shape.
    """
    ours = variables(model)
    shapes = dict(tensors.shapes)
    dropped = _drop_head(ours, shapes, skip_mismatched_head)
    resizers = _resizers(model, shapes, ours, resize_patches)

    head = {path for path in ours if path.startswith("head/")}
    fresh = head if any(name.startswith("head/") for name in dropped) else set()
    if skip_mismatched_head and not head & set(shapes):
        fresh = head
    unused = (set(shapes) - set(ours)) | set(tensors.unused)
    missing = set(ours) - set(shapes) - fresh
    misshaped = {
        path: (shape, tuple(ours[path].shape))
        for path, shape in shapes.items()
        if path in ours and path not in resizers and shape != tuple(ours[path].shape)
    }
    if unused or missing or misshaped:
        raise _mismatch(tensors.source, model, unused, missing, misshaped)

    if not is_new:
        tensors.check(set(shapes))
    for path, array in tensors.read(set(shapes)):
        ours[path].assign(resizers[path](array) if path in resizers else array)
    if fresh:
        tell_fresh_head(tensors.source, ours["head/bias"].shape[0])
    return LoadReport(
        tensors.source,
        loaded=tuple(path for path in ours if path not in fresh),
        resized={path: (shapes[path], tuple(ours[path].shape)) for path in resizers},
        dropped={**tensors.dropped, **dropped},
        fresh=tuple(sorted(fresh)),
        layout=tensors.layout.name,
    )


def variables(model: keras.Model) -> dict:
    """The model's weights by path; the names by which conversion tables know them.

    Raises:
        ValueError: if two have one path, as in a model of two.
    """
    found = dict(named := weight_paths.named_weights(model))
    if len(found) < len(named):
        raise ValueError(
            "Weights are loaded into one `VisionTransformer` or `BiTResNet` at a time. "
            f"Received: {model.name!r} with several: "
            f"{', '.join(map(repr, weight_paths.model_names(model)))}. {_one_by_one(model)}"
        )
    return found


def _one_by_one(model):
    first, *_ = weight_paths.model_names(model) or ["name"]
    return f"Load into each: load_weights(model.get_layer({first!r}), …)."


def _resizers(model, shapes, ours, resize_patches):
    """Path → function that brings the tensor to the variable's size, where it may."""
    resizers = {}
    for path, axis in ((GRID, 2), (KERNEL, 2)):
        if path not in shapes or path not in ours:
            continue
        old, new = shapes[path], tuple(ours[path].shape)
        if old == new or len(old) != len(new) or old[axis:] != new[axis:]:
            continue
        if path == GRID:
            interpolation = model.get_layer("position_embedding").interpolation
            resizers[path] = lambda grid, size=new[:2], how=interpolation: resize_grid(
                grid, size, how
            )
        elif resize_patches:
            resizers[path] = lambda kernel, size=new[:2]: resize_patch_kernel(kernel, size)
    return resizers


def _drop_head(ours, shapes, skip_mismatched_head):
    """Takes out of `shapes` what the model's own head replaces; gives the reasons."""
    if not any(path.startswith("head/") for path in ours):
        reason, layers = "the model has no head", ["head"]
        if "pre_logits/kernel" not in ours:
            layers.append("pre_logits")
    elif skip_mismatched_head and _is_another_head(ours, shapes):
        reason, layers = "the model's head has another size", ["head"]
        if "pre_logits/kernel" not in ours:
            # Fine-tuning replaces the whole pre-training head (section 3.2 of the paper).
            layers.append("pre_logits")
    else:
        return {}
    names = [name for name in shapes if name.split("/")[0] in layers]
    for name in names:
        del shapes[name]
    return dict.fromkeys(names, reason)


def _is_another_head(ours, shapes):
    """Whether there is a whole head, of other sizes than the model's.

    One that reads twice the features is of transformers' DINOv2, and counts only where
    the classes differ, too: none here can be what it is.
    """
    kernel, bias = (shapes.get(f"head/{name}", ()) for name in ("kernel", "bias"))
    features = ("pre_logits/kernel", KERNEL, "norm/gamma")  # the last is BiT's
    width = next((shapes[path] for path in features if path in shapes), ())[-1:]
    expected = tuple(ours["head/kernel"].shape)
    if width and kernel == (2 * width[0], *bias):
        return kernel[-1] != expected[-1]
    return kernel == width + bias and kernel != expected


def _mismatch(source, model, unused, missing, misshaped):
    lines = [f"{source!r} does not fit the model {model.name!r}, which is unchanged."]
    if unused:
        lines.append(f"In the file, but not in the model: {merge_blocks(unused)}")
    if missing:
        lines.append(f"In the model, but not in the file: {merge_blocks(missing)}")
    if misshaped:
        shapes = [f"{p} {old}, expected {new}" for p, (old, new) in misshaped.items()]
        lines.append(f"Of another shape: {merge_blocks(shapes)}")
    lines.append(
        "`keras_vit.from_pretrained` builds the model that fits a file; "
        "`skip_mismatched_head=True` lets a head of another size be, and "
        "`resize_patches=True` resizes the patch embedding's kernel. If a tensor is of "
        "no model, such as one of a loss, take it out and save the file again."
    )
    if len(weight_paths.model_names(model)) > 1:
        lines.append(_one_by_one(model))
    return ValueError("\n".join(lines))
