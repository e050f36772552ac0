"""Parts of a Vision Transformer, for computations that change what passes between them.

The layers are called on tensors: nodes of another functional model would be added to the
layers that it shares with the transformer.
"""

from collections.abc import Callable

import keras

from keras_vit.models.vision_transformer import VisionTransformer
from keras_vit.types import Tensor


def embedding(model: VisionTransformer) -> Callable[[Tensor], dict[str, Tensor]]:
    """The stage before the blocks: patches, tokens before them, positions.

    Returns:
        A function of a batch of images, as the model takes them, that gives the arguments
        of its first block: `"tokens"` (batch, tokens, hidden_dim), and where the model has
        a `rope` also `"positions"`, see `layers.RotaryEmbedding`.
    """
    stage = keras.Model(model.input, dict(model.first_block_inputs))
    return lambda images: stage(images)  # no attribute for Keras to track


def encode(
    model: VisionTransformer,
    tokens: Tensor,
    positions: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """The tokens after every block and after `encoder_norm`, if the model has it.

    Args:
        model: a model that merges no tokens.
        tokens: (batch, tokens, hidden_dim).
        positions: what rotary positions add to queries and keys, see `layers.EncoderBlock`.
        sizes: int (batch, tokens), how often each token counts in attention; `None` where
            each counts once.

    Returns:
        (batch, tokens, hidden_dim).
    """
    options = {"positions": positions, "sizes": sizes}
    options = {name: tensor for name, tensor in options.items() if tensor is not None}
    layers = {layer.name: layer for layer in model.layers}
    for i in range(model.fields.num_layers):
        tokens = layers[f"block_{i}"](tokens, **options)
    return layers["encoder_norm"](tokens) if "encoder_norm" in layers else tokens
