"""Constructors by name, and models from checkpoints."""

import os
from typing import Protocol

import keras

from keras_vit.layers import arguments
from keras_vit.models.sizes import SIZES
from keras_vit.models.vision_transformer import VisionTransformer
from keras_vit.presets import PRESETS
from keras_vit.weights.download import fetch
from keras_vit.weights.google import GoogleCheckpoint
from keras_vit.weights.keras_files import model_tensors, saved_model
from keras_vit.weights.load import assign, load_file
from keras_vit.weights.report import LoadReport


def from_pretrained(
    source: str | os.PathLike | keras.Model,
    *,
    position_grid: tuple[int, int] | None = None,
    **overrides,
) -> VisionTransformer:
    """The model that a checkpoint holds, with its weights.

    Args:
        source: name of a preset such as `"ViTB16.imagenet21k"`; an address
            (`https://…`, `gs://…`); the path of an `.npz` file in Google's layout, from
            which the architecture is inferred, or of a `.keras` file; or a
            `VisionTransformer` in memory, of which a copy is made.
        position_grid: (rows, columns) of the position embedding in an `.npz` file, which
            tells their product alone. `None` takes a square.
        **overrides: arguments of `VisionTransformer` that replace those of the
            checkpoint. With another `input_shape` or `image_size` the position embedding
            is resized; with another number of `classes` the head is new, all zeros, and
            a `pre_logits` layer is left out unless `representation_size` is given too
            (section 3.2 of the ViT paper); `classifier_activation=None` gives logits.

    Returns:
        A `VisionTransformer`.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a file cannot be downloaded.
        ValueError: if the file is damaged or foreign, does not tell the architecture, or
            does not fit the overrides.

    Example:

    >>> model = from_pretrained("ViT-B_16.npz", input_shape=(384, 384, 3), classes=102)
    """
    if isinstance(source, keras.Model):
        config, fill = _read_model(source, source.name)
    else:
        config, fill = _read_file(_local_path(source), position_grid)
    model = VisionTransformer(**_merge(config, overrides))
    fill(model)
    return model


def load_weights(
    model: keras.Model,
    source: str | os.PathLike,
    *,
    skip_mismatched_head: bool = True,
    position_grid: tuple[int, int] | None = None,
) -> LoadReport:
    """Loads a checkpoint into a model: all of it, or an error and no change.

    A position embedding of another grid is resized. Every tensor of the checkpoint is
    used or dropped for a reason that the report states; every variable is filled.

    Args:
        model: a `VisionTransformer`, or a functional model with its layers.
        source: name of a preset, an address, or the path of an `.npz` file (Google's
            layout), a `.keras` or a `.weights.h5` file.
        skip_mismatched_head: bool, whether a head of another size than the checkpoint's
            stays as it is; `False` makes it an error.
        position_grid: (rows, columns) of the position embedding in an `.npz` file, which
            tells their product alone. `None` takes a square.

    Returns:
        A `LoadReport`.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a file cannot be downloaded.
        ValueError: if the file is damaged or foreign, or listing every tensor that is
            unused, missing or of another shape.
    """
    return load_file(
        model,
        _local_path(source),
        skip_mismatched_head=skip_mismatched_head,
        position_grid=position_grid,
    )


def _local_path(source) -> str:
    """Path of the file that a preset, an address or a path stands for."""
    source = os.fspath(source)
    if source in PRESETS:
        source = PRESETS[source].address
    if "://" in source:
        return fetch(source)
    looks_like_path = os.sep in source or source.endswith((".npz", ".keras", ".h5"))
    if not os.path.exists(source) and not looks_like_path:
        raise ValueError(
            f"Unknown preset {source!r}, and no such file. Presets: "
            f"{', '.join(sorted(PRESETS))}"
        )
    return source


def _read_file(path, position_grid=None):
    """The config that a file holds, and the function that loads it into a model."""
    if path.endswith(".keras"):
        return _read_model(saved_model(path), path)
    if not path.endswith(".npz"):
        raise ValueError(
            "A model is built from a file that tells the architecture: .npz (Google's "
            f"layout) or .keras. Received: {path!r}. For .weights.h5, build the model "
            "and use `keras_vit.load_weights`."
        )
    with GoogleCheckpoint(path, position_grid) as checkpoint:
        config = checkpoint.architecture()
    return config, lambda model: load_file(model, path, position_grid=position_grid)


def _read_model(source, origin):
    if not isinstance(source, VisionTransformer):
        raise ValueError(
            "`from_pretrained` makes a `VisionTransformer` from one. Received: "
            f"{type(source).__name__} {source.name!r} of {origin!r}. Use "
            "`keras.models.load_model` for other models."
        )
    config = source.get_config()
    channel_axis = -1 if config["data_format"] == "channels_last" else 1
    config["channels"] = source.input_shape[channel_axis]
    return config, lambda model: assign(model, model_tensors(source), origin)


def _merge(config: dict, overrides: dict) -> dict:
    """Arguments of `VisionTransformer`: the config, overrides, and what follows."""
    config = dict(config)
    channels = config.pop("channels")
    merged = {**config, **overrides}
    data_format = arguments.image_data_format(merged.get("data_format"))
    channels_last = data_format == "channels_last"
    if overrides.get("input_shape") is not None:
        shape = overrides["input_shape"]
        size = shape[:2] if channels_last else shape[1:]
        if "image_size" not in overrides:
            # A size that may vary keeps the grid that it is resized from.
            native = config.get("image_size") or (None, None)
            merged["image_size"] = [
                given or known for given, known in zip(size, native, strict=False)
            ]
    elif "image_size" in overrides or config.get("input_shape") is None:
        merged["input_shape"] = None
        if channels != 3 and "image_size" in merged:
            size = arguments.pair(merged["image_size"], "image_size")
            merged["input_shape"] = (
                (*size, channels) if channels_last else (channels, *size)
            )
    size = merged.get("image_size")
    if size is None or (not isinstance(size, int) and None in size):
        raise ValueError(
            "The checkpoint does not tell the image size: its number of patches is no "
            "square. Give `input_shape=(height, width, channels)` or "
            "`position_grid=(rows, columns)`."
        )
    if merged["classes"] is None:
        merged["classes"] = config["classes"]
    new_head = merged["classes"] != config["classes"]
    if new_head and "representation_size" not in overrides:
        merged["representation_size"] = None
    return merged


class Constructor(Protocol):
    """What the constructors have in common, in the manner of `keras.applications`."""

    def __call__(
        self,
        include_top: bool = True,
        weights: str | os.PathLike | None = ...,
        input_tensor=None,
        input_shape: tuple[int | None, ...] | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation=...,
        name: str | None = None,
        **overrides,
    ) -> VisionTransformer: ...


def _constructor(architecture: str, size: str, patch_size: int) -> Constructor:
    tags = {row.tag: row for row in PRESETS.values() if row.architecture == architecture}
    default = next(iter(tags), None)
    fields = {"patch_size": (patch_size, patch_size), **SIZES[size]}

    def constructor(
        include_top=True,
        weights=default,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=None,
        classifier_activation="softmax",
        name=None,
        **overrides,
    ):
        overrides["classifier_activation"] = classifier_activation
        overrides["name"] = name or architecture.lower()
        if input_tensor is not None:
            overrides["input_tensor"] = input_tensor
            input_shape = input_shape or tuple(input_tensor.shape[1:])
        if input_shape is not None:
            overrides["input_shape"] = tuple(input_shape)
        if pooling is not None or not include_top:
            overrides["pooling"] = pooling
        if not include_top:
            overrides |= {"classes": 0, "representation_size": None}
        elif classes is not None:
            overrides["classes"] = classes
        defaults = {"image_size": (224, 224), "channels": 3, "classes": 1000}
        defaults |= fields
        if weights is None:
            return VisionTransformer(**_merge(defaults, overrides))
        path = _weights_path(architecture, weights, tags)
        if path.endswith(".weights.h5"):
            model = VisionTransformer(**_merge(defaults, overrides))
            load_file(model, path)
            return model
        config, fill = _read_file(path)
        _check_architecture(architecture, fields, config, path)
        model = VisionTransformer(**_merge(config, overrides))
        fill(model)
        return model

    constructor.__name__ = constructor.__qualname__ = architecture
    constructor.__doc__ = f"""Builds ViT-{size}/{patch_size} as `keras.applications` would.

    Args:
        include_top: bool, whether there is a head (and the `pre_logits` layer of the
            checkpoints that have one).
        weights: {", ".join(map(repr, tags)) or "no published checkpoint is known"};
            the path or address of an `.npz`, `.keras` or `.weights.h5` file of this
            architecture; or `None` for new weights.
        input_tensor: a `keras.Input` to build the model on.
        input_shape: shape of an image, `None` for that of the checkpoint or, with
            `weights=None`, (224, 224, 3). Another shape than the checkpoint's resizes
            the position embedding; height and width `None` accept any size divisible
            by {patch_size}.
        pooling: `"token"`, `"gap"` or `"map"`. `None` takes the checkpoint's, or without
            a head returns every token.
        classes: int, outputs of the head; `None` keeps the checkpoint's (1000 with
            `weights=None`). Another number than the checkpoint's gives a new head, all
            zeros.
        classifier_activation: activation of the head; `None` returns logits.
        name: str, the model's name.
        **overrides: further arguments of `VisionTransformer`.

    Returns:
        A `VisionTransformer`.

    Raises:
        FileNotFoundError: if `weights` is a path without a file.
        ConnectionError: if a file cannot be downloaded.
        ValueError: if `weights` is unknown or of another architecture, or an argument is
            out of its range.
    """
    return constructor


def _weights_path(architecture, weights, tags):
    weights = os.fspath(weights)
    if weights in tags:
        weights = tags[weights].address
    if "://" in weights:
        return fetch(weights)
    try:
        return _local_path(weights)
    except ValueError as error:
        known = ", ".join(map(repr, tags)) or "none is published"
        raise ValueError(
            f"Unknown `weights` of {architecture}: {weights!r}. Expected one of the tags "
            f"{known}; the path or address of a file; or None for new weights."
        ) from error


def _check_architecture(architecture, fields, config, path):
    differing = [key for key, value in fields.items() if config[key] != value]
    if differing:
        expected = ", ".join(f"{key}={fields[key]}" for key in differing)
        received = ", ".join(f"{key}={config[key]}" for key in differing)
        raise ValueError(
            f"{path!r} is not a checkpoint of {architecture}. Expected {expected}. "
            f"Received {received}. `keras_vit.from_pretrained` builds the model that "
            "fits a file."
        )


ViTTi16 = _constructor("ViTTi16", "Ti", 16)
ViTS16 = _constructor("ViTS16", "S", 16)
ViTS32 = _constructor("ViTS32", "S", 32)
ViTB8 = _constructor("ViTB8", "B", 8)
ViTB16 = _constructor("ViTB16", "B", 16)
ViTB32 = _constructor("ViTB32", "B", 32)
ViTL16 = _constructor("ViTL16", "L", 16)
ViTL32 = _constructor("ViTL32", "L", 32)
ViTH14 = _constructor("ViTH14", "H", 14)
ViTg14 = _constructor("ViTg14", "g", 14)
ViTG14 = _constructor("ViTG14", "G", 14)
ViTSo400m14 = _constructor("ViTSo400m14", "So400m", 14)
