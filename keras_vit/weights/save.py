"""Writing of a model's weights in the layouts of other projects."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_vit.extras import require
from keras_vit.keras_internals.sublayers import all_layers
from keras_vit.layers.position import POSITIONS as ABSOLUTE
from keras_vit.layers.sincos import FIXED, by_axes
from keras_vit.log import log
from keras_vit.models.notes import NOTES
from keras_vit.models.quantized import quantization_of
from keras_vit.models.sizes import grid_size
from keras_vit.output_paths import check_kind, partial_path
from keras_vit.weight_paths import inner_paths
from keras_vit.weights.architecture import CHECKS, METADATA_KEY
from keras_vit.weights.files.safetensors_files import CHECKSUMS, checksum
from keras_vit.weights.layouts.aimv2 import AIMV2
from keras_vit.weights.layouts.dinov3 import (
    HF_DINOV3,
    META,
    check_meta,
    heads_of,
    meta_tensors,
)
from keras_vit.weights.layouts.google import BIT, GOOGLE
from keras_vit.weights.layouts.huggingface import (
    BEIT,
    CLIP,
    DEIT,
    DINOV2,
    DINOV2_CLASSIFIER,
    SIGLIP,
    SIGLIP2,
    VIT,
)
from keras_vit.weights.layouts.huggingface_config import model_config, processor_config
from keras_vit.weights.layouts.layout import POSITIONS, Layout, numbers_in
from keras_vit.weights.layouts.mae import HF_MAE, MAE, check_mae
from keras_vit.weights.layouts.moves import MOVES, Dims
from keras_vit.weights.layouts.timm import TIMM
from keras_vit.weights.layouts.timm_efficientnet import TIMM_EFFICIENTNET
from keras_vit.weights.layouts.timm_eva import TIMM_EVA, check_eva, is_eva
from keras_vit.weights.layouts.timm_naflex import TIMM_NAFLEX, check_naflex
from keras_vit.weights.layouts.timm_resnet import TIMM_BIT
from keras_vit.weights.load import variables
from keras_vit.weights.masked_checkpoint import DECODER_KEY, UNTOLD, has_decoder
from keras_vit.weights.notes import NOTES_KEY

WRITTEN = ("google", "timm", "huggingface", "meta", "timm_naflex")
ENDINGS = {
    "google": (".npz",),
    "timm": (".safetensors",),
    "timm_naflex": (".safetensors",),
    "meta": (".safetensors", ".pth"),
}
# Argument → its values that a file means without a word (None: BiT has no such argument),
# and the layouts whose files can say another.
_SAID = {
    "position": ((None, *ABSOLUTE, "relative"), ()),
    "position_at": ((None, "stem"), ()),
    "rope": ((None,), ("timm", "huggingface", "meta")),
    "pooling": ((None, "token", "gap", "map"), ("huggingface",)),
    "pooling_prefix": ((None, False), ("timm", "timm_naflex")),
    "final_norm": ((None, True), ("timm", "timm_naflex")),
    "distilled": ((None, False), ("timm", "huggingface")),
    "norm": ((None, "layer"), ("huggingface",)),
    "norm_after": ((None, False), ("timm",)),
    "mlp_bias": ((None, True), ("huggingface",)),
    "projection_bias": ((None, True), ("huggingface",)),
}
PREFIX, GRID = POSITIONS
# Of the models that are no Vision Transformers, by their class.
_LAYOUTS = {
    "BiTResNet": {"timm": TIMM_BIT, "google": BIT},
    "EfficientNet": {"timm": TIMM_EFFICIENTNET},
}
_OF_A_VIT = {
    "google": GOOGLE,
    "timm": TIMM,
    "timm_naflex": TIMM_NAFLEX,
}  # and others, by its arguments
MASKED = {"meta": MAE, "huggingface": HF_MAE}  # of masked autoencoders


def save(model: keras.Model, path: str | os.PathLike[str], layout: str) -> None:
    """Writes the weights of a model; see `keras_vit.save_weights`."""
    path = os.fspath(path)
    if quantization_of(model):
        raise ValueError(
            f"The model {model.name!r} is quantized, and only Keras' own files can hold "
            "that. Use `model.save`, or save the model that was quantized."
        )
    if layout != "huggingface":
        check_kind(path, is_folder=False)
    config = _config(model)
    layouts = (
        MASKED if has_decoder(model) else _LAYOUTS.get(type(model).__name__, _OF_A_VIT)
    )
    endings = ENDINGS.get(layout)
    if endings and not path.endswith(endings):
        raise ValueError(
            f"A file in the layout {layout!r} ends in {' or '.join(endings)}. Received: "
            f"path={path!r}"
        )
    _check_said(model, config, layout)
    if layout in WRITTEN and layout not in layouts and layouts is not _OF_A_VIT:
        raise ValueError(
            f"The layout {layout!r} has no place for a `{type(model).__name__}` here. "
            f"Received: the model {model.name!r}. Save it with "
            f"{' or '.join(f'layout={name!r}' for name in layouts)}."
        )
    if layout == "google":
        tensors, _ = in_layout(model, layouts["google"])
        _warn_of_lost_arguments(path, config, layouts["google"])
        _write(path, lambda file: np.savez(file, **tensors))
    elif layout == "timm":
        timm = layouts["timm"]
        if "patch_size" in config and is_eva(config):
            check_eva(config)
            timm = TIMM_EVA
        tensors, dims = in_layout(model, timm)
        _write_safetensors(path, tensors, _metadata(model, config, dims))
    elif layout == "timm_naflex":
        check_naflex(config)
        tensors, dims = in_layout(model, TIMM_NAFLEX)
        _write_safetensors(path, tensors, _metadata(model, config, dims))
    elif layout == "huggingface":
        _save_folder(model, path, config)
    elif layout == "meta":
        _save_meta(model, path, config)
    else:
        raise ValueError(
            f"`layout` must be one of {', '.join(map(repr, WRITTEN))}. Received: "
            f"layout={layout!r}. Keras' own files are written by `model.save` and "
            "`model.save_weights`."
        )


def _check_said(model, config, layout):
    """Refuses a model with an argument that files in the layout cannot say."""
    for name, (unsaid, layouts) in _SAID.items():
        if layout in WRITTEN and layout not in layouts and config.get(name) not in unsaid:
            ways = [*(f"with layout={other!r}" for other in layouts), "by `model.save`"]
            raise ValueError(
                f"The layout {layout!r} has no place here for {name}={config[name]!r}. "
                f"Received: the model {model.name!r}. Save it {' or '.join(ways)}."
            )


def _config(model) -> dict[str, Any]:
    """The config of a model, or of its encoder, with the values that `None` stands for."""
    config = getattr(model, "encoder", model).get_config()
    if "patch_size" not in config:
        return config
    paths = set(variables(model))
    config |= {key: value for key, value in (config["stem"] or {}).items() if key in CHECKS}
    config["class_token"] = "class_token/tokens" in paths
    config["patch_bias"] = "patch_embedding/bias" in paths
    return config


def _merged(model) -> dict[str, np.ndarray]:
    """Path → array of all weights, with the products of LoRA added to their kernels."""
    arrays = {path: keras.ops.convert_to_numpy(v) for path, v in variables(model).items()}
    paths = inner_paths(model)
    for layer in all_layers(model, include_self=False):
        if getattr(layer, "lora_enabled", False):
            path = paths[id(layer)]
            a, b = (arrays.pop(f"{path}/lora_kernel_{name}") for name in "ab")
            scale = layer.lora_alpha / layer.lora_rank
            kernel = f"{path}/kernel"
            # Not `layer.kernel`, which is rounded to the dtype of computation.
            arrays[kernel] = arrays[kernel] + (scale * (a @ b)).astype(arrays[kernel].dtype)
    return arrays


def _save_meta(model, path, config):
    """Writes a file of the own names of DINOv3 or MAE, which hold no config."""
    masked = has_decoder(model)
    layout = MAE if masked else META
    (check_mae if masked else check_meta)(config)
    tensors, dims = in_layout(model, layout)
    if not masked:
        tensors |= meta_tensors(config)
    if path.endswith(".safetensors"):
        _write_safetensors(path, tensors, _metadata(model, config, dims))
        return
    torch = require("torch", f"Writing {path!r}", "torch")
    _warn_of_lost_arguments(path, config, layout)
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    if masked:  # the key under which MAE's code reads them
        state = {"model": state}
    _write(path, lambda file: torch.save(state, file))


def _save_folder(model, path, config):
    if os.path.isfile(path) or path.endswith((".safetensors", ".npz", ".bin")):
        raise ValueError(
            "The layout 'huggingface' is a folder (config.json, preprocessor_config.json, "
            f"model.safetensors). Received: path={path!r}"
        )
    masked = has_decoder(model)
    layout = HF_MAE if masked else _huggingface_layout(config)
    texts = {
        "config.json": model_config(config, layout, model),
        "preprocessor_config.json": processor_config(config, layout, model),
    }
    tensors, dims = in_layout(model, layout)
    if layout in (DINOV2, DINOV2_CLASSIFIER, HF_DINOV3):  # transformers warns without it
        shape = (1,) * (2 if layout is HF_DINOV3 else 1)
        mask_token = np.zeros((*shape, config["hidden_dim"]), "float32")
        tensors["embeddings.mask_token"] = mask_token
    if config["classes"] and layout is not CLIP:  # transformers puts the backbone inside
        inside = texts["config.json"]["model_type"]
        tensors = {
            name if re.match(r"\w*classifier\.", name) else f"{inside}.{name}": array
            for name, array in tensors.items()
        }
    os.makedirs(path, exist_ok=True)
    for name, content in texts.items():
        text = (json.dumps(content, indent=2) + "\n").encode()
        _write(os.path.join(path, name), lambda file, text=text: file.write(text))
    file = os.path.join(path, "model.safetensors")
    _write_safetensors(file, tensors, _metadata(model, config, dims))


def _huggingface_layout(config) -> Layout:
    if config["rope"]:
        layout, pooling = HF_DINOV3, "token"
    elif config["norm"] == "rms":
        # Without a head its class pools nothing, and is read with the mean here.
        layout, pooling = AIMV2, "gap" if config["pooling"] == "gap" else "query"
    elif config["distilled"]:
        layout, pooling = DEIT, "token"
    elif config["pooling"] == "token_gap":
        layout, pooling = DINOV2_CLASSIFIER, "token_gap"
    elif config["position"] == "relative":
        layout, pooling = BEIT, "gap" if config["fc_norm"] else "token"
    elif config["pre_norm"]:
        layout, pooling = CLIP, "token"
    elif config["pooling"] == "map":
        layout, pooling = SIGLIP2 if _is_naflex(config) else SIGLIP, "map"
    elif config["num_registers"] or config["layer_scale"] is not None:
        layout, pooling = DINOV2, "token"
    else:
        layout, pooling = VIT, "token"
    if config["pooling"] not in (pooling, None):
        raise ValueError(
            f"transformers' models in the layout {layout.name!r} pool by {pooling!r}. "
            f"Received: a model with pooling={config['pooling']!r}. Save it with "
            "layout='timm'."
        )
    return layout


def _is_naflex(config):
    """True for positions that transformers' models with square grids resize so."""
    rows, columns = _grid_size(config)
    return config["position_interpolation"] == "bilinear" and rows == columns


def in_layout(model: keras.Model, layout: Layout) -> tuple[dict[str, np.ndarray], Dims]:
    """Tensors of a file in a layout, with a model's weights: (name → array, `Dims`).

    Raises:
        ValueError: if the layout has no place for some weights, which it names.
    """
    config = _config(model)
    ours = _merged(model)
    dims = Dims(0)
    if layout.model == "vit":
        _fit_positions(ours, config, layout)
        _fit_norm(ours, config, layout)
        _fit_scales(ours, config, layout)
        dims = Dims(
            config["num_heads"],
            len(ours.get(PREFIX, ())),
            _grid_size(config),
            config["pooling_num_heads"],
            model.get_config().get("decoder_num_heads"),
        )
    tensors: dict[str, np.ndarray] = {}
    used, stacks = set(), {}
    for row in layout.rows:
        if row.sources[0] in layout.not_written(config, dims.num_prefix):
            continue
        for numbers in numbers_in(row.targets[0], ours):
            targets = [target.format(**numbers) for target in row.targets]
            if not all(target in ours for target in targets):
                continue
            used.update(targets)
            try:
                arrays = MOVES[row.move].inverse(
                    dims.at(targets[0]), *(ours[t] for t in targets)
                )
            except ValueError as error:
                raise _no_place(model, layout, [f"{targets[-1]}: {error}"]) from error
            if row.axis is not None:
                name = row.sources[0].replace("_{i}", "")
                stacks.setdefault((name, row.axis), []).append(*arrays)
                continue
            for source, array in zip(row.sources, arrays, strict=True):
                name = layout.written_name(source.format(**layout.file_numbers(numbers)))
                tensors[name] = np.ascontiguousarray(array)
    for (name, axis), arrays in stacks.items():
        tensors[name] = np.stack(arrays, axis)
    if left := set(ours) - used:
        raise _no_place(model, layout, sorted(left))
    return tensors, dims


def _no_place(model, layout, paths):
    return ValueError(
        f"The layout {layout.name!r} has no place for {', '.join(paths)} of the model "
        f"{model.name!r}; nothing was written. Choose another layout, or build the model "
        "without (`keras_vit.from_pretrained(model, …)`)."
    )


def _fit_positions(ours, config, layout):
    """Brings the positions into an equivalent form that the layout has."""
    of_classes = ("class_token/tokens" in ours) + config["distilled"]
    others = ("relative", layout.without_positions)
    if GRID not in ours and config["position"] not in others:
        ours[GRID] = _grid_of_positions(ours, config)
    if GRID not in ours:
        return
    hidden_dim = config["hidden_dim"]
    prefix = ours.setdefault(PREFIX, np.zeros((0, hidden_dim), ours[GRID].dtype))
    allowed = layout.written_prefix(of_classes, config["num_registers"])
    if len(prefix) in allowed:
        return
    # Adds positions to the tokens themselves, which are constants, too.
    kinds = ("class_token", "distillation_token", "registers")
    for name in (f"{kind}/tokens" for kind in kinds if f"{kind}/tokens" in ours):
        count = min(len(prefix), len(ours[name]))
        ours[name] = ours[name].copy()
        ours[name][:count] += prefix[:count]
        prefix = prefix[count:]
    ours[PREFIX] = np.zeros((min(allowed), hidden_dim), ours[GRID].dtype)


def _fit_scales(ours, config, layout):
    """Adds scales of ones, as the blocks of DINOv2 and 3 all have in transformers."""
    if layout in (DINOV2, DINOV2_CLASSIFIER, HF_DINOV3) and config["layer_scale"] is None:
        for i in range(config["num_layers"]):
            for name in ("attention", "mlp"):
                ones = np.ones(config["hidden_dim"], "float32")
                ours[f"block_{i}/{name}_scale/scale"] = ones


def _grid_of_positions(ours, config):
    """Grid of the positions of a model that has no weights of this form."""
    rows, columns = _grid_size(config)
    if config["position"] == "learned2d":
        return by_axes(*(ours.pop(f"position_embedding/{n}") for n in ("columns", "rows")))
    if config["position"] in FIXED:
        function, _ = FIXED[config["position"]]
        return function(rows, columns, config["hidden_dim"]).astype("float32")
    return np.zeros((rows, columns, config["hidden_dim"]), "float32")


def _fit_norm(ours, config, layout):
    """Makes the norm of a pooled class token the norm of all tokens, if that is all."""
    has_place = any(row.targets[0] == "fc_norm/gamma" for row in layout.rows)
    if config["fc_norm"] and not has_place and config["pooling"] == "token":
        for name in ("gamma", "beta"):
            ours[f"encoder_norm/{name}"] = ours.pop(f"fc_norm/{name}")


def _grid_size(config):
    return grid_size(config["image_size"], config["patch_size"], config["stem"])


def _warn_of_lost_arguments(path, config, layout):
    """Warns of arguments that a file without metadata does not hold."""
    usual = {**layout.defaults, **layout.resnet_defaults, "mlp": "gelu"}
    usual = {key: value for key, value in usual.items() if config.get(key) is not None}
    different = {k: config[k] for k, v in usual.items() if config[k] != v}
    for name in ("position_interpolation", "rope", "image_size"):
        different.pop(name, None)
    if layout is META and heads_of(config["hidden_dim"]) != config["num_heads"]:
        different["num_heads"] = config["num_heads"]
    if different:
        arguments = ", ".join(f"{key}={value!r}" for key, value in different.items())
        log.warning(
            "%s: the layout %r does not record %s; give it again to load the file.",
            path,
            layout.name,
            arguments,
        )


def _metadata(model, config, dims):
    """Metadata of a file: the arguments and notes that names and shapes do not tell."""
    arguments = {key: config[key] for key in CHECKS if config.get(key) is not None}
    if arguments.get("position") != "none":  # the file holds the positions
        arguments.pop("position", None)
    if "patch_size" in config:
        arguments["num_prefix_positions"] = dims.num_prefix
    if config["pooling"] == "map":
        arguments.setdefault("pooling_num_heads", config["num_heads"])
    metadata = {"format": "pt", METADATA_KEY: json.dumps(arguments)}
    if notes := {key: config[key] for key in NOTES if key in config}:
        metadata[NOTES_KEY] = json.dumps(notes)
    if has_decoder(model):
        decoder = model.get_config()
        metadata[DECODER_KEY] = json.dumps({name: decoder[name] for name in UNTOLD})
    return metadata


def _write_safetensors(path, tensors, metadata: Mapping[str, str]):
    from safetensors.numpy import save

    sums = {name: checksum(array) for name, array in tensors.items()}
    for key in (METADATA_KEY, NOTES_KEY, DECODER_KEY):
        if key in metadata:
            sums[key] = checksum(metadata[key].encode())
    metadata = {**metadata, CHECKSUMS: json.dumps(sums)}
    _write(path, lambda file: file.write(save(tensors, metadata)))


def _write(path, write):
    with partial_path(path) as partial, open(partial, "wb") as file:
        write(file)
