"""Which weights a fine-tuning leaves as they are."""

import keras

from keras_vit.training.layerwise import (
    BEFORE_BLOCKS,
    BLOCK,
    block_order,
    networks,
    top_layers,
)
from keras_vit.training.weight_decay import NORMS

AFTER_BLOCKS = ("encoder_norm", "norm", "fc_norm", "pooling", "pre_logits")


def freeze(model: keras.Model, what: str | int | None) -> keras.Model:
    """Chooses the weights of a model that are trained, and freezes the others.

    Compile the model afterwards: an optimizer is made for the weights that are trained.
    What is frozen stays so in a saved model and in copies of it.

    Args:
        model: a `VisionTransformer`, a `BiTResNet`, or a model that has the layers of
            one, also as a layer, under their names. Layers of its own are trained, as
            the head is. It is changed in place.
        what: `"linear"`, all but the head is frozen; `"norms"`, all but the norms and
            the head (BiT has group norms); an int k, what comes before the last k blocks
            (BiT: units) is frozen, and these, the final norm, pooling, `pre_logits` and
            the head are trained; `None`, nothing is frozen.

    Returns:
        The same model.

    Raises:
        ValueError: if `what` is none of these, the model has fewer blocks than asked
            for or nothing left to train, or its layers have LoRA weights.

    Example:

    >>> model = keras_vit.ViTB16(classes=10)
    >>> freeze(model, "linear")
    >>> model.compile(keras.optimizers.SGD(0.1), loss)
    """
    layers = list(top_layers(model))
    trained = _trained_layers(model, layers, what)
    check_plain(model)
    unfreeze(model)
    train_only(model, [weight for layer in trained for weight in layer.weights])
    mark_frozen(layers)
    return model


def mark_frozen(layers: list[keras.layers.Layer]) -> None:
    """Has layers without weights to train say so, as their configs and copies do."""
    for layer in layers:
        if layer.weights and not layer.trainable_weights:
            layer.trainable = False


def unfreeze(model: keras.Model) -> None:
    """Trains what the layers of a model can train, each of them."""
    for layer in model._flatten_layers():
        # On TensorFlow Keras 3.15 ignores the value that a layer has already, whatever the
        # layers and the weights within it have.
        layer.trainable = False
        layer.trainable = True


def train_only(model: keras.Model, weights: list[keras.Variable]) -> None:
    """Freezes a model's weights but for some, whatever their layers.

    Raises:
        ValueError: if none is left.
    """
    trained = {id(weight) for weight in weights}
    trainable = model.trainable_weights
    if not any(id(weight) in trained for weight in trainable):
        raise ValueError(
            "A model must have weights to train. Received one that has neither a head nor "
            "others that are asked for. Give it a head: VisionTransformer(…, classes=n)."
        )
    for weight in trainable:
        weight.trainable = id(weight) in trained


def is_ours(name: str) -> bool:
    """Whether a layer of this name is one of this package's models, but for the head."""
    patterns = (BEFORE_BLOCKS, BLOCK)
    return name in AFTER_BLOCKS or any(pattern.fullmatch(name) for pattern in patterns)


def check_plain(model: keras.Model) -> None:
    """Raises a ValueError where a model's kernels are not plain variables."""
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "lora_enabled", False):
            raise ValueError(
                "`model` must have no LoRA weights yet: `enable_lora` freezes the other "
                f"weights by itself. Received: LoRA weights in {layer.path}. Save the "
                "model, which merges them, and load it."
            )
        if getattr(layer, "quantization_mode", None):
            raise ValueError(
                "Quantized kernels cannot be trained. Received: a model with "
                f"{layer.path} in {layer.quantization_mode}. Fine-tune the model first, "
                "and quantize it afterwards."
            )


def _trained_layers(model, layers, what):
    ours = [layer for layer in layers if is_ours(layer.name)]
    others = [layer for layer in layers if not is_ours(layer.name)]  # with the head
    if what is None:
        return layers
    if what == "linear":
        return others
    if what == "norms":
        inner = [part for layer in ours for part in layer._flatten_layers()]
        return [*others, *(layer for layer in inner if isinstance(layer, NORMS))]
    if not isinstance(what, int) or isinstance(what, bool) or what < 0:
        raise ValueError(
            "`what` must be 'linear', 'norms', the number of blocks that are trained, or "
            f"None. Received: what={what!r}"
        )
    last = [layer for network in networks(model) for layer in _last_blocks(network, what)]
    after = [layer for layer in ours if layer.name in AFTER_BLOCKS]
    return [*last, *after, *others]


def _last_blocks(layers, number):
    blocks = block_order(layers)
    if number > len(blocks):
        raise ValueError(
            f"`what` must be at most the number of blocks, {len(blocks)}. Received: "
            f"what={number}. Use None to train all of the model."
        )
    last = blocks[len(blocks) - number :]
    return [layer for layer in layers if layer.name in last]
