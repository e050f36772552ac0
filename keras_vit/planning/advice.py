"""Advice for a training that does not fit into memory."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import keras

from keras_vit.distribution import data_parallel, strategies
from keras_vit.distribution.layouts import ShardedWeights
from keras_vit.keras_internals.variable_values import raw_value
from keras_vit.planning.chips import GIB
from keras_vit.planning.targets import Target

_MODEL_AXES = (8, 4, 2)


def state_by_strategy(
    model: keras.Model, target: Target, num_heads: int | None
) -> dict[str, int]:
    """Bytes of weights and optimizer on a device, under each possible strategy.

    Args:
        model: compiled, its variables without values, see `keras_vit.planning.step`.
        target: devices of the training.
        num_heads: number of heads, which a model axis must divide; `None` for a model
            without attention.
    """
    number = len(target.devices)
    if number == 1:
        return {}
    # An optimizer's slots are split as their weight is.
    trained = sum(prod(v.shape) for v in model.trainable_variables)
    kept = sum(prod(v.shape) for v in model.optimizer.variables) / trained
    options = {"devices": target.devices}
    found = {"data_parallel": data_parallel(target.devices)}
    candidates = [("fully_sharded", ())]
    for axis in _MODEL_AXES:
        if number % axis == 0 and (num_heads or axis) % axis == 0:
            candidates += [("tensor_parallel", (axis,)), ("fully_sharded", (axis,))]
    for name, axes in candidates:
        title = f"{name}:{axes[0]}" if axes else name
        found[title] = getattr(strategies, name)(*axes, **options)
    states = {}
    for title, distribution in found.items():
        try:
            states[title] = round(_state(model, distribution, kept))
        except ValueError:  # `lower` raises it under this strategy
            continue
    return states


def _state(model, distribution, kept):
    # Of a teacher nothing is trained, whatever its weights' `trainable` says.
    total, trained = 0, {id(weight) for weight in model.trainable_variables}
    for weight in model.variables:
        parts = 1
        if isinstance(distribution, ShardedWeights):
            axes = distribution.axes(weight.path, tuple(weight.shape))
            parts = prod(distribution.axis_sizes[axis] for axis in axes if axis)
        size = prod(weight.shape) * raw_value(weight).dtype.itemsize / parts
        total += size * (1 + kept if id(weight) in trained else 1)
    return total


def advice(facts: Mapping[str, Any], model: keras.Model) -> Iterator[str]:
    """Yields a line for each change that helps, with an estimate of its effect.

    Args:
        facts: fields of a `Plan`.
        model: as in `state_by_strategy`.
    """
    if facts["fits"] is not False:
        return
    memory, states = facts["memory"], facts["states"]
    smaller = {name: size for name, size in states.items() if size < 0.9 * memory.state}
    if smaller:
        sizes = (
            f"{name} {_gib(size)}" for name, size in sorted(smaller.items(), key=_size)
        )
        yield (
            f"split more: weights and optimizer, {_gib(memory.state)} here, would take "
            f"{', '.join(sizes)}"
        )
    if memory.temporaries is None:
        return
    # Gradients are as large as the weights; assume that all else grows with the images.
    replicas = facts["mesh"].get("batch", 1)
    images = facts["images"] // replicas
    fixed = memory.state + memory.weights
    each = max(1, memory.temporaries - memory.weights + memory.batch) / images
    room = memory.capacity - fixed
    config = facts["config"]
    if room <= 0:
        yield f"there is no room for a single image beside {_gib(fixed)} of weights"
        return
    if not facts["recipe"].rematerialize and "num_layers" in config:
        needs = " takes"
        if facts["objective"] is None:  # others compute fewer tokens, or several views
            needed = _rematerialized(model, config, images, each) + fixed
            fits = "fits" if needed <= memory.capacity else "does not fit either"
            needs = f" needs about {_gib(needed)}, which {fits}, and"
        yield f"compute activations again: --rematerialize{needs} a third more FLOPs"
    yield from _fewer_images(facts, images, replicas, room, each)


def _fewer_images(facts, images, replicas, room, each):
    recipe, most = facts["recipe"], int(room / each)
    accumulating = room - facts["memory"].weights  # the sums of gradients
    sizes = (n * replicas for n in range(int(max(0, accumulating) / each), 0, -1))
    micro = next((n for n in sizes if recipe.batch_size % n == 0), None)
    if micro and micro < facts["images"]:
        yield (
            f"fewer images at a time: --micro-batch-size {micro}, about "
            f"{each / 2**20:,.0f} MiB an image; the same updates"
        )
    if most:
        yield (
            f"more devices, or a smaller batch: about {most} of the {images} images of a "
            f"device have room, so {len(facts['target'].devices) * images / most:,.0f} "
            f"devices for a batch of {facts['images']}, or a batch of {most * replicas}"
        )


def _rematerialized(model, config, images, each):
    """Bytes of the inputs of all blocks and all activations of one block."""
    tokens, width = model.get_layer("position_embedding").output.shape[1:]
    number = 2 if "16" in model.dtype_policy.compute_dtype else 4
    layers = config["num_layers"]
    return images * (layers * tokens * width * number + each / layers)


def _size(item):
    return item[1]


def _gib(size):
    return f"{size / GIB:,.1f} GiB"
