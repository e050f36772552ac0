"""Low-rank adaptation."""

from collections.abc import Collection

import keras

from keras_vit import arguments
from keras_vit.layers import EncoderBlock
from keras_vit.training.freezing import (
    check_plain,
    is_ours,
    mark_frozen,
    train_only,
    unfreeze,
)
from keras_vit.training.layerwise import top_layers

LAYERS = ("qkv", "projection", "dense_1", "dense_2")


def enable_lora(
    model: keras.Model,
    rank: int,
    *,
    alpha: float | None = None,
    layers: Collection[str] = LAYERS,
) -> keras.Model:
    """Freezes a model but for its head, and adds low-rank matrices to its blocks.

    Source: LoRA (arXiv 2106.09685), through Keras' own `layer.enable_lora`. A kernel W
    becomes W + alpha / rank · A B with W frozen, A and B trained, B zero at the start:
    the model computes what it did. Compile it afterwards.

    Keras splits off the last axis of a kernel. For `projection`, `dense_1` and `dense_2`
    that is the paper's factorisation. For `qkv`, (hidden_dim, 3, heads, head_dim), A is
    (hidden_dim, 3, heads, rank) and B (rank, head_dim): the change of each head's query,
    key and value has the rank, in one subspace of head_dim for all of them, and A is
    3 · heads times as large as the paper's.

    Files have the sums: those of `model.save`, `model.save_weights` and
    `keras_vit.save_weights` are of a model without LoRA, and load into one. What was
    frozen is frozen after `load_model` too: call `enable_lora` again to go on with it, or
    `freeze(model, None)` to train all of it.

    Args:
        model: a `VisionTransformer`, or a model that has the layers of one, also as a
            layer, under their names; layers of its own are trained, as the head is. It
            is changed in place.
        rank: int, columns of A and rows of B.
        alpha: float, the scale of the change; `None` for `rank`.
        layers: which layers of each block get them, names among `"qkv"`, `"projection"`
            (attention), `"dense_1"` and `"dense_2"` (MLP).

    Returns:
        The same model.

    Raises:
        ValueError: if `rank` or `layers` is out of range, the model has no encoder
            blocks, is quantized, or has LoRA weights already.

    Example:

    >>> model = keras_vit.ViTB16(classes=10)
    >>> enable_lora(model, rank=4, layers=("qkv", "projection"))
    >>> model.compile(keras.optimizers.AdamW(1e-3), loss)
    """
    arguments.positive(rank, "rank")
    for name in layers:
        arguments.one_of(name, LAYERS, "layers")
    parts = list(top_layers(model))
    blocks = [layer for layer in parts if isinstance(layer, EncoderBlock)]
    if not blocks or not layers:
        raise ValueError(
            "LoRA is for the encoder blocks of a `VisionTransformer`, and for one of "
            f"their layers at least. Received: model={model.name!r} with {len(blocks)} "
            f"blocks, layers={tuple(layers)}"
        )
    check_plain(model)
    unfreeze(model)
    heads = [layer for layer in parts if not is_ours(layer.name)]
    train_only(model, [weight for layer in heads for weight in layer.weights])
    for block in blocks:
        for layer in block._flatten_layers(include_self=False):
            if layer.name in layers:
                layer.enable_lora(rank, lora_alpha=alpha)
    mark_frozen(parts)
    return model
