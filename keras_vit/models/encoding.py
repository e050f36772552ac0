"""Parts of a Vision Transformer, for computations that change what passes between them.

The layers are called on tensors: nodes of another functional model would be added to the
layers that it shares with the transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_vit.layers import kernels
from keras_vit.types import Tensor
from keras_vit.weight_paths import HEADS

if TYPE_CHECKING:
    from keras_vit.models.vision_transformer import VisionTransformer

_POOLINGS = ("pooling", "distillation_pooling")


def embedding(model: VisionTransformer) -> Callable[[Tensor], dict[str, Tensor]]:
    """The stage before the blocks: patches, tokens before them, positions.

    Returns:
        A function of a batch of images, as the model takes them, that gives the arguments
        of its first block: `"tokens"` (batch, tokens, hidden_dim), where the model has a
        `rope` also `"positions"`, see `layers.RotaryEmbedding`, and where all blocks add
        the same positions `"layer_positions"`, see `layers.LayerPositions`.
    """
    stage = keras.Model(model.input, dict(model.first_block_inputs))
    return lambda images: stage(images)  # no attribute for Keras to track


def patch_embedding(model: VisionTransformer) -> Callable[[Tensor], Tensor]:
    """The stage before positions and class token: the embeddings of the patches alone.

    Returns:
        A function of a batch of images, as the model takes them, that gives the embeddings
        (batch, rows, columns, hidden_dim), for `first_block_inputs`.
    """
    names = {layer.name for layer in model.layers}
    name = "patch_norm" if "patch_norm" in names else "patch_embedding"
    stage = keras.Model(model.input, model.get_layer(name).output)
    return lambda images: stage(images)  # no attribute for Keras to track


def first_block_inputs(
    model: VisionTransformer, patches: Tensor, **position_options: Any
) -> dict[str, Tensor]:
    """Adds positions and the tokens before the patches to embeddings of patches.

    Args:
        model: the model.
        patches: (batch, rows, columns, hidden_dim).
        **position_options: call arguments of the layer `position_embedding`.

    Returns:
        The arguments of the first block, see `embedding`.
    """
    layers = {layer.name: layer for layer in model.layers}
    before = ("class_token", "distillation_token", "registers")
    prefix = [layers[name](patches) for name in before if name in layers]
    if len(prefix) > 1:
        prefix = [layers["prefix"](prefix)]
    tokens = layers["position_embedding"](patches, *prefix, **position_options)
    for name in ("embedding_dropout", "pre_norm"):
        if name in layers:
            tokens = layers[name](tokens)
    inputs = {"tokens": tokens}
    if "rotary_embedding" in layers:
        inputs["positions"] = layers["rotary_embedding"](patches)
    if "layer_positions" in layers:
        inputs["layer_positions"] = layers["layer_positions"](patches)
    return inputs


def encode(
    model: VisionTransformer,
    tokens: Tensor,
    positions: Tensor | None = None,
    layer_positions: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """The tokens after every block and after `encoder_norm`, if the model has it.

    Args:
        model: a model that merges no tokens.
        tokens: (batch, tokens, hidden_dim).
        positions: what rotary positions add to queries and keys, see `layers.EncoderBlock`.
        layer_positions: what each block adds to its inputs, see there.
        sizes: int (batch, tokens), how often each token counts in attention; `None` where
            each counts once.

    Returns:
        (batch, tokens, hidden_dim).
    """
    for block in blocks_of(model):
        tokens, _ = apply_block(block, tokens, sizes, positions, layer_positions)
    return final_norm(model, tokens)


def blocks_of(model: VisionTransformer) -> Sequence[keras.layers.Layer]:
    """The encoder blocks, in order."""
    layers = {layer.name: layer for layer in model.layers}
    return [layers[f"block_{i}"] for i in range(model.fields.num_layers)]


def apply_block(
    block: keras.layers.Layer,
    tokens: Tensor,
    sizes: Tensor | None = None,
    positions: Tensor | None = None,
    layer_positions: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The tokens of a block and their sizes, `None` as long as none is merged."""
    options = {"positions": positions, "layer_positions": layer_positions}
    outputs = block(tokens, sizes=sizes, **options)
    return outputs if block.merged_tokens else (outputs, sizes)


def final_norm(model: VisionTransformer, tokens: Tensor) -> Tensor:
    """The tokens of the last block as the pooling reads them: normed, if the model does."""
    layers = {layer.name: layer for layer in model.layers}
    return layers["encoder_norm"](tokens) if "encoder_norm" in layers else tokens


def head_inputs(
    model: VisionTransformer, tokens: Tensor, sizes: Tensor | None = None
) -> list[tuple[keras.layers.Layer, Tensor]]:
    """The heads of a model, each with what it reads.

    Args:
        model: a model with a head.
        tokens: (batch, tokens, hidden_dim), what the pooling reads.
        sizes: int (batch, tokens), how many patches each stands for, or `None`.

    Returns:
        (head, features (batch, width)); of a model with `distilled` two of them.
    """
    layers = {layer.name: layer for layer in model.layers}
    found = []
    for pooling, head in zip(_POOLINGS, HEADS, strict=True):
        if head in layers:
            features = layers[pooling](tokens, sizes=sizes)
            for name in ("fc_norm", "pre_logits"):
                features = layers[name](features) if name in layers else features
            found.append((layers[head], features))
    return found


def head_logits(head: keras.layers.Layer, features: Tensor) -> Tensor:
    """The output of a head before its activation, (batch, classes)."""
    features = ops.cast(features, head.compute_dtype)
    return kernels.dense(features, head.kernel, head.bias)


def logits_of_heads(model: VisionTransformer) -> Callable[..., list[Tensor]]:
    """The model up to its heads, without their activation.

    Returns:
        A function of a batch of images, as the model takes them, and of `training`, that
        gives the logits of each head, float32 (batch, classes): of a model with `distilled`
        two of them.
    """
    layers = {layer.name: layer for layer in model.layers}
    heads = [_Logits(layers[name]) for name in HEADS if name in layers]
    stage = keras.Model(model.input, [each.head.input for each in heads])

    def logits(images, training=None):
        features = keras.tree.flatten(stage(images, training=training))
        return [head(each) for head, each in zip(heads, features, strict=True)]

    return logits  # no attribute for Keras to track


class _Logits(keras.layers.Layer):
    """A head without its activation. A layer, in whose call Keras does not round weights
    to the half precision of the model around it.
    """

    def __init__(self, head: keras.layers.Layer):
        super().__init__(dtype=head.dtype_policy, autocast=False)
        self.head = head

    def call(self, features):
        return head_logits(self.head, features)


def head_outputs(
    model: VisionTransformer, tokens: Tensor, sizes: Tensor | None = None
) -> Tensor:
    """The outputs of a model with a head, float32 (batch, classes); see `head_inputs`."""
    outputs = [head(features) for head, features in head_inputs(model, tokens, sizes)]
    if len(outputs) == 1:
        return outputs[0]
    average = model.get_layer("head_average")(outputs)
    return model.get_layer("head_activation")(average)
