"""Freezing of weights for fine-tuning."""

import keras

from keras_vit.keras_internals.sublayers import all_layers
from keras_vit.training.layerwise import (
    BEFORE_BLOCKS,
    BLOCK,
    backbones,
    block_names,
    expanded_layers,
)
from keras_vit.training.weight_decay import NORMS

AFTER_BLOCKS = (
    *("encoder_norm", "norm", "fc_norm", "pooling", "pre_logits"),
    *("top_conv", "top_bn"),
)


def freeze(model: keras.Model, what: str | int | None) -> keras.Model:
    """Freezes all weights of a model except those to train.

    Compile the model afterwards: its optimizer then has the trained weights only. Frozen
    weights stay frozen in a saved model and in copies.

    Args:
        model: a `VisionTransformer`, `BiTResNet` or `EfficientNet`, or a model that
            contains one, or its layers under their names. Layers outside the network are
            trained, as the head is. The model is changed in place.
        what: weights to train: `"linear"`, the head; `"norms"`, the norms and the head;
            an int k, the last k blocks (BiT: units) and all layers after them; `None`, all
            weights.

    Returns:
        The same model.

    Raises:
        ValueError: if `what` is another value, the model has fewer than k blocks, no
            weight would be trained, or layers have LoRA weights or are quantized.

    Example:

    >>> model = keras_vit.ViTB16(classes=10)
    >>> freeze(model, "linear")
    >>> model.compile(keras.optimizers.SGD(0.1), loss)
    """
    layers = list(expanded_layers(model))
    trained = _trained_layers(model, layers, what)
    check_no_lora(model)
    unfreeze(model)
    train_only(model, [weight for layer in trained for weight in layer.weights])
    mark_frozen(layers)
    return model


def mark_frozen(layers: list[keras.layers.Layer]) -> None:
    """Sets `trainable=False` on layers without trainable weights: configs save that."""
    for layer in layers:
        if layer.weights and not layer.trainable_weights:
            layer.trainable = False


def unfreeze(model: keras.Model) -> None:
    """Makes all layers of a model trainable."""
    for layer in all_layers(model):
        # On TensorFlow Keras 3.15 ignores a value that the layer has already, even if
        # layers and weights inside differ.
        layer.trainable = False
        layer.trainable = True


def train_only(model: keras.Model, weights: list[keras.Variable]) -> None:
    """Freezes all weights of a model except the given ones.

    Raises:
        ValueError: if no trainable weight is left.
    """
    trained = {id(weight) for weight in weights}
    trainable = model.trainable_weights
    if not any(id(weight) in trained for weight in trainable):
        raise ValueError(
            "A model must have weights to train. Received: a model that has neither a head "
            "nor such weights. Add a head: VisionTransformer(…, classes=n)."
        )
    for weight in trainable:
        weight.trainable = id(weight) in trained


def is_backbone_layer(name: str) -> bool:
    """True if this package's models have a layer of this name, other than the head."""
    patterns = (BEFORE_BLOCKS, BLOCK)
    return name in AFTER_BLOCKS or any(pattern.fullmatch(name) for pattern in patterns)


def check_no_lora(model: keras.Model) -> None:
    """Raises a ValueError if layers have LoRA weights or are quantized."""
    for layer in all_layers(model, include_self=False):
        if getattr(layer, "lora_enabled", False):
            raise ValueError(
                "`model` must not have LoRA weights yet: `enable_lora` freezes the other "
                f"weights itself. Received: LoRA weights in {layer.path}. Save and load "
                "the model, which merges them."
            )
        if getattr(layer, "quantization_mode", None):
            raise ValueError(
                "Quantized kernels cannot be trained. Received: a model with "
                f"{layer.path} in {layer.quantization_mode}. Fine-tune the model before "
                "quantizing it."
            )


def _trained_layers(model, layers, what):
    ours = [layer for layer in layers if is_backbone_layer(layer.name)]
    others = [layer for layer in layers if not is_backbone_layer(layer.name)]  # and head
    if what is None:
        return layers
    if what == "linear":
        return others
    if what == "norms":
        inner = [part for layer in ours for part in all_layers(layer)]
        return [*others, *(layer for layer in inner if isinstance(layer, NORMS))]
    if not isinstance(what, int) or isinstance(what, bool) or what < 0:
        raise ValueError(
            "`what` must be 'linear', 'norms', the number of last blocks to train, or "
            f"None. Received: what={what!r}"
        )
    last = [layer for each in backbones(model) for layer in _last_blocks(each, what)]
    after = [layer for layer in ours if layer.name in AFTER_BLOCKS]
    return [*last, *after, *others]


def _last_blocks(layers, number):
    blocks = block_names(layers)
    if number > len(blocks):
        raise ValueError(
            f"`what` must be at most the number of blocks, {len(blocks)}. Received: "
            f"what={number}. Use None to train the whole model."
        )
    last = blocks[len(blocks) - number :]
    matches = [(layer, BLOCK.fullmatch(layer.name)) for layer in layers]
    return [layer for layer, match in matches if match and match[1] in last]
