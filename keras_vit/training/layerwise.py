"""Layer-wise learning rate decay."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from keras_vit.training.optimizers import adapt
from keras_vit.weight_paths import model_prefix

BLOCK = re.compile(r"(block_\d+|stage_\d+_unit_\d+)(?:_[a-z]\w*)?")  # with its layers
BEFORE_BLOCKS = re.compile(
    r"patch_embedding|patch_norm|class_token|distillation_token|registers"
    r"|position_embedding|layer_positions|pre_norm|root|stem_.*"
)


def learning_rate_multipliers(model: keras.Model, decay: float) -> dict[str, float]:
    """Learning rate multipliers that grow with depth, by weight path.

    The multiplier is `decay ** (num_layers + 1 - layer_id)`. The embeddings (with a
    hybrid's stem, `patch_norm` and `pre_norm`) have `layer_id` 0, `block_0` has 1,
    `block_1` 2 and so on. Layers after the last block (final norm, pooling, `pre_logits`,
    head) have the multiplier 1, as have layers that are not this package's. In a
    `BiTResNet` the units count as blocks, and the root as embeddings; in an
    `EfficientNet` its blocks and stem.

    Source: BEiT (arXiv 2106.08254), appendix; MAE (arXiv 2111.06377), Table 9, which
    fine-tunes ViT-B with a decay of 0.65 or 0.75.

    Args:
        model: a `VisionTransformer`, `BiTResNet` or `EfficientNet`, or a model that
            contains one, or its layers under their names.
        decay: float in (0, 1]; 1 gives every weight the multiplier 1.

    Returns:
        A dictionary from weight path to multiplier for `scale_learning_rates`. It has all
        weights, trainable or not.

    Raises:
        ValueError: if `decay` is out of range, or the model has no encoder blocks.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"`decay` must be in (0, 1]. Received: decay={decay}")
    multipliers = {weight.path: 1.0 for weight in model.weights}
    for layers in backbones(model):
        blocks = block_names(layers)
        exponents = {name: len(blocks) - i for i, name in enumerate(blocks)}
        for layer in layers:
            before = BEFORE_BLOCKS.fullmatch(layer.name)
            block = BLOCK.fullmatch(layer.name)
            exponent = exponents[block[1]] if block else 0
            exponent = len(blocks) + 1 if before else exponent
            multipliers |= {weight.path: decay**exponent for weight in layer.weights}
    return multipliers


def scale_learning_rates(
    optimizer: keras.optimizers.Optimizer, multipliers: Mapping[str, float]
) -> keras.optimizers.Optimizer:
    """Multiplies an optimizer's learning rate by a factor per variable.

    The multiplier scales weight decay too, which Keras multiplies by the learning rate.
    Schedule, gradient accumulation, clipping and loss scaling are not affected. The
    multipliers are saved with a compiled model.

    Args:
        optimizer: a Keras optimizer that has not been used, also a `LossScaleOptimizer`.
            It is changed in place.
        multipliers: multiplier by variable path, such as `learning_rate_multipliers`
            returns. Every trained variable needs one; others may have one.

    Returns:
        The same optimizer.

    Raises:
        ValueError: if the optimizer has been built or is a `MultiOptimizer`; when it is
            built, if a trained variable has no multiplier.

    Example:

    >>> optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.05)
    >>> multipliers = learning_rate_multipliers(model, decay=0.75)
    >>> model.compile(scale_learning_rates(optimizer, multipliers), loss)
    """
    multipliers = {path: float(factor) for path, factor in multipliers.items()}
    adapt(optimizer, multipliers=multipliers)
    return optimizer


def expanded_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """A model's layers; a model among them is replaced by its own layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from expanded_layers(layer)
        else:
            yield layer


def backbones(model: keras.Model) -> list[list[keras.layers.Layer]]:
    """The layers of each network with encoder blocks or ResNet units inside a model.

    Raises:
        ValueError: if there is none.
    """
    groups: dict[str, list[Any]] = {}
    for layer in expanded_layers(model):
        groups.setdefault(model_prefix(layer), []).append(layer)
    with_blocks = [
        layers
        for layers in groups.values()
        if any(BLOCK.fullmatch(layer.name) for layer in layers)
    ]
    if not with_blocks:
        block_names(expanded_layers(model))  # raises
    return with_blocks


def block_names(layers: Iterable[keras.layers.Layer]) -> list[str]:
    """The names of the encoder blocks or ResNet units among layers, in order.

    Raises:
        ValueError: if there are none.
    """
    layers = list(layers)
    blocks = {m[1] for layer in layers if (m := BLOCK.fullmatch(layer.name))}
    if not blocks:
        raise ValueError(
            "`model` must have layers `block_0`, `block_1`, … or `stage_0_unit_0`, …. "
            f"Received the layers: {', '.join(layer.name for layer in layers)}"
        )
    return sorted(blocks, key=lambda name: [*map(int, re.findall(r"\d+", name))])
