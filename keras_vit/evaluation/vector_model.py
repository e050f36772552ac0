"""Models that map images to one vector each, made of a model and the name of a layer."""

import contextlib
import weakref
from contextlib import AbstractContextManager
from typing import Any

import keras

from keras_vit.models.images import ImageModel

POOLED = "pooled"
# The last models made of each model, by layer: what `predict` has compiled serves again.
_made: "weakref.WeakKeyDictionary[keras.Model, dict]" = weakref.WeakKeyDictionary()


def vector_model(model: keras.Model, layer: str) -> keras.Model:
    """A model that shares its weights with `model` and returns (batch, dim).

    It is the same in each call, as long as the model has the same variables.

    Args:
        model: a built model of images.
        layer: `"pooled"` or the name of a layer, see `extract_features`.

    Raises:
        ValueError: if the model takes more than images, or has no such layer, or the layer
            gives no vector.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a keras.Model. Received: a {type(model).__name__}"
        )
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return _whole(model, layer)
    if len(inputs) != 1:
        raise ValueError(
            "`model` must take images alone. Received: a model of the inputs "
            f"{', '.join(tensor.name for tensor in inputs)}"
        )
    output = _output(model, layer)
    if len(getattr(output, "shape", ())) != 2:
        raise not_vectors(output)
    # Quantizing a model, for instance, changes its variables.
    state = (model.run_eagerly, model.jit_compile, *map(id, model.variables))
    made = _made.setdefault(model, {})
    if layer not in made or made[layer][0] != state:
        with scope(model):
            extractor = keras.Model(model.input, output)
        extractor.run_eagerly = model.run_eagerly
        extractor.jit_compile = model.jit_compile
        made[layer] = state, extractor
    return made[layer][1]


def scope(model: keras.Model) -> AbstractContextManager[Any]:
    """The context of the `tf.distribute` strategy that a model was made under."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    return model.distribute_strategy.scope()


def _whole(model, layer):
    """A model that is not functional, whose layers cannot be looked into."""
    if layer != POOLED:
        raise ValueError(
            "Only functional models give the output of a layer. Received: "
            f"layer={layer!r}, a {type(model).__name__} that is a subclass of keras.Model "
            "or not built. Leave `layer` out to take its output."
        )
    if model.steps_per_execution != 1:
        raise ValueError(
            "Features are written batch by batch. Received: a model compiled with "
            f"steps_per_execution={model.steps_per_execution}. Compile it with 1."
        )
    return model


def _output(model, layer):
    names = [one.name for one in model.layers]
    if layer in names:
        return model.get_layer(layer).output
    if layer != POOLED:
        raise ValueError(
            f"`layer` must be 'pooled' or one of {', '.join(map(repr, names))}. "
            f"Received: layer={layer!r}"
        )
    return model.pooled_output if isinstance(model, ImageModel) else model.output


def not_vectors(output: Any) -> ValueError:
    """The error of an output that is not (batch, dim)."""
    found = f"a {type(output).__name__} of tensors"
    if hasattr(output, "shape"):
        found = f"an output of the shape {tuple(output.shape)}"
    return ValueError(
        f"The features of an image must be one vector, (batch, dim). Received: {found}. "
        "Choose another `layer`, or give a model that ends in a vector: "
        "keras.Model(model.input, vector)."
    )
