"""Paths of weights and layers, with and without the name of the model they belong to.

A `VisionTransformer` or `BiTResNet` puts its name before the paths of its layers,
`"vitb16/block_0/mlp/dense_1/kernel"`, so that two of them in one model share no path:
Keras on torch finds the weights to train by path. Code that compares models or writes files
uses the path without the name, as Keras numbers the models of a process.
"""

import re
from collections.abc import Collection, Iterator, Mapping

import keras

from keras_vit.keras_internals.sublayers import all_layers

# The layers of our models, whose names are public.
_PUBLIC = re.compile(
    r"(?:.*?/)??((?:decoder/)?(?:stem_\w+|root|stage_\d+_unit_\d+(?:_\w+)?|top_\w+|patch_embedding"
    r"|patch_norm|class_token|distillation_token|registers|position_embedding|layer_positions"
    r"|pre_norm|block_\d+|encoder_norm|norm|pooling|fc_norm|pre_logits|head|distillation_head)/.+)"
)
HEADS = ("head", "distillation_head")  # layers of our models
_PREFIX = "_keras_vit_prefix"  # attribute of the layers of our models
_PART = "_keras_vit_part"  # attribute of one of our models inside another


def automatic_name(name: str) -> str:
    """A name that no layer of this process has, numbered as Keras numbers them."""
    return type(name, (keras.Operation,), {})().name


def mark_layers(model: keras.Model) -> None:
    """Stores in each layer of a model the beginning of the paths inside the model."""
    first = next(layer for layer in model.layers if layer.weights)
    before = first.path.removesuffix(first.name)
    for layer in model.layers:  # dropout and other layers without weights have no path
        if not isinstance(layer, keras.layers.InputLayer):
            mark(layer, before)


def mark(layer: keras.layers.Layer, before: str) -> None:
    """Stores in a layer the beginning of its path, that of the model around it."""
    setattr(layer, _PREFIX, before)


def mark_part(model: keras.Model, name: str) -> None:
    """Tells apart the paths of two of our models inside another.

    Args:
        model: one of the two.
        name: the first name of its paths, in the model around it.
    """
    setattr(model, _PART, name)


def model_prefix(layer: keras.layers.Layer) -> str:
    """The beginning of the paths of the layer's model; `""` in other models than ours."""
    return getattr(layer, _PREFIX, "")


def inner_paths(model: keras.Model) -> dict[int, str]:
    """`id` → path, without its model's name, of all layers and variables of a model.

    Layers and variables outside of our models keep their full path.
    """
    paths = {id(v): v.path for v in model.variables}
    for layer in all_layers(model):
        before = model_prefix(layer)
        paths.setdefault(id(layer), layer.path)
        if before:
            parts = (*layer.variables, *all_layers(layer))
            paths |= {id(part): (part.path or "").removeprefix(before) for part in parts}
    for inside in all_layers(model, include_self=False):
        if name := getattr(inside, _PART, ""):
            parts = (*inside.variables, *all_layers(inside, include_self=False))
            paths |= {id(part): f"{name}/{paths[id(part)]}" for part in parts}
    return paths


def named_weights(model: keras.Model) -> list[tuple[str, keras.Variable]]:
    """(path without the model's name, weight) for each weight of a model."""
    paths = inner_paths(model)
    return [(paths[id(weight)], weight) for weight in model.weights]


def model_names(model: keras.Model) -> list[str]:
    """The names of our models whose layers are in a model."""
    found = dict.fromkeys(map(model_prefix, all_layers(model)))
    return [name.rstrip("/") for name in found if name]


def slot_paths(model: keras.Model) -> list[str]:
    """The paths of the optimizer's variables, without the names of models."""
    names = inner_paths(model)
    slots = [variable.path for variable in model.optimizer.variables]
    return shorten_slot_paths(slots, {v.path: names[id(v)] for v in model.weights})


def shorten_slot_paths(slots: Collection[str], short: Mapping[str, str]) -> list[str]:
    """Paths of an optimizer's variables without the names of models.

    Keras names the variables that an optimizer keeps for a weight by the weight's full
    path: `"adam/vitb16_head_kernel_momentum"`.

    Args:
        slots: full paths of the optimizer's variables.
        short: full path of a weight → its path without the model's name.
    """
    flat = {p.replace("/", "_"): within.replace("/", "_") for p, within in short.items()}
    return [_without_model(path, flat) for path in slots]


def _without_model(path, flat):
    folder, slash, name = path.rpartition("/")
    ends = [match.start() for match in re.finditer("_", name)]
    for end in (len(name), *reversed(ends)):
        if name[:end] in flat:
            return f"{folder}{slash}{flat[name[:end]]}{name[end:]}"
    return path


def public_path(path: str) -> str:
    """The part of a path that begins with a public layer of our models, or all of it."""
    match = _PUBLIC.fullmatch(path)
    return match[1] if match else path


def path_suffixes(path: str) -> Iterator[str]:
    """A path, then the path without its first name, and so on, down to `layer/weight`."""
    yield path
    while path.count("/") > 1:
        path = path.partition("/")[2]
        yield path
