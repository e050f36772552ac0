"""Paths of weights and layers: whole, and within the model that they belong to.

A `VisionTransformer` or `BiTResNet` puts its name before the paths of what it is made of,
`"vitb16/block_0/mlp/dense_1/kernel"`, so that two of them in one model have no path in
common: Keras on torch trains what it lists by path. Whatever compares models, or outlives
one, has the path without it: models are numbered in a process.
"""

import re
from collections.abc import Collection, Iterator, Mapping

import keras

# The layers of our models, whose names are public.
_PUBLIC = re.compile(
    r"(?:.*?/)??((?:stem_\w+|root|stage_\d+_unit_\d+|patch_embedding|class_token|registers"
    r"|position_embedding|pre_norm|block_\d+|encoder_norm|norm|pooling|fc_norm|pre_logits"
    r"|head)/.+)"
)
_PREFIX = "_keras_vit_prefix"  # attribute of the layers of our models


def automatic_name(name: str) -> str:
    """A name that no layer of this process was given so far, as Keras numbers them."""
    from keras.src.utils import naming

    return naming.auto_name(name)


def mark(model: keras.Model) -> None:
    """Notes in a model's layers what the paths inside the model begin with."""
    first = next(layer for layer in model.layers if layer.weights)
    before = first.path.removesuffix(first.name)
    for layer in model.layers:  # of which Keras gives some no path, as dropout's
        if not isinstance(layer, keras.layers.InputLayer):
            setattr(layer, _PREFIX, before)


def prefix(layer: keras.layers.Layer) -> str:
    """The beginning of the paths in a layer of a model of ours; `""` for other layers."""
    return getattr(layer, _PREFIX, "")


def inner_paths(model: keras.Model) -> dict[int, str]:
    """The paths of all layers and variables of a model, by `id`, each within its model.

    What is in no model of ours has its whole path.
    """
    paths = {id(v): v.path for v in model.variables}
    for layer in model._flatten_layers():
        before = prefix(layer)
        paths.setdefault(id(layer), layer.path)
        if before:
            parts = (*layer.variables, *layer._flatten_layers())
            paths |= {id(part): (part.path or "").removeprefix(before) for part in parts}
    return paths


def named_weights(model: keras.Model) -> list[tuple[str, keras.Variable]]:
    """(path within its model, weight) of all weights of a model."""
    paths = inner_paths(model)
    return [(paths[id(weight)], weight) for weight in model.weights]


def prefixes(model: keras.Model) -> list[str]:
    """The names of our models of which a model has layers."""
    found = dict.fromkeys(map(prefix, model._flatten_layers()))
    return [name.rstrip("/") for name in found if name]


def slot_paths(model: keras.Model) -> list[str]:
    """The paths of the variables of a model's optimizer, without the names of models."""
    names = inner_paths(model)
    slots = [variable.path for variable in model.optimizer.variables]
    return short_slots(slots, {v.path: names[id(v)] for v in model.weights})


def short_slots(slots: Collection[str], short: Mapping[str, str]) -> list[str]:
    """Paths of variables of an optimizer without the names of models.

    Keras names what an optimizer keeps of a weight by the weight's whole path:
    `"adam/vitb16_head_kernel_momentum"`.

    Args:
        slots: paths of such variables.
        short: paths of weights within their model by whole paths.
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


def public(path: str) -> str:
    """A path from the first layer on whose name is one of our models', or the whole."""
    match = _PUBLIC.fullmatch(path)
    return match[1] if match else path


def tails(path: str) -> Iterator[str]:
    """A path, and what is left of it without its first names; a layer's and a weight's."""
    yield path
    while path.count("/") > 1:
        path = path.partition("/")[2]
        yield path
