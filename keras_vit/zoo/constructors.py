"""Constructors, one for each architecture, in the manner of `keras.applications`."""

import functools
import os
from collections.abc import Callable
from typing import Any, Protocol

import keras

from keras_vit.models import BiTResNet, EfficientNet, VisionTransformer
from keras_vit.models.config_overrides import apply_overrides, check_overrides
from keras_vit.models.resnet_stem import stride
from keras_vit.models.sizes import BITS, EFFICIENTNETS, architecture_fields, paper_name
from keras_vit.presets import PRESETS, Preset, UnknownPresetError
from keras_vit.weight_paths import automatic_name
from keras_vit.weights.keras_files import is_weights_file
from keras_vit.weights.load import load_file
from keras_vit.zoo.pretrained import (
    Model,
    check_architecture,
    fetch_preset,
    from_file,
    locate,
    named_preset,
)


class Constructor(Protocol):
    """Signature of the constructors."""

    def __call__(
        self,
        include_top: bool = True,
        weights: str | os.PathLike[str] | None = ...,
        input_tensor: keras.KerasTensor | None = None,
        input_shape: tuple[int | None, ...] | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: str | Callable[..., Any] | None = ...,
        name: str | None = None,
        **overrides: Any,
    ) -> Model: ...


CONSTRUCTORS: dict[str, Constructor] = {}  # by the name of the architecture


def _constructor(architecture: str) -> Constructor:
    """Makes the constructor of an architecture, and adds it to `CONSTRUCTORS`."""
    tags = _presets_by_tag(architecture)
    default = next(iter(tags), None)
    fields = architecture_fields(architecture)
    model_class = _model_class(architecture)

    def constructor(
        include_top=True,
        weights=default,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=None,
        classifier_activation="softmax",
        name=None,
        **overrides: Any,
    ):
        plain_vit = overrides.pop("plain_vit", False)
        overrides["classifier_activation"] = classifier_activation
        overrides["name"] = name or automatic_name(architecture.lower())
        if input_tensor is not None:
            overrides["input_tensor"] = input_tensor
            input_shape = input_shape or tuple(input_tensor.shape[1:])
        if input_shape is not None:
            overrides["input_shape"] = tuple(input_shape)
        if pooling is not None or not include_top:
            overrides["pooling"] = pooling
        if not include_top:
            overrides["classes"] = 0
            if model_class is VisionTransformer:
                overrides["representation_size"] = None
        elif classes is not None:
            overrides["classes"] = classes
        defaults = {"image_size": (224, 224), "channels": 3, "classes": 1000}
        defaults |= fields
        check_overrides(model_class, overrides)
        if weights is None:
            return model_class(**apply_overrides(defaults, overrides))
        weights = os.fspath(weights)
        preset = preset_of(architecture, weights)
        path = fetch_preset(preset) if preset else locate(weights)[0]
        if is_weights_file(path):
            model = model_class(**apply_overrides(defaults, overrides))
            load_file(model, path)
            return model
        # The constructor gives what the file lacks.
        known = {k: v for k, v in fields.items() if k == "num_heads"} | overrides
        expected = dict(fields)
        if preset and preset.resized:
            del expected["patch_size"]
        if preset and classifier_activation == "softmax":  # an embedding has none
            activation = preset.fields.get("classifier_activation", "softmax")
            known["classifier_activation"] = activation
        check = functools.partial(check_architecture, architecture, expected, path)
        model, _ = from_file(path, preset, known, plain_vit=plain_vit, check=check)
        return model

    constructor.__name__ = constructor.__qualname__ = architecture
    constructor.__doc__ = _describe_constructor(architecture, fields, tags)
    CONSTRUCTORS[architecture] = constructor
    return constructor


def _model_class(architecture):
    if architecture in EFFICIENTNETS:
        return EfficientNet
    return BiTResNet if architecture in BITS else VisionTransformer


def _describe_constructor(architecture, fields, tags) -> str:
    model = _model_class(architecture).__name__
    if model != "VisionTransformer":
        positions, sizes = "", "size"
        pooling, features = '`"gap"` or `"avg"`, the mean', "the feature map"
    else:
        step = fields["patch_size"] * stride(fields.get("stem"))
        positions = """ Another shape than the
            checkpoint's resizes the position embedding."""
        sizes = f"size divisible by {step}" if fields["patch_size"] > 1 else "size"
        pooling = (
            '`"token"`, `"gap"` (or `"avg"`, the mean), `"map"`, `"token_gap"` or\n'
            '            `"query"`, see `VisionTransformer`'
        )
        features = "every token"
    return f"""Builds {paper_name(architecture)} as `keras.applications` would.

    Args:
        include_top: bool, whether the model has a head (and the `pre_logits` layer of
            some checkpoints).
        weights: {", ".join(map(repr, tags)) or "no published checkpoint is known"};
            name of a file of AugReg or BiT; path or address of a checkpoint of this
            architecture, as in `from_pretrained`, or of a `.weights.h5` file; or `None`
            for new weights.
        input_tensor: a `keras.Input` to build the model on.
        input_shape: shape of an image; `None` for that of the checkpoint, or (224, 224, 3)
            with `weights=None`.{positions} Other channels than the checkpoint's three
            extend the first kernel, see `from_pretrained`.
            {f"Height and width `None` accept any {sizes}." * (model != "EfficientNet")}
        pooling: {pooling}.
            `None` takes the checkpoint's; without a head it returns {features}.
        classes: int, outputs of the head; `None` keeps the checkpoint's (1000 with
            `weights=None`). Another number than the checkpoint's gives a new head, all
            zeros.
        classifier_activation: activation of the head; `None` returns logits.
        name: str, name of the model, with which the paths of its weights begin; `None`
            for the architecture's in lower case, with a number from the second model on.
        **overrides: further arguments of `{model}`, or `plain_vit=True`
            to read a file as a plain ViT; see `from_pretrained`.

    Returns:
        A `{model}`.

    Raises:
        FileNotFoundError: if `weights` is a path without a file.
        ConnectionError: if a file cannot be downloaded.
        ValueError: if `weights` is unknown or has another architecture, or an argument is
            out of its range.
    """


def _presets_by_tag(architecture) -> dict[str, Preset]:
    return {row.tag: row for row in PRESETS.values() if row.architecture == architecture}


def preset_of(architecture: str, weights: str) -> Preset | None:
    """The preset that `weights` of a constructor names; `None` for a path or an address.

    Raises:
        ValueError: if there is no such preset.
    """
    tags = _presets_by_tag(architecture)
    try:
        return tags.get(weights) or named_preset(weights)
    except UnknownPresetError as error:
        known = ", ".join(map(repr, tags)) or "none is published"
        raise ValueError(
            f"Unknown `weights` of {architecture}: {weights!r}. Expected one of the tags "
            f"{known}; the name of a file of AugReg or BiT; the path or address of a file; "
            "or none for new weights."
        ) from error


ViTTi16: Constructor = _constructor("ViTTi16")
ViTS16: Constructor = _constructor("ViTS16")
ViTS16plus: Constructor = _constructor("ViTS16plus")
ViTS32: Constructor = _constructor("ViTS32")
ViTB8: Constructor = _constructor("ViTB8")
ViTB16: Constructor = _constructor("ViTB16")
ViTB32: Constructor = _constructor("ViTB32")
ViTL16: Constructor = _constructor("ViTL16")
ViTL32: Constructor = _constructor("ViTL32")
ViTH14: Constructor = _constructor("ViTH14")
ViTH16plus: Constructor = _constructor("ViTH16plus")
ViTg14: Constructor = _constructor("ViTg14")
ViTG14: Constructor = _constructor("ViTG14")
ViTSo400m14: Constructor = _constructor("ViTSo400m14")
ViT7B16: Constructor = _constructor("ViT7B16")
RViTTi16: Constructor = _constructor("RViTTi16")
R26ViTS32: Constructor = _constructor("R26ViTS32")
R26ViTB32: Constructor = _constructor("R26ViTB32")
R50ViTB16: Constructor = _constructor("R50ViTB16")
R50ViTL32: Constructor = _constructor("R50ViTL32")
BiTR50x1: Constructor = _constructor("BiTR50x1")
BiTR50x3: Constructor = _constructor("BiTR50x3")
BiTR101x1: Constructor = _constructor("BiTR101x1")
BiTR101x3: Constructor = _constructor("BiTR101x3")
BiTR152x2: Constructor = _constructor("BiTR152x2")
BiTR152x4: Constructor = _constructor("BiTR152x4")
EfficientNetL2: Constructor = _constructor("EfficientNetL2")
