"""Features of a `VisionTransformer` by kind of token and by block, from one pass."""

import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_vit.models.encoding import (
    apply_block,
    blocks_of,
    final_norm,
    first_block_inputs,
)
from keras_vit.models.fields import num_prefix
from keras_vit.types import Tensor


class Stages:
    """Symbolic outputs of the stages of a model, of which a pass computes some.

    Args:
        patches: (batch, rows, columns, hidden_dim).
        block_outputs: (batch, tokens, hidden_dim) of each block but the last.
        last_block_inputs: arguments of the last block, with every token.
    """

    def __init__(
        self,
        patches: Tensor,
        block_outputs: Sequence[Tensor],
        last_block_inputs: dict[str, Tensor],
    ) -> None:
        self.patches = patches
        self.block_outputs = tuple(block_outputs)
        self.last_block_inputs = last_block_inputs

    def compute(
        self, model: keras.Model, images: Tensor, blocks: Sequence[int] = ()
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """Computes the last block and `encoder_norm`, if any, for every token.

        Args:
            model: the model.
            images: a batch of images as the model takes them.
            blocks: numbers of blocks whose outputs are wanted, too.

        Returns:
            A dictionary of the layer's name → (batch, tokens, hidden_dim), in order; the
            tokens' sizes, `None` if none is merged; the patches.
        """
        # Layers are called on tensors: a functional model of them would add nodes to
        # the layers that this model shares with it.
        last = len(self.block_outputs)
        wanted = {f"block_{i}": self.block_outputs[i] for i in blocks if i != last}
        stages = {"patches": self.patches, **self.last_block_inputs, **wanted}
        found = keras.Model(model.input, stages)(images)
        block = model.get_layer(f"block_{last}")
        inputs = {name: found[name] for name in self.last_block_inputs}
        tokens, sizes = apply_block(block, **inputs)
        outputs = {name: found[name] for name in wanted} | {block.name: tokens}
        if any(layer.name == "encoder_norm" for layer in model.layers):
            outputs["encoder_norm"] = final_norm(model, tokens)
        return outputs, sizes, found["patches"]

    def features(
        self,
        model: keras.Model,
        images: Tensor,
        layers: int | Sequence[int] | str | None,
        as_maps: bool,
    ) -> dict[str, Tensor]:
        """Features as of `VisionTransformer.features`."""
        blocks = block_numbers(layers, len(self.block_outputs) + 1)
        if as_maps:
            _check_maps(model)
        outputs, sizes, patches = self.compute(model, images, blocks)
        *_, tokens = outputs.values()
        prefix = num_prefix(model.fields)
        features = by_kind(model, tokens, sizes)
        if sizes is not None:
            features["patch_sizes"] = sizes[:, prefix:]
        features |= {f"block_{i}": outputs[f"block_{i}"] for i in blocks}
        if as_maps:
            starts = {f"block_{i}": prefix for i in blocks} | {"patch_tokens": 0}
            for name, start in starts.items():
                features[name] = _as_map(features[name][:, start:], patches)
        return features


def pooled_features(model: keras.Model, images: Tensor) -> Tensor:
    """The pooled features of images of another size than the model's.

    Learned positions are resized inside the graph, and rotary ones follow the grid.

    Args:
        model: a `VisionTransformer` with a pooling, without a stem, relative positions
            and merged tokens.
        images: a batch of images as the model takes them, but of any size that the
            patches divide.

    Returns:
        (batch, dim), as `features(images)["pooled"]` has them.
    """
    layers = {layer.name: layer for layer in model.layers}
    for name in ("preprocessing", "patch_embedding", "patch_norm"):
        if name in layers:
            images = layers[name](images)
    inputs = first_block_inputs(model, images)  # of patches (batch, rows, columns, d)
    *blocks, last = blocks_of(model)
    for block in blocks:
        inputs["tokens"], _ = apply_block(block, **inputs)
    tokens = inputs["tokens"]
    if model.fields.pooling == "token" and not model.fields.full_last_block:
        read = tokens[:, : 1 + model.fields.distilled]  # see `full_last_block`
        tokens = last(**{**inputs, "tokens": read, "context": tokens})
    else:
        tokens, _ = apply_block(last, **inputs)
    return by_kind(model, final_norm(model, tokens))["pooled"]


def by_kind(
    model: keras.Model, tokens: Tensor, sizes: Tensor | None = None
) -> dict[str, Tensor]:
    """Tokens by their kind, and what the model's pooling makes of them, each if it has it.

    Args:
        model: a `VisionTransformer`.
        tokens: (batch, tokens, hidden_dim), as the pooling reads them.
        sizes: int (batch, tokens), how often each token counts; `None` for once.
    """
    fields, prefix = model.fields, num_prefix(model.fields)
    features = {}
    if fields.class_token:
        features["class_token"] = tokens[:, 0]
    if fields.distilled:
        features["distillation_token"] = tokens[:, 1]
    if fields.num_registers:
        features["registers"] = tokens[:, prefix - fields.num_registers : prefix]
    features["patch_tokens"] = tokens[:, prefix:]
    if fields.distilled:
        features["pooled"] = keras.ops.mean(tokens[:, :2], axis=1)
    elif fields.pooling:
        pooled = model.get_layer("pooling")(tokens, sizes=sizes)
        norm = model.get_layer("fc_norm") if fields.fc_norm else None
        features["pooled"] = pooled if norm is None else norm(pooled)
    return features


def _as_map(tokens, patches):
    """Patch tokens (batch, rows * columns, d) in the rows and columns of the patches."""
    rows, columns = keras.ops.shape(patches)[1:3]
    return keras.ops.reshape(tokens, (-1, rows, columns, tokens.shape[-1]))


def _check_maps(model):
    if any(getattr(layer, "merged_tokens", 0) for layer in model.layers):
        raise ValueError(
            "Merged tokens stand for several places of the image, so they make no map. "
            "Received: as_maps=True, a model with "
            f"merged_tokens={model.arguments['merged_tokens']}. Use as_maps=False, or "
            "keras_vit.from_pretrained(model, merged_tokens=0)."
        )


def block_numbers(layers: Any, num_layers: int, name: str = "layers") -> list[int]:
    """Numbers of blocks from 0, in order and each once.

    Args:
        layers: numbers, negative ones from the end; one number; `"all"`; `None` for none.
        num_layers: number of blocks.
        name: name of the argument, for messages.

    Raises:
        ValueError: if there is no such block.
    """
    if layers is None:
        return []
    if isinstance(layers, str) and layers == "all":
        return list(range(num_layers))
    several = [layers] if np.ndim(layers) == 0 else layers
    try:
        numbers = [operator.index(number) for number in several]
    except TypeError:
        numbers = [num_layers]
    is_bool = any(isinstance(number, bool) for number in several)
    if is_bool or not all(-num_layers <= number < num_layers for number in numbers):
        raise ValueError(
            f"`{name}` must be numbers of blocks from {-num_layers} to {num_layers - 1}, "
            f"or 'all'. Received: {name}={layers!r}"
        )
    return sorted({number % num_layers for number in numbers})
