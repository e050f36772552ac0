"""Overrides: arguments of a model that replace those of a config."""

import difflib
from collections.abc import Mapping, Sequence
from inspect import signature

from keras_vit import arguments
from keras_vit.channels import extend_values
from keras_vit.models.notes import OF_THE_HEAD

# Arguments that a pooling has for itself → their defaults, for another pooling.
_OF_POOLING = {"pooling_num_heads": None, "pooling_mlp_dim": None, "pooling_prefix": False}


def asked_image_size(
    overrides: Mapping, data_format: str | None = None
) -> int | tuple[int | None, int | None] | None:
    """Image size that the overrides give, or `None`.

    Args:
        overrides: arguments of a model.
        data_format: that of the config which they change; `None` for Keras' default.
    """
    shape = overrides.get("input_shape")
    if "image_size" in overrides or shape is None:
        return overrides.get("image_size")
    data_format = arguments.image_data_format(overrides.get("data_format") or data_format)
    return shape[:2] if data_format == "channels_last" else shape[1:]


def translate_include_top(overrides: Mapping) -> dict:
    """Overrides with `include_top` of `keras.applications` replaced by our arguments.

    Raises:
        ValueError: if they hold `weights`, or `include_top=False` and a number of classes.
    """
    overrides = dict(overrides)
    if "weights" in overrides:
        raise ValueError(
            "`from_pretrained` takes the checkpoint as its first argument, and always its "
            f"weights. Received: weights={overrides['weights']!r}. New weights come from "
            "the constructors, such as `keras_vit.ViTB16(weights=None)`."
        )
    if overrides.pop("include_top", True):
        return overrides
    if overrides.get("classes"):
        raise ValueError(
            "`include_top=False` leaves out the head, and its classes. Received: also "
            f"classes={overrides['classes']!r}. Leave out one of the two."
        )
    return {"pooling": None, **overrides, "classes": 0}


def check_overrides(model_class: type, overrides: Mapping) -> None:
    """Raises a ValueError if a model has no arguments of these names."""
    known = [name for name in signature(model_class).parameters if name != "self"]
    if unknown := [name for name in overrides if name not in known]:
        near = {near for name in unknown for near in difflib.get_close_matches(name, known)}
        raise ValueError(
            f"A `{model_class.__name__}` has no argument {', '.join(map(repr, unknown))}. "
            f"{'Near it' if near else 'Known'}: {', '.join(sorted(near) or known)}."
        )
    if overrides.get("pooling") == "max":
        raise ValueError(
            "`pooling='max'` of `keras.applications` is not available here. Received: "
            "pooling='max'. Give pooling='avg', or None and pool the features yourself."
        )


def apply_overrides(config: Mapping, overrides: Mapping) -> dict:
    """Arguments of the model: the config, overrides, and arguments that follow from them.

    `pooling="avg"`, as `keras.applications` calls the mean, becomes `"gap"`. For images of
    other channels than the config's, mean and deviation of each channel are extended.
    """
    config = dict(config)
    channels = config.pop("channels")
    merged = {**config, **_moved_channels(config, overrides), **overrides}
    if merged.get("pooling") == "avg":
        merged["pooling"] = "gap"
    if merged.get("pooling") != config.get("pooling"):
        others = {n: value for n, value in _OF_POOLING.items() if n in config}
        merged |= {name: overrides.get(name, value) for name, value in others.items()}
    data_format = arguments.image_data_format(merged.get("data_format"))
    channels_last = data_format == "channels_last"
    asked = asked_image_size(overrides, data_format)
    if overrides.get("input_shape") is not None:
        if "image_size" not in overrides:
            # A size that may vary keeps the grid that it is resized from.
            native = config.get("image_size") or (None, None)
            merged["image_size"] = [
                given or known for given, known in zip(asked, native, strict=False)
            ]
    elif "image_size" in overrides or config.get("input_shape") is None:
        merged["input_shape"] = None
        if channels != 3 and "image_size" in merged:
            size = arguments.pair(merged["image_size"], "image_size")
            merged["input_shape"] = (
                (*size, channels) if channels_last else (channels, *size)
            )
    shape = merged.get("input_shape")
    images = shape[-1 if channels_last else 0] if shape else channels
    if images not in (channels, None):  # None is an error of the model
        for name in ("image_mean", "image_std"):
            values = config.get(name)
            if name not in overrides and isinstance(values, Sequence):
                merged[name] = extend_values(values, images)
    size = merged.get("image_size")
    if size is None or (not isinstance(size, int) and None in size):
        raise ValueError(
            "The checkpoint does not tell the image size. Give `input_shape=(height, "
            "width, channels)`."
        )
    if merged["classes"] is None:
        merged["classes"] = config["classes"]
    new_head = merged["classes"] != config["classes"]
    if new_head:
        merged |= {name: overrides.get(name) for name in OF_THE_HEAD}
    varies = not isinstance(asked, int) and None in (asked or (None,))
    if not varies and "preprocessing" not in overrides:
        merged["preprocessing"] = _without_size(config.get("preprocessing"))
    layer = "representation_size"
    if new_head and layer in config and layer not in overrides:
        merged["representation_size"] = None
    return merged


def _moved_channels(config, overrides):
    """The config's `input_shape` in the overrides' data format, if that is another."""
    shape, given = config.get("input_shape"), overrides.get("data_format")
    own = arguments.image_data_format(config.get("data_format"))
    if not shape or not given or given == own:
        return {}
    is_last = given == "channels_last"
    return {"input_shape": (*shape[1:], shape[0]) if is_last else (shape[-1], *shape[:-1])}


def _without_size(preprocessing):
    """Preprocessing without the image size, for a model of another size."""
    if preprocessing is None:
        return None
    return {name: value for name, value in preprocessing.items() if name != "image_size"}
