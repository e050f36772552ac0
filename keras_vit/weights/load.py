"""Strict loading: all tensors of a file, or after an error none."""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_vit import weight_paths
from keras_vit.channels import RGB, extend_kernel, extend_standardized_kernel
from keras_vit.distribution.processes import gather_variable
from keras_vit.keras_internals.sublayers import all_layers
from keras_vit.log import log
from keras_vit.models.notes import OF_THE_HEAD
from keras_vit.models.sizes import image_size_of
from keras_vit.resize import (
    grid_of_offsets,
    resize_axis,
    resize_grid,
    resize_offsets,
    resize_patch_kernel,
    resize_raster_offsets,
)
from keras_vit.weights.architecture import (
    EFFICIENTNET_STEM,
    KERNEL,
    ROOTS,
    STEM,
    Shapes,
    grid_of_positions,
    num_units,
)
from keras_vit.weights.checkpoint import Checkpoint
from keras_vit.weights.keras_files import (
    AXES,
    GRIDS,
    KERAS,
    KEYS,
    TABLE,
    is_saved_model,
    is_weights_file,
    load_weights_h5,
    saved_model,
)
from keras_vit.weights.masked_checkpoint import MaskedCheckpoint, has_decoder
from keras_vit.weights.report import LoadReport, log_fresh_head, merge_blocks


class ModelTensors:
    """The weights of a model in memory, with the attributes and methods of `Checkpoint`.

    Args:
        model: the model.
        source: name of the model in messages.
    """

    layout = KERAS
    unused: tuple[str, ...] = ()

    def __init__(self, model: keras.Model, source: str):
        self.source = source
        self._variables = variables(model)
        shapes = {path: tuple(v.shape) for path, v in self._variables.items()}
        self.shapes: Shapes = shapes
        self.dropped: dict[str, str] = {}

    def check(self, targets: set[str]) -> None:
        """Raises nothing."""

    def read(self, targets: set[str]) -> Iterator[tuple[str, np.ndarray]]:
        """(path, array) for each of the targets."""
        # Several processes exchange data in this loop, so all have the same order.
        for path, variable in self._variables.items():
            if path in targets:
                yield path, gather_variable(variable)


def load_file(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    skip_mismatched_head: bool = True,
    key: str | None = None,
    position_grid: tuple[int, int] | None = None,
    resize_patches: bool = False,
    preset: tuple[str, Mapping[str, Any]] | None = None,
    plain_vit: bool = False,
) -> LoadReport:
    """Loads a local checkpoint; see `keras_vit.load_weights`."""
    path = os.fspath(path)
    options = {
        "skip_mismatched_head": skip_mismatched_head,
        "resize_patches": resize_patches,
    }
    if is_weights_file(path):
        check_no_key(path, key)
        return load_weights_h5(model, path, skip_mismatched_head)
    if is_saved_model(path):
        check_no_key(path, key)
        saved = saved_model(path)
        report = assign(model, ModelTensors(saved, path), **options)
        _take_notes_of_head(model, report, saved.get_config())
        return report
    kind = MaskedCheckpoint if has_decoder(model) else Checkpoint
    with kind(
        path,
        preset=preset,
        model=model_arguments(model),
        position_grid=position_grid,
        plain_vit=plain_vit,
        key=key,
    ) as checkpoint:
        checkpoint.check_look_alike()
        _check_untold(model, checkpoint)
        report = assign(model, checkpoint, **options)
        if "head/bias" in report.loaded:
            classes = checkpoint.shapes["head/bias"][0]
            _take_notes_of_head(model, report, checkpoint.notes(classes))
        return report


def _check_untold(model, checkpoint):
    """Refuses a file for a model that differs in what no tensor tells."""
    config = _arguments(model)
    names = {"rope": "rotary positions", "norm_after": "places of norms"}
    for name, meaning in names.items():
        value = getattr(checkpoint, name)
        if name in config and config[name] != value:
            raise ValueError(
                f"The {meaning} of a checkpoint and of a model must be the same. Received: "
                f"{checkpoint.source!r} with {name}={value}, and the model {model.name!r} "
                f"with {name}={config[name]}, which is unchanged. Build the model with the "
                "first, or by `keras_vit.from_pretrained`."
            )


def _take_notes_of_head(model, report, notes: Mapping[str, Any]) -> None:
    """Gives the model the notes on the head, such as class names, if it was loaded.

    The model keeps its own where the source has none.
    """
    notes = {name: notes[name] for name in OF_THE_HEAD if notes.get(name) is not None}
    if notes and "head/bias" in report.loaded and hasattr(model, "note"):
        model.note(**notes)


def check_no_key(source: str, key: str | None) -> None:
    """Raises a ValueError if a key is given for a source of one model."""
    if key is not None:
        raise ValueError(
            "`key` chooses one of several models in a file of tensors. Received: "
            f"key={key!r} for {source!r}, which is one model. Leave it out."
        )


def model_arguments(model: keras.Model) -> dict[str, Any]:
    """Numbers of heads, image size and missing positions, from the weights of a model."""
    shapes = {path: tuple(v.shape) for path, v in variables(model).items()}
    arguments, grid = {}, grid_of_positions(shapes)
    for table in (f"block_0/{TABLE}", f"block_0/{KEYS}"):
        if table in shapes:
            grid = grid_of_offsets(shapes[table])
    if "block_0/attention/qkv/kernel" in shapes:
        arguments["num_heads"] = shapes["block_0/attention/qkv/kernel"][2]
        if not grid:
            arguments["position"] = "none"  # or fixed ones
        untold = {name: _arguments(model).get(name) for name in ("rope", "norm_after")}
        arguments |= {name: value for name, value in untold.items() if value}
    for part in ("pooling/", "decoder/block_0/"):
        if (path := f"{part}attention/qkv/kernel") in shapes:
            name = part.partition("/")[0]
            arguments[f"{name}_num_heads"] = shapes[path][2]
    if grid and KERNEL in shapes:
        units = num_units(shapes, STEM)
        stem = None if units is None else {"num_units": units}
        arguments["image_size"] = image_size_of(grid, shapes[KERNEL][:2], stem)
    return arguments


def _arguments(model) -> dict[str, Any]:
    """The arguments of one of our models, or of the encoder of a masked autoencoder.

    None of another model that contains it.
    """
    return getattr(getattr(model, "encoder", model), "arguments", {})


def assign(
    model: keras.Model,
    tensors: Checkpoint | ModelTensors,
    *,
    skip_mismatched_head: bool = True,
    resize_patches: bool = False,
    is_new: bool = False,
) -> LoadReport:
    """Assigns all tensors to the variables of the same path, or none.

    A position grid, or a table of offsets, of another size is resized, and the first kernel
    of an RGB checkpoint is extended to images of other channels (`keras_vit.channels`).
    Tensors are read twice, the first time only for errors, as keeping them would double the
    memory of the model.

    Args:
        model: the model.
        tensors: tensors under the paths of our variables.
        skip_mismatched_head: whether a head of another size than the model's is dropped.
        resize_patches: whether a patch kernel of another size is resized.
        is_new: whether the model is dropped after an error, so that tensors are read once.

    Raises:
        ValueError: listing every tensor that is unused, missing or of another shape.
    """
    ours = variables(model)
    shapes = dict(tensors.shapes)
    dropped = _drop_head(ours, shapes, skip_mismatched_head)
    resizers = _resizers(model, shapes, ours, resize_patches)

    head = {path for path in ours if path.split("/")[0] in weight_paths.HEADS}
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
        log_fresh_head(tensors.source, ours["head/bias"].shape[0])
    report = LoadReport(
        tensors.source,
        loaded=tuple(path for path in ours if path not in fresh),
        resized={path: (shapes[path], tuple(ours[path].shape)) for path in resizers},
        dropped={**tensors.dropped, **dropped},
        fresh=tuple(sorted(fresh)),
        layout=tensors.layout.name,
    )
    if report.channels:
        log.info("%s: %s", tensors.source, report.channels)
    return report


def variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Path without the model's name → weight, as conversion tables name them.

    Raises:
        ValueError: if the model contains several models, whose paths are the same.
    """
    found = dict(named := weight_paths.named_weights(model))
    if len(found) < len(named):
        raise ValueError(
            "Weights are loaded into one model of this package at a time. "
            f"Received: {model.name!r} with several: "
            f"{', '.join(map(repr, weight_paths.model_names(model)))}. {_one_by_one(model)}"
        )
    return found


def _one_by_one(model):
    first, *_ = weight_paths.model_names(model) or ["name"]
    return f"Load into each: load_weights(model.get_layer({first!r}), …)."


def _resizers(model, shapes, ours, resize_patches):
    """Path → function that resizes the tensor to the variable's shape."""
    resizers = {}
    for path in ours:
        old, new = shapes.get(path, ()), tuple(ours[path].shape)
        if old == new or len(old) != len(new) or old[3:] != new[3:]:
            continue
        if path.endswith((*GRIDS, *AXES, TABLE, KEYS)):
            resizer = _position_resizer(model, path, old, new)
        else:
            resizer = _kernel_resizer(path, old, new, resize_patches)
        if resizer is not None:
            resizers[path] = resizer
    return resizers


def _position_resizer(model, path, old, new):
    """Function that resizes positions of a grid of patches, or None if they differ more."""
    if path.endswith(TABLE):
        if old[2] == new[2] and all(number % 2 for number in old[:2]):
            return partial(resize_offsets, grid_size=grid_of_offsets(new))
    elif path.endswith(KEYS):
        if old[2] == new[2] and not old[0] % 2:
            return partial(resize_raster_offsets, grid_size=grid_of_offsets(new))
    elif old[-1] == new[-1]:  # of the tokens
        how = _interpolation(model, path)
        if path.endswith(GRIDS):
            return partial(resize_grid, size=new[:2], interpolation=how)
        return partial(resize_axis, size=new[0], interpolation=how)
    return None


def _kernel_resizer(path, old, new, resize_patches):
    """Function that fits a kernel to other patches or channels, or None."""
    if path not in (KERNEL, EFFICIENTNET_STEM, *ROOTS):
        return None
    same_size, same_channels = old[:2] == new[:2], old[2] == new[2]
    if path == KERNEL:
        if (same_size or resize_patches) and (same_channels or old[2] == RGB):
            return partial(_fit_patches, shape=new)
    elif same_size and old[2] == RGB:
        if path == EFFICIENTNET_STEM:
            return partial(extend_kernel, channels=new[2])
        if new[2] >= RGB:
            return partial(extend_standardized_kernel, channels=new[2])
    return None


def _interpolation(model, path):
    """Interpolation of the layer that has a grid of positions."""
    names, (layer, _, _) = weight_paths.inner_paths(model), path.rpartition("/")
    return next(e.interpolation for e in all_layers(model) if names[id(e)] == layer)


def _fit_patches(kernel, shape):
    """The kernel of a patch embedding for patches of another size or other channels."""
    if kernel.shape[2] != shape[2]:
        kernel = extend_kernel(kernel, shape[2])
    return resize_patch_kernel(kernel, shape[:2])


def _drop_head(ours, shapes, skip_mismatched_head):
    """Removes the head from `shapes` where the model's stays; returns path → reason."""
    if not any(path.startswith("head/") for path in ours):
        reason = "the model has no head"
    elif skip_mismatched_head and _is_another_head(ours, shapes):
        reason = "the model's head has another size"
    else:
        return {}
    # Fine-tuning replaces the whole pre-training head (section 3.2 of the paper).
    layers = {*weight_paths.HEADS, "pre_logits"}
    if "pre_logits/kernel" in ours:
        layers.remove("pre_logits")
    names = [name for name in shapes if name.split("/")[0] in layers]
    for name in names:
        del shapes[name]
    return dict.fromkeys(names, reason)


def _is_another_head(ours, shapes):
    """True if there is a complete head, of other sizes than the model's.

    A head of twice the features reads those of `pooling="token_gap"`; it is another head
    only if the classes differ.
    """
    kernel, bias = (shapes.get(f"head/{name}", ()) for name in ("kernel", "bias"))
    features = ("pre_logits/kernel", KERNEL, "norm/gamma", "top_bn/gamma")  # BiT's, L2's
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
        lines += _reasons_of_channels(variables(model), misshaped)
    lines.append(
        "`keras_vit.from_pretrained` builds the model that fits a file; "
        "`skip_mismatched_head=True` keeps a head of another size, and "
        "`resize_patches=True` resizes the patch embedding's kernel. If a tensor is of "
        "no model, such as one of a loss, remove it and save the file again."
    )
    if len(weight_paths.model_names(model)) > 1:
        lines.append(_one_by_one(model))
    return ValueError("\n".join(lines))


def _reasons_of_channels(ours, misshaped):
    """Reasons why the first kernel does not become one for the model's channels."""
    first = next(
        (path for path in (*ROOTS, EFFICIENTNET_STEM, KERNEL) if path in ours), None
    )
    old, new = misshaped.get(first, ((), ()))
    if len(old) != len(new) or old[2:3] == new[2:3]:
        return
    if old[2] != RGB:
        yield (
            "Kernels for other channels are made from those for RGB alone, 3 channels: "
            f"give the model {old[2]}."
        )
    elif first in ROOTS and new[2] < RGB:
        yield (
            "A standardised kernel is made for 3 channels or more: it has variance 1 at "
            "each output, and the sum of channels, or two of them, another. Give the model "
            "3 channels, and grey images as images.repeat(3, axis=-1)."
        )
