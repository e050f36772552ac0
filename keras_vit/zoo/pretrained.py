"""Models built from checkpoints; weights loaded and saved."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.download.cache import fetch
from keras_vit.layers.initial_values import waiting_for_values
from keras_vit.layers.trainability import (
    TRAINABLE_PARTS,
    part_paths,
    set_trainable_parts,
)
from keras_vit.log import log
from keras_vit.models import BiTResNet, EfficientNet, VisionTransformer
from keras_vit.models.config_overrides import (
    apply_overrides,
    asked_image_size,
    check_overrides,
    translate_include_top,
)
from keras_vit.models.quantized import QUANTIZATION, quantization_of, quantize_layers
from keras_vit.models.sizes import architecture_fields
from keras_vit.presets import Preset, find_preset
from keras_vit.weight_paths import HEADS
from keras_vit.weights.architecture import CHECKS
from keras_vit.weights.checkpoint import Checkpoint, split_subtree
from keras_vit.weights.files.opening import ENDINGS, in_folder
from keras_vit.weights.keras_files import is_saved_model, is_weights_file, saved_model
from keras_vit.weights.load import ModelTensors, assign, check_no_key, load_file
from keras_vit.weights.masked_checkpoint import has_decoder
from keras_vit.weights.report import LoadReport
from keras_vit.weights.save import save

MODELS = {"vit": VisionTransformer, "bit": BiTResNet, "efficientnet": EfficientNet}
Model = VisionTransformer | BiTResNet | EfficientNet


def from_pretrained(
    source: str | os.PathLike[str] | keras.Model,
    *,
    key: str | None = None,
    position_grid: tuple[int, int] | None = None,
    resize_patches: bool = False,
    plain_vit: bool = False,
    **overrides: Any,
) -> Model:
    """Builds the model of a checkpoint, with its weights.

    Args:
        source: name of a preset, such as `"ViTB16.imagenet21k"`, or of a file of AugReg or
            BiT; an address (`https://…`, `gs://…`, `hf://owner/name`); path of a file
            (`.npz` in Google's layout, `.safetensors` in timm's or Hugging Face's,
            `.pth`, `.bin`, `.ckpt` or `.pth.tar` of torch, `.keras`), or of a folder with
            `model.safetensors`, or of the folder of a run, for its best checkpoint; or a
            model of this package in memory, which is copied.
            The architecture is inferred from names and shapes, and from a `config.json`
            beside the file. `"….npz:img"` takes a sub-tree of a file.
        key: the state dict or model to read from a file of several, such as
            `"state_dict_ema"` or `"teacher.backbone"`: a key of the dictionary, a prefix
            of the names, or several joined by dots; `""` is the one without a key. `None`
            takes the only one, the weights rather than their average, the teacher rather
            than the student; the log names the choice.
        position_grid: (rows, columns) of the position embedding in the file, if the file
            holds only their product. `None` takes that of a `config.json`, or a square.
        resize_patches: bool, whether the kernel of the patch embedding is resized to
            another `patch_size`, as in FlexiViT (arXiv 2212.08013).
        plain_vit: bool, whether to read the file as a plain ViT, whatever its names say.
            By default a file is refused if its `config.json` or its own name names an
            architecture that may not be computed exactly, or if it has no positions:
            rotary positions and the like leave no tensor behind.
        **overrides: arguments of the model. They replace those of the checkpoint, and
            give values that the file lacks. `num_heads`: without a `config.json`, files in
            timm's and Hugging Face's layouts get that of the published models of this
            size, or heads of size 64. `input_shape`, `image_size`: the position embedding
            is resized. Other channels than the three of an RGB checkpoint: one gets the
            sum of the first kernel over RGB, others RGB repeated, times 3 / channels; a
            ResNet needs three or more, and those beyond whole repeats of RGB begin with
            zeros (`keras_vit.channels`). `image_mean` and `image_std` of each channel are
            repeated as well, or their mean for one channel. `classes`: another number than
            the checkpoint's gives a new head, all zeros, and leaves out a `pre_logits`
            layer unless `representation_size` is given (section 3.2 of the ViT paper).
            `classifier_activation=None` gives logits. `trainable=True` trains everything;
            by default the frozen parts of a `.keras` file or model stay frozen, except for
            a new head. `include_top` and `pooling="avg"` mean the same as in
            `keras.applications`.

    Returns:
        A `VisionTransformer`; a `BiTResNet` from a checkpoint of BiT; an `EfficientNet`
        from one of timm's `tf_efficientnet_…`.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a file cannot be downloaded.
        ValueError: if the file is damaged or foreign, only looks like a ViT, lacks a value
            that no other source gives, or does not fit the overrides.

    Example:

    >>> model = from_pretrained("ViT-B_16.npz", input_shape=(384, 384, 3), classes=102)
    """
    reading = {"position_grid": position_grid, "plain_vit": plain_vit}
    reading |= {"key": key, "resize_patches": resize_patches}
    model, _ = load_with_report(source, **reading, **overrides)
    return model


def load_with_report(
    source: str | os.PathLike[str] | keras.Model,
    key: str | None = None,
    position_grid: tuple[int, int] | None = None,
    resize_patches: bool = False,
    plain_vit: bool = False,
    **overrides: Any,
) -> tuple[Model, LoadReport]:
    """Builds the model of `from_pretrained`; returns it with the report of its loading."""
    overrides = translate_include_top(overrides)
    if isinstance(source, keras.Model):
        check_no_key(source.name, key)
        return _from_model(source, source.name, overrides, resize_patches=resize_patches)
    path, preset = locate(source)
    reading = {"position_grid": position_grid, "plain_vit": plain_vit, "key": key}
    return from_file(path, preset, overrides, resize_patches=resize_patches, **reading)


def load_weights(
    model: keras.Model,
    source: str | os.PathLike[str],
    *,
    skip_mismatched_head: bool = True,
    key: str | None = None,
    position_grid: tuple[int, int] | None = None,
    resize_patches: bool = False,
    plain_vit: bool = False,
) -> LoadReport:
    """Loads a checkpoint into a model: all of it, or none after an error.

    A position embedding of another grid is resized, and the first kernel of an RGB
    checkpoint is extended to other channels, as `from_pretrained` does. Every tensor of the
    checkpoint is used, or dropped for a reason that the report states; every variable is
    filled.

    Args:
        model: a `VisionTransformer`, `BiTResNet` or `EfficientNet`, or a functional model
            with its layers.
        source: name of a preset or of a file of AugReg or BiT, an address, or the path
            of a file or folder, as in `from_pretrained`, or of a `.weights.h5` file.
        skip_mismatched_head: bool, whether the model's head stays as it is if it has
            another size than the checkpoint's; `False` makes that an error.
        key: the state dict or model to read from the file; see `from_pretrained`.
        position_grid: (rows, columns) of the position embedding in the file; see
            `from_pretrained`.
        resize_patches: bool, whether a kernel of the patch embedding of another size is
            resized, as in FlexiViT (arXiv 2212.08013); `False` makes that an error.
        plain_vit: bool, whether to read the file as a plain ViT, whatever its names say;
            see `from_pretrained`.

    Returns:
        A `LoadReport`.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a file cannot be downloaded.
        ValueError: if the file is damaged or foreign, or only looks like a ViT; or if
            tensors are unused, missing or of another shape, all of which it lists.
    """
    path, preset = locate(source)
    return load_file(
        model,
        path,
        skip_mismatched_head=skip_mismatched_head,
        key=key,
        position_grid=position_grid,
        resize_patches=resize_patches or bool(preset and preset.resized),
        preset=preset_arguments(preset),
        plain_vit=plain_vit,
    )


def save_weights(model: keras.Model, path: str | os.PathLike[str], *, layout: str) -> None:
    """Writes the weights of a model in another project's layout.

    `from_pretrained` and `load_weights` read them back, bit for bit. A file gets its name
    once it is complete. For Keras' own formats use `model.save` and `model.save_weights`.

    Args:
        model: a `VisionTransformer`, `BiTResNet` or `EfficientNet`, fine-tuned or not, or a
            `pretraining.MaskedAutoencoder`.
        path: path of an `.npz` file (`"google"`), of a `.safetensors` file (`"timm"`,
            `"timm_naflex"`, `"meta"`), of a `.pth` file (`"meta"`) or of a folder
            (`"huggingface"`), which is created if it is missing.
        layout: `"google"` (that of the ViT paper's code, or of BigVision for its models),
            `"timm"` (the state dict of its VisionTransformer or Eva), `"timm_naflex"` (of
            its NaFlexVit), `"meta"` (the own names of DINOv3, and of MAE with its decoder)
            or `"huggingface"` (config.json, preprocessor_config.json and model.safetensors
            for transformers: ViT, DINOv2 with or without registers, DINOv3, MAE with its
            decoder, or the image tower of CLIP, SigLIP or SigLIP 2 NaFlex).

    Raises:
        ValueError: if the layout cannot hold a part of the model, which it names, or
            `path` has another ending; nothing is written.

    Example:

    >>> save_weights(model, "flowers.safetensors", layout="timm")
    """
    if not (isinstance(model, Model) or has_decoder(model)):
        raise ValueError(
            "`save_weights` writes a model of this package. Received: "
            f"{type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    save(model, path, layout)


def locate(source: str | os.PathLike[str]) -> tuple[str, Preset | None]:
    """Finds a checkpoint: (local path, preset or `None`). Downloads it if necessary.

    Raises:
        UnknownPresetError: if the source is no path, address or name of a checkpoint.
        ValueError: if it is malformed.
        ConnectionError: if a file cannot be downloaded.
    """
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            "A checkpoint is given by its name, path or address. Received: "
            f"{type(source).__name__} {source!r}"
        )
    source = os.fspath(source)
    if preset := named_preset(source):
        return fetch_preset(preset), preset
    return fetch_file(source) if "://" in source else in_folder(source), None


def named_preset(source: str) -> Preset | None:
    """The preset that a source names; `None` if it is a path or an address.

    Raises:
        UnknownPresetError: if the source is no path, address or name of a checkpoint.
        ValueError: if it is malformed.
    """
    path, _ = split_subtree(source)
    is_path = os.path.exists(path) or os.sep in path or path.endswith(ENDINGS)
    return None if "://" in source or is_path else find_preset(source)


def fetch_preset(preset: Preset) -> str:
    """Local path of the file of a preset; the log tells of a restricted license once."""
    path = fetch_file(preset.address)
    if preset.is_restricted:
        _log_license(preset)
    return path


@functools.cache
def _log_license(preset):
    log.warning(
        "The weights of %s have the license %s, which restricts their use. Read it before "
        "you use them commercially.",
        preset.name,
        preset.license,
    )


def fetch_file(address: str) -> str:
    """Local path of the file at an address, with its sub-tree; downloaded if necessary."""
    address, subtree = split_subtree(address)
    return fetch(address) + (f":{subtree}" if subtree else "")


def preset_arguments(preset: Preset | None) -> tuple[str, dict[str, Any]] | None:
    """Arguments of the model that a preset states: (source to name in messages, values)."""
    if preset is None:
        return None
    config, images = preset.config(), preset.preprocessing
    values = {**preset.fields, "image_mean": images.mean, "image_std": images.std}
    if "num_heads" in config:
        values["num_heads"] = config["num_heads"]
    if not preset.resized:
        values["image_size"] = config["image_size"]
    return f"the preset {preset.name}", values


def caller_arguments(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that state how to read the file; others only change the model."""
    others = ("image_size", "pooling", "image_mean", "image_std")
    return {k: v for k, v in overrides.items() if k in CHECKS and k not in others}


def from_file(
    path: str,
    preset: Preset | None,
    overrides: Mapping[str, Any],
    *,
    position_grid: tuple[int, int] | None = None,
    resize_patches: bool = False,
    plain_vit: bool = False,
    check: Callable[[dict[str, Any]], None] | None = None,
    key: str | None = None,
) -> tuple[Model, LoadReport]:
    """Builds the model of a file; `check` is called with its config before that."""
    if is_saved_model(path):
        check_no_key(path, key)
        saved = saved_model(path)
        overrides = _with_policy(saved, overrides)
        return _from_model(saved, path, overrides, check, resize_patches=resize_patches)
    if is_weights_file(path):
        check_no_key(path, key)
        raise ValueError(
            f"A .weights.h5 file does not tell the architecture. Received: {path!r}. Build "
            "the model and use `keras_vit.load_weights`."
        )
    if preset and preset.resized:
        config = preset.config()
        if overrides.get("input_shape") is None:
            overrides = {"image_size": config["image_size"]} | overrides
        overrides = {"patch_size": config["patch_size"]} | overrides
        resize_patches = True
    with Checkpoint(
        path,
        overrides=caller_arguments(overrides),
        preset=preset_arguments(preset),
        model={"image_size": asked_image_size(overrides)},
        position_grid=position_grid,
        key=key,
        plain_vit=plain_vit,
    ) as checkpoint:
        config = checkpoint.architecture()
        if preset:
            _check_preset(preset, config, path)
        if check:
            check(config)
        config |= {**checkpoint.notes(config["classes"]), **_preprocessing_notes(preset)}
        with waiting_for_values():
            try:
                model_class = MODELS[checkpoint.layout.model]
                check_overrides(model_class, overrides)
                model = model_class(**apply_overrides(config, overrides))
            except ValueError as error:
                raise ValueError(f"No model can be built from {path!r}: {error}") from error
        report = assign(model, checkpoint, resize_patches=resize_patches, is_new=True)
    return model, report


def _preprocessing_notes(preset) -> dict[str, Any]:
    """Preprocessing of images that the source of a preset states, as an argument."""
    if preset is None or preset.preprocessing.crop_fraction is None:
        return {}
    steps = preset.preprocessing
    if steps.squash and steps.crop_fraction == 1:
        noted = {"evaluation_crop": "resize"}
    else:
        size = min(arguments.pair(preset.resolution, "resolution"))
        noted = {
            "evaluation_crop": "square" if steps.squash else "center",
            "resize_factor": int(size / steps.crop_fraction) / size,  # as timm rounds
        }
    if steps.interpolation is not None:
        noted["interpolation"] = steps.interpolation
    return {"preprocessing": noted}


def _check_preset(preset, config, path):
    """Raises a ValueError if a file has another architecture than its preset."""
    row = preset.config()
    names = {"classes", *architecture_fields(preset.architecture)}
    if preset.resized:
        names.remove("patch_size")
    if differences := _differences({name: row[name] for name in names}, config):
        raise ValueError(
            f"{path!r} is not the checkpoint of the preset {preset.name!r}. "
            f"{differences} Delete it if it was downloaded, or load it by its path."
        )


def check_architecture(
    architecture: str, fields: Mapping[str, Any], path: str, config: Mapping[str, Any]
) -> None:
    """Raises a ValueError if the config of a file has other fields than an architecture."""
    if differences := _differences(fields, config):
        raise ValueError(
            f"{path!r} is not a checkpoint of {architecture}. {differences} "
            "`keras_vit.from_pretrained` builds the model of a file."
        )


def _differences(expected, config) -> str:
    """Fields that differ from the expected ones, as a sentence; `""` if none does."""
    expected = {key: _plain(key, value) for key, value in expected.items()}
    config = {key: _plain(key, config.get(key)) for key in expected}
    differing = [key for key, value in expected.items() if config[key] != value]
    if not differing:
        return ""
    expected = ", ".join(f"{key}={expected[key]}" for key in differing)
    received = ", ".join(f"{key}={config[key]}" for key in differing)
    return f"Expected {expected}. Received {received}."


def _plain(key, value):
    """Value of a field in one form, without the parts that are not in the name."""
    if key == "stem" and value is not None:
        return {part: value[part] for part in ("num_units", "width_factor")}
    return arguments.pair(value, key) if key == "patch_size" and value else value


def _with_policy(saved, overrides) -> dict[str, Any]:
    """Overrides with the global dtype policy, if it is set and they give no other.

    Quantized layers keep their own policies.
    """
    policy = keras.config.dtype_policy().name
    if policy == "float32" or "dtype" in overrides or quantization_of(saved):
        return overrides
    return {**overrides, "dtype": policy}


def _from_model(
    source, origin, overrides, check=None, *, resize_patches=False
) -> tuple[Model, LoadReport]:
    if not isinstance(source, Model):
        raise ValueError(
            "`from_pretrained` copies models of this package. Received: "
            f"{type(source).__name__} {source.name!r} of {origin!r}. Use "
            "`keras.models.load_model` for other models."
        )
    check_overrides(type(source), overrides)
    config = source.get_config()
    channel_axis = -1 if config["data_format"] == "channels_last" else 1
    config["channels"] = source.input_shape[channel_axis]
    if check:
        check(config)
    ways, parts = config.pop(QUANTIZATION, []), config.pop(TRAINABLE_PARTS, {})
    merged = apply_overrides(config, overrides)
    if ways and merged["classes"] != config["classes"]:
        raise ValueError(
            f"{origin!r} is quantized, and a new head must be trained. Received: "
            f"classes={merged['classes']}, where the file has {config['classes']}. "
            "Fine-tune the model before it is quantized."
        )
    with waiting_for_values():
        model = type(source)(**merged)
    quantize_layers(model, ways)
    tensors = ModelTensors(source, origin)
    report = assign(model, tensors, resize_patches=resize_patches, is_new=True)
    if "trainable" not in overrides:
        set_trainable_parts(model, _remaining_parts(parts, model, report.fresh))
    return model, report


def _remaining_parts(parts, model, fresh):
    """Trainability of the parts that the copy also has; a new head is trained."""
    known = part_paths(model) - ({*HEADS, *fresh} if fresh else set())
    return {path: trained for path, trained in parts.items() if path in known}
