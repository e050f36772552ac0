"""Low-rank adaptation (LoRA)."""

from collections.abc import Collection

import keras

from keras_vit import arguments
from keras_vit.keras_internals.sublayers import all_layers
from keras_vit.layers import EncoderBlock
from keras_vit.training.freezing import (
    check_no_lora,
    is_backbone_layer,
    mark_frozen,
    train_only,
    unfreeze,
)
from keras_vit.training.layerwise import expanded_layers

LAYERS = ("qkv", "projection", "dense_1", "dense_2")


def enable_lora(
    model: keras.Model,
    rank: int,
    *,
    alpha: float | None = None,
    layers: Collection[str] = LAYERS,
) -> keras.Model:
    """Freezes the encoder of a model and adds trainable low-rank matrices to its blocks.

    Source: LoRA (arXiv 2106.09685), by Keras' `layer.enable_lora`. A kernel W becomes
    W + alpha / rank · A B. W is frozen, A and B are trained, and B starts at zero, so
    that the outputs do not change. The head stays trainable. Compile the model afterwards.

    Keras factorises along a kernel's last axis. For `projection`, `dense_1` and `dense_2`
    that is the paper's factorisation. For `qkv`, (hidden_dim, 3, heads, head_dim), A is
    (hidden_dim, 3, heads, rank) and B (rank, head_dim): the update of each head's query,
    key and value has this rank, all share one subspace of head_dim, and A is 3 · heads
    times as large as the paper's.

    `model.save`, `model.save_weights` and `keras_vit.save_weights` write the merged
    kernels, which load into a model without LoRA. The encoder is still frozen after
    `load_model`: call `enable_lora` again to continue, or `freeze(model, None)` to train
    all weights.

    Args:
        model: a `VisionTransformer`, or a model that contains one, or its layers under
            their names. Layers outside the network are trained, as the head is. The model
            is changed in place.
        rank: int, columns of A and rows of B.
        alpha: float, scale of the update; `None` for `rank`.
        layers: names of the layers in each block that get LoRA: `"qkv"`, `"projection"`
            (attention), `"dense_1"`, `"dense_2"` (MLP).

    Returns:
        The same model.

    Raises:
        ValueError: if `rank` or `layers` is out of range, or the model has no encoder
            blocks, is quantized, or has LoRA weights already.

    Example:

    >>> model = keras_vit.ViTB16(classes=10)
    >>> enable_lora(model, rank=4, layers=("qkv", "projection"))
    >>> model.compile(keras.optimizers.AdamW(1e-3), loss)
    """
    arguments.positive(rank, "rank")
    for name in layers:
        arguments.one_of(name, LAYERS, "layers")
    parts = list(expanded_layers(model))
    blocks = [layer for layer in parts if isinstance(layer, EncoderBlock)]
    if not blocks or not layers:
        raise ValueError(
            "LoRA is for the encoder blocks of a `VisionTransformer`, and at least one of "
            f"their layers. Received: model={model.name!r} with {len(blocks)} "
            f"blocks, layers={tuple(layers)}"
        )
    check_no_lora(model)
    unfreeze(model)
    heads = [layer for layer in parts if not is_backbone_layer(layer.name)]
    train_only(model, [weight for layer in heads for weight in layer.weights])
    for block in blocks:
        for layer in all_layers(block, include_self=False):
            if layer.name in layers:
                layer.enable_lora(rank, lora_alpha=alpha)
    mark_frozen(parts)
    return model
