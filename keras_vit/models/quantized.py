"""Quantized layers in a model's config.

Keras 3.15 saves the quantized weights of layers inside layers, but builds those layers
anew without quantization, so that such a file does not load.
"""

import keras

from keras_vit.keras_internals.sublayers import all_layers
from keras_vit.weight_paths import inner_paths

QUANTIZATION = "quantization"  # in a config


def quantization_of(model: keras.Model) -> list[dict]:
    """The quantized layers of a model, by mode.

    Returns:
        A list of dictionaries of `"mode"` (such as `"int8"`), `"config"` (Keras'
        `QuantizationConfig`, serialized, or `None`) and `"layers"`, their paths; empty
        where no layer is quantized.
    """
    ways, paths = [], inner_paths(model)
    for layer in _layers(model):
        if mode := getattr(layer, "quantization_mode", None):
            way = {"mode": mode, "config": _config(layer)}
            found = next((one for one in ways if way.items() <= one.items()), None)
            if found is None:
                ways.append(found := {**way, "layers": []})
            found["layers"].append(paths[id(layer)])
    return ways


def quantize_layers(model: keras.Model, ways: list[dict]) -> None:
    """Quantizes layers of a built model, as `quantization_of` listed those of another.

    Raises:
        ValueError: if the model has no such layer, or the layer no such mode.
    """
    paths = inner_paths(model)
    layers = {paths[id(layer)]: layer for layer in _layers(model)}
    for way in ways:
        if unknown := [path for path in way["layers"] if path not in layers]:
            raise ValueError(
                f"The config says that {', '.join(unknown)} are quantized in "
                f"{way['mode']!r}. The model {model.name!r} has no such layers."
            )
        config = keras.saving.deserialize_keras_object(way["config"])
        for path in way["layers"]:
            layers[path].quantize(way["mode"], config=config)


def _layers(model):
    return all_layers(model, include_self=False)


def _config(layer):
    return _without_ids(keras.saving.serialize_keras_object(layer.quantization_config))


def _without_ids(config):
    """A config without the ids of shared objects, which differ between equal configs."""
    if not isinstance(config, dict):
        return config
    return {k: _without_ids(v) for k, v in config.items() if k != "shared_object_id"}
