"""The trainable parts of a layer and of the layers inside it, and their place in a config.

Keras writes `trainable` of a layer into its config, and nothing of what is inside it: a
frozen layer of layers thaws as it is loaded.
"""

from typing import Any

import keras

from keras_vit.keras_internals.post_build import AfterBuild, check_post_build
from keras_vit.keras_internals.sublayers import direct_layers, own_weights

TRAINABLE_PARTS = "trainable_parts"  # in a config


class Composite(AfterBuild):
    """A base, before `keras.layers.Layer`, of layers that have layers inside.

    What is trained of them is in the config, and is so again in a layer made from it.

    Args:
        trainable_parts: dictionary of `trainable_parts`, or `None` where everything
            inside is trained if the layer is.
    """

    def __init__(self, *args, trainable_parts: dict[str, bool] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self._given_parts = tuple((trainable_parts or {}).items())
        if self._given_parts:
            check_post_build()

    def after_build(self) -> None:
        if not self.trainable:
            for layer in direct_layers(self):
                _set(layer, False)
        set_trainable_parts(self, dict(self._given_parts))

    def get_config(self) -> dict[str, Any]:
        parts = trainable_parts(self)
        if not self.built:  # until then the given parts are not set
            parts = {**dict(self._given_parts), **parts}
        return {**super().get_config(), **({TRAINABLE_PARTS: parts} if parts else {})}


def trainable_parts(layer: keras.layers.Layer) -> dict[str, bool]:
    """The layers and weights whose `trainable` differs from that of the layer around them.

    Returns:
        A dictionary of the path of a layer or weight inside, such as `"block_0"` or
        `"block_1/mlp/dense_1/kernel"`, to whether it is trained. Outer ones come first.
        Weights of LoRA are left out, as no config makes them.
    """
    parts = {}

    def note(path, trainable, outer):
        if trainable != outer:
            parts[path] = trainable

    def walk(inside, prefix):
        for variable in own_weights(inside):
            if not variable.name.startswith("lora_"):
                note(f"{prefix}{variable.name}", variable.trainable, inside.trainable)
        for part in direct_layers(inside):
            note(f"{prefix}{part.name}", part.trainable, inside.trainable)
            walk(part, f"{prefix}{part.name}/")

    walk(layer, "")
    return parts


def part_paths(layer: keras.layers.Layer) -> set[str]:
    """The paths of all layers and weights inside a built layer."""
    return {path for path, _ in _parts(layer, "")}


def set_trainable_parts(layer: keras.layers.Layer, parts: dict[str, bool]) -> None:
    """Trains and freezes what is inside a built layer, as `trainable_parts` told.

    Raises:
        ValueError: if the layer has no such part.
    """
    if not parts:
        return
    known = dict(_parts(layer, ""))
    if unknown := [path for path in parts if path not in known]:
        raise ValueError(
            f"`{TRAINABLE_PARTS}` must name layers and weights inside {layer.name!r}. "
            f"Received: {', '.join(unknown)}"
        )
    for path, trainable in parts.items():
        _set(known[path], trainable)


def set_trainable(layer: keras.layers.Layer, trainable: bool) -> None:
    """Trains or freezes a layer and all inside it, whatever they were."""
    # On TensorFlow Keras 3.15 ignores the value that a layer has already, whatever the
    # layers and the weights inside it have.
    layer.trainable = not trainable
    layer.trainable = trainable


def _set(part, trainable):
    if isinstance(part, keras.layers.Layer):
        set_trainable(part, trainable)
    else:
        part.trainable = trainable


def _parts(layer, prefix):
    """(path, layer or weight) of all that is inside a layer."""
    for variable in own_weights(layer):
        yield f"{prefix}{variable.name}", variable
    for part in direct_layers(layer):
        yield f"{prefix}{part.name}", part
        yield from _parts(part, f"{prefix}{part.name}/")
