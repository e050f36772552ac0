"""Models from checkpoints, and their weights in and out."""

import os

import keras

from keras_vit import arguments
from keras_vit.download.cache import fetch
from keras_vit.layers.initial import waiting_for_values
from keras_vit.layers.trainability import (
    TRAINABLE_PARTS,
    part_paths,
    set_trainable_parts,
)
from keras_vit.models import BiTResNet, VisionTransformer
from keras_vit.models.overrides import (
    check_overrides,
    image_size_of,
    merge,
    of_applications,
)
from keras_vit.models.quantized import QUANTIZATION, quantization_of, quantize_layers
from keras_vit.models.sizes import architecture_fields
from keras_vit.presets import Preset, find_preset
from keras_vit.weights.architecture import CHECKS
from keras_vit.weights.checkpoint import Checkpoint, split_subtree
from keras_vit.weights.files.opening import ENDINGS
from keras_vit.weights.keras_files import is_keras_hub, is_saved_model, saved_model
from keras_vit.weights.load import ModelTensors, assign, check_no_key, load_file
from keras_vit.weights.report import LoadReport
from keras_vit.weights.save import save

MODELS = {"vit": VisionTransformer, "bit": BiTResNet}
Model = VisionTransformer | BiTResNet


def from_pretrained(
    source: str | os.PathLike | keras.Model,
    *,
    key: str | None = None,
    position_grid: tuple[int, int] | None = None,
    resize_patches: bool = False,
    plain_vit: bool = False,
    **overrides,
) -> Model:
    """The model that a checkpoint holds, with its weights.

    Args:
        source: name of a preset such as `"ViTB16.imagenet21k"`, or of a file of AugReg or
            BiT; an address (`https://…`, `gs://…`, `hf://owner/name`); the path of a file
            (`.npz` in Google's layout, `.safetensors` in timm's or Hugging Face's,
            `.pth`, `.bin`, `.ckpt` or `.pth.tar` of torch, `.keras`), or of a folder with
            `model.safetensors`; or a model of this package in memory, of which a copy is
            made. The architecture is inferred from names and shapes, and from a
            `config.json` beside the file. `"….npz:img"` takes a sub-tree of a file.
        key: where a file of several state dicts or models has the one that is meant, such
            as `"state_dict_ema"` or `"teacher.backbone"`: a key of its dictionary, a
            prefix of its names, or several with dots between; `""` is what has none.
            `None` finds the only one; of weights and their average it takes the weights,
            of student and teacher the teacher, and says so in the log.
        position_grid: (rows, columns) of the position embedding in the file, which tells
            their product alone. `None` takes what a `config.json` says, else a square.
        resize_patches: bool, whether the patch embedding's kernel is resized to another
            `patch_size`, as in FlexiViT (arXiv 2212.08013).
        plain_vit: bool, whether the file is a plain ViT, whatever names say. Rotary
            positions and the like leave no tensor behind, so a file is refused if its
            `config.json` or its own name names an architecture that is not known to be
            computed exactly, or if it has no positions.
        **overrides: arguments of the model that replace those of the
            checkpoint, or that the file does not tell: without a `config.json`, heads in
            timm's and Hugging Face's layouts are those of the published models of this
            size, else of size 64 (`num_heads=…` says otherwise). With
            another `input_shape` or `image_size` the position embedding is resized; with
            another number of `classes` the head is new, all zeros, and a `pre_logits`
            layer is left out unless `representation_size` is given too (section 3.2 of
            the ViT paper); `classifier_activation=None` gives logits. What is frozen in
            a `.keras` file or a model stays frozen, a new head excepted, unless
            `trainable=True` is given.

    Returns:
        A `VisionTransformer`, or a `BiTResNet` from a checkpoint of BiT.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a file cannot be downloaded.
        ValueError: if the file is damaged or foreign, does not tell the architecture,
            only looks like a ViT, or does not fit the overrides.

    Example:

    >>> model = from_pretrained("ViT-B_16.npz", input_shape=(384, 384, 3), classes=102)
    """
    reading = {"position_grid": position_grid, "plain_vit": plain_vit}
    reading |= {"key": key, "resize_patches": resize_patches}
    model, _ = read(source, **reading, **overrides)
    return model


def read(
    source,
    key=None,
    position_grid=None,
    resize_patches=False,
    plain_vit=False,
    **overrides,
) -> tuple[Model, LoadReport]:
    """The model of `from_pretrained`, and what became of the checkpoint's tensors."""
    overrides = of_applications(overrides)
    if isinstance(source, keras.Model):
        check_no_key(source.name, key)
        return _from_model(source, source.name, overrides, resize_patches=resize_patches)
    path, preset = locate(source)
    reading = {"position_grid": position_grid, "plain_vit": plain_vit, "key": key}
    return from_file(path, preset, overrides, resize_patches=resize_patches, **reading)


def load_weights(
    model: keras.Model,
    source: str | os.PathLike,
    *,
    skip_mismatched_head: bool = True,
    key: str | None = None,
    position_grid: tuple[int, int] | None = None,
    resize_patches: bool = False,
    plain_vit: bool = False,
) -> LoadReport:
    """Loads a checkpoint into a model: all of it, or an error and no change.

    A position embedding of another grid is resized. Every tensor of the checkpoint is
    used or dropped for a reason that the report states; every variable is filled.

    Args:
        model: a `VisionTransformer` or `BiTResNet`, or a functional model with its layers.
        source: name of a preset or of a file of AugReg or BiT, an address, or the path
            of a file or folder, as in `from_pretrained`, or of a `.weights.h5` file.
        skip_mismatched_head: bool, whether a head of another size than the checkpoint's
            stays as it is; `False` makes it an error.
        key: which state dict or model of the file, as in `from_pretrained`.
        position_grid: (rows, columns) of the position embedding in the file, which tells
            their product alone. `None` takes what a `config.json` says, else a square.
        resize_patches: bool, whether a patch embedding's kernel of another size is
            resized, as in FlexiViT (arXiv 2212.08013), instead of an error.
        plain_vit: bool, whether the file is a plain ViT, whatever names say; see
            `from_pretrained`.

    Returns:
        A `LoadReport`.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a file cannot be downloaded.
        ValueError: if the file is damaged or foreign or only looks like a ViT, or listing
            every tensor that is unused, missing or of another shape.
    """
    path, preset = locate(source)
    return load_file(
        model,
        path,
        skip_mismatched_head=skip_mismatched_head,
        key=key,
        position_grid=position_grid,
        resize_patches=resize_patches or bool(preset and preset.resized),
        preset=told_by_preset(preset),
        plain_vit=plain_vit,
    )


def save_weights(model: Model, path: str | os.PathLike, *, layout: str) -> None:
    """Writes a model's weights in another project's layout.

    `from_pretrained` and `load_weights` read them back to the last bit. A file is
    written beside its place and moved there once it is complete. For Keras' own formats
    use `model.save` and `model.save_weights`.

    Args:
        model: a `VisionTransformer` or `BiTResNet`, fine-tuned or not.
        path: path of an `.npz` file (`"google"`), of a `.safetensors` file (`"timm"`) or
            of a folder (`"huggingface"`), which is made where it is missing.
        layout: `"google"` (the ViT paper's code, or BigVision where the model is one of
            its), `"timm"` (the state dict of its VisionTransformer) or `"huggingface"`
            (config.json, preprocessor_config.json and model.safetensors, as transformers
            reads them: ViT, DINOv2 with or without registers, CLIP's or SigLIP's image
            tower, whichever the model is).

    Raises:
        ValueError: if the layout has no place for a part of the model, naming it, or
            `path` has another ending; nothing is written.

    Example:

    >>> save_weights(model, "flowers.safetensors", layout="timm")
    """
    if not isinstance(model, Model):
        raise ValueError(
            "`save_weights` writes a `VisionTransformer` or `BiTResNet`. Received: "
            f"{type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    save(model, path, layout)


def locate(source: str | os.PathLike) -> tuple[str, Preset | None]:
    """The local path that a preset, an address or a path stands for, and the preset."""
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            "A checkpoint is given by a name, a path or an address. Received: "
            f"{type(source).__name__} {source!r}"
        )
    source = os.fspath(source)
    if "://" in source:
        return fetch_file(source), None
    path, _ = split_subtree(source)
    if os.path.exists(path) or os.sep in path or path.endswith(ENDINGS):
        return source, None
    preset = find_preset(source)
    return fetch_file(preset.address), preset


def fetch_file(address: str) -> str:
    """The local path of the file at an address, with the sub-tree that it names."""
    address, subtree = split_subtree(address)
    return fetch(address) + (f":{subtree}" if subtree else "")


def told_by_preset(preset: Preset | None) -> tuple[str, dict] | None:
    """(who, arguments of the model): what a preset's row says of its file."""
    if preset is None:
        return None
    config, images = preset.config(), preset.preprocessing
    known = {**preset.fields, "image_mean": images.mean, "image_std": images.std}
    if "num_heads" in config:
        known["num_heads"] = config["num_heads"]
    if not preset.resized:
        known["image_size"] = config["image_size"]
    return f"the preset {preset.name}", known


def told_by_caller(overrides: dict) -> dict:
    """Arguments of the model that say something of the file, not only of the model."""
    others = ("image_size", "pooling", "image_mean", "image_std")
    told = {k: v for k, v in overrides.items() if k in CHECKS and k not in others}
    if overrides.get("classes") is not None:
        told["classes"] = overrides["classes"]
    return told


def from_file(
    path,
    preset,
    overrides,
    *,
    position_grid=None,
    resize_patches=False,
    plain_vit=False,
    check=None,
    key=None,
) -> tuple[Model, LoadReport]:
    """The model that a file holds; `check` sees its config before it is built."""
    is_model = is_saved_model(path)
    is_weights = path.endswith(".weights.h5") and not is_model and not is_keras_hub(path)
    if is_model or is_weights:
        check_no_key(path, key)
    if is_model:
        saved = saved_model(path)
        overrides = _with_policy(saved, overrides)
        return _from_model(saved, path, overrides, check, resize_patches=resize_patches)
    if is_weights:
        raise ValueError(
            "A model is built from a file that tells the architecture. Received: "
            f"{path!r}. For .weights.h5, build the model and use "
            "`keras_vit.load_weights`."
        )
    if preset and preset.resized:
        config = preset.config()
        if overrides.get("input_shape") is None:
            overrides = {"image_size": config["image_size"]} | overrides
        overrides = {"patch_size": config["patch_size"]} | overrides
        resize_patches = True
    with Checkpoint(
        path,
        overrides=told_by_caller(overrides),
        preset=told_by_preset(preset),
        model={"image_size": image_size_of(overrides)},
        position_grid=position_grid,
        key=key,
        plain_vit=plain_vit,
    ) as checkpoint:
        config = checkpoint.architecture()
        if preset:
            _check_preset(preset, config, path)
        if check:
            check(config)
        config |= {**checkpoint.notes(config["classes"]), **_notes_of(preset)}
        with waiting_for_values():
            try:
                model_class = MODELS[checkpoint.layout.model]
                check_overrides(model_class, overrides)
                model = model_class(**merge(config, overrides))
            except ValueError as error:
                raise ValueError(f"No model can be built from {path!r}: {error}") from error
        report = assign(model, checkpoint, resize_patches=resize_patches, is_new=True)
    return model, report


def _notes_of(preset: Preset | None) -> dict:
    """The preparation of images by a preset's source, where it says so."""
    if preset is None or preset.preprocessing.crop_fraction is None:
        return {}
    steps = preset.preprocessing
    if steps.squash:
        return {"preprocessing": {"evaluation_crop": "resize"}}
    factor = 1 / steps.crop_fraction
    return {"preprocessing": {"evaluation_crop": "center", "resize_factor": factor}}


def _check_preset(preset, config, path):
    """That the file at the preset's address is what its row says, or a ValueError."""
    row = preset.config()
    names = {"classes", *architecture_fields(preset.architecture)}
    if preset.resized:
        names.remove("patch_size")
    if differences := _differences({name: row[name] for name in names}, config):
        raise ValueError(
            f"{path!r} is not the checkpoint of the preset {preset.name!r}. "
            f"{differences} Delete it if it was downloaded, or load it by its path."
        )


def check_architecture(architecture: str, fields: dict, path: str, config: dict):
    """That a config is of the architecture that has these fields, or a ValueError."""
    if differences := _differences(fields, config):
        raise ValueError(
            f"{path!r} is not a checkpoint of {architecture}. {differences} "
            "`keras_vit.from_pretrained` builds the model that fits a file."
        )


def _differences(expected, config) -> str:
    """What was expected and what is there instead, or nothing."""
    expected = {key: _plain(key, value) for key, value in expected.items()}
    config = {key: _plain(key, config.get(key)) for key in expected}
    differing = [key for key, value in expected.items() if config[key] != value]
    if not differing:
        return ""
    expected = ", ".join(f"{key}={expected[key]}" for key in differing)
    received = ", ".join(f"{key}={config[key]}" for key in differing)
    return f"Expected {expected}. Received {received}."


def _plain(key, value):
    """What an architecture's name says of a field, in one form."""
    if key == "stem" and value is not None:
        return {part: value[part] for part in ("num_units", "width_factor")}
    return arguments.pair(value, key) if key == "patch_size" and value else value


def _with_policy(saved, overrides) -> dict:
    """Overrides with the global dtype policy, where one is set and no other is asked for.

    Quantized layers stay as they were.
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
            "`from_pretrained` makes a model of this package from one. Received: "
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
    merged = merge(config, overrides)
    if ways and merged["classes"] != config["classes"]:
        raise ValueError(
            f"{origin!r} is quantized, and a new head must be trained. Received: "
            f"classes={merged['classes']} for {config['classes']} of the file. Fine-tune "
            "the model that it was made of, and quantize it afterwards."
        )
    with waiting_for_values():
        model = type(source)(**merged)
    quantize_layers(model, ways)
    tensors = ModelTensors(source, origin)
    report = assign(model, tensors, resize_patches=resize_patches, is_new=True)
    if "trainable" not in overrides:
        set_trainable_parts(model, _still_there(parts, model, report.fresh))
    return model, report


def _still_there(parts, model, fresh):
    """The parts that a copy has of the model that it was made of; a new head is trained."""
    known = part_paths(model) - ({"head", *fresh} if fresh else set())
    return {path: trained for path, trained in parts.items() if path in known}
