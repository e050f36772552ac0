"""Assumption: `keras.src.applications.efficientnet` builds a network from stages of blocks.

Keras offers EfficientNet-B0 to B7, with a preprocessing of their own, and not the function
that builds them. `EfficientNet(width_coefficient, depth_coefficient, …, blocks_args)` is a
functional model, whose layers are named after the number of a stage and the letter of a
block, `block1a_dwconv`; `DEFAULT_BLOCKS_ARGS` are the stages. A `Function` runs through its
graph with other operations in `_run_through_graph`. Variables that a stateless scope leaves
without values are in the global attribute `uninitialized_variables`. Keras walks a graph
by recursion, a frame of Python for each layer.

Seen to hold in Keras 3.14 and 3.15.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras

from keras_vit.keras_internals.assumption import internal, private
from keras_vit.types import Tensor

_FEATURE = "EfficientNet"
_MODULE = "applications.efficientnet"
_LAYERS_OF_BLOCK = 18  # at most
_USUAL_DEPTH = 1000  # Python's recursion limit
_BLOCK = re.compile(r"block(\d+)(.)_(\w+)")


def stages() -> list[dict[str, Any]]:
    """The stages of EfficientNet-B0, with the arguments of their blocks: `kernel_size`,
    `repeats`, `filters_in`, `filters_out`, `expand_ratio`, `strides` and `se_ratio`.
    """
    return internal(_MODULE, "DEFAULT_BLOCKS_ARGS", _FEATURE)


def feature_map(
    images: Tensor,
    *,
    num_blocks: Collection[int],
    width_factor: float,
    drop_path_rate: float,
    copy: Callable[[keras.layers.Layer, str], keras.layers.Layer],
) -> Tensor:
    """Passes images through the convolutions of an EfficientNet.

    Keras' preprocessing, at the beginning, is left out. Deep networks raise Python's
    recursion limit.

    Args:
        images: symbolic tensor (batch, height, width, channels) of known size.
        num_blocks: number of blocks of each stage.
        width_factor: factor of the channels of EfficientNet-B0.
        drop_path_rate: rate of stochastic depth; it grows from 0 at the first block.
        copy: function that makes a new layer of the network from Keras' layer and our
            name, such as `"stage_0_unit_0_dwconv"`.

    Returns:
        The feature map, (batch, rows, columns, channels).
    """
    _allow_depth(_LAYERS_OF_BLOCK * sum(num_blocks))
    rows = zip(stages(), num_blocks, strict=True)
    with _channels_last(), _without_values():
        network = internal(_MODULE, "EfficientNet", _FEATURE)(
            width_coefficient=width_factor,
            depth_coefficient=1.0,
            default_size=None,
            drop_connect_rate=drop_path_rate,
            blocks_args=[{**stage, "repeats": number} for stage, number in rows],
            include_top=False,
            weights=None,
            input_shape=(*images.shape[1:3], 3),
        )

    def operation(layer):
        if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization):
            return lambda inputs: inputs
        return copy(layer, _name(layer.name))

    return private(network, "_run_through_graph", _FEATURE)(images, operation_fn=operation)


def _allow_depth(layers):
    """Raises Python's recursion limit for a graph of so many layers.

    It stays raised, as any later model of these layers walks their graph again.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _USUAL_DEPTH + layers))


def _name(name):
    match = _BLOCK.fullmatch(name)
    if match is None:  # before or after the blocks
        return name
    stage, letter, layer = match.groups()
    return f"stage_{int(stage) - 1}_unit_{ord(letter) - ord('a')}_{layer}"


@contextlib.contextmanager
def _channels_last() -> Iterator[None]:
    usual = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(usual)


@contextlib.contextmanager
def _without_values() -> Iterator[None]:
    """Variables made inside never get values, which would take the memory of a model."""
    get, set_ = (
        internal("backend.common.global_state", f"{verb}_global_attribute", _FEATURE)
        for verb in ("get", "set")
    )
    waiting = "uninitialized_variables"
    before = list(get(waiting, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        set_(waiting, before)
