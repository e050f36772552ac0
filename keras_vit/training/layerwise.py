"""Learning rates that grow with the depth of a layer."""

import re
from collections.abc import Iterable, Iterator, Mapping

import keras

from keras_vit.training.adapted import adapt
from keras_vit.weight_paths import model_prefix

BLOCK = re.compile(r"block_(\d+)|stage_\d+_unit_\d+")
BEFORE_BLOCKS = re.compile(
    r"patch_embedding|class_token|registers|position_embedding|pre_norm|root|stem_.*"
)


def learning_rate_multipliers(model: keras.Model, decay: float) -> dict[str, float]:
    """A factor of the learning rate for each weight: the deeper its layer, the larger.

    `decay ** (num_layers + 1 - layer_id)`, where the embeddings (with a hybrid's stem and
    `pre_norm`) have the `layer_id` 0, `block_0` 1, `block_1` 2 and so on. All that comes
    after the last block (final norm, pooling, `pre_logits`, head) has the factor 1, and
    so has every layer that is not one of this package's. In a `BiTResNet` the units count
    as blocks, in order, and the root as embeddings.

    Source: BEiT (arXiv 2106.08254), appendix; MAE (arXiv 2111.06377), Table 9, which
    fine-tunes ViT-B with a decay of 0.65 or 0.75.

    Args:
        model: a `VisionTransformer`, a `BiTResNet`, or a model that has the layers of
            one, also as a layer, under their names.
        decay: float in (0, 1]; 1 gives every weight the factor 1.

    Returns:
        A dictionary of weight path → factor, of all weights, trainable or not, for
        `scale_learning_rates`.

    Raises:
        ValueError: if `decay` is out of its range, or the model has no encoder blocks.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"`decay` must be in (0, 1]. Received: decay={decay}")
    multipliers = {weight.path: 1.0 for weight in model.weights}
    for layers in networks(model):
        blocks = block_order(layers)
        exponents = {name: len(blocks) - i for i, name in enumerate(blocks)}
        for layer in layers:
            before = BEFORE_BLOCKS.fullmatch(layer.name)
            exponent = len(blocks) + 1 if before else exponents.get(layer.name, 0)
            multipliers |= {weight.path: decay**exponent for weight in layer.weights}
    return multipliers


def scale_learning_rates(
    optimizer: keras.optimizers.Optimizer, multipliers: Mapping[str, float]
) -> keras.optimizers.Optimizer:
    """Multiplies an optimizer's learning rate by a factor for each variable.

    The update rule is given the product as its learning rate, and so is weight decay,
    which Keras multiplies by the learning rate. Whatever the schedule, accumulation of
    gradients, clipping and loss scaling of the optimizer, they stay as they are. The
    factors are saved with a compiled model.

    Args:
        optimizer: any of Keras' optimizers, before its first use, also a
            `LossScaleOptimizer`. It is changed in place.
        multipliers: factors by variable path, such as `learning_rate_multipliers` gives.
            They may have paths of variables that are not trained, but every trained
            variable must have one.

    Returns:
        The same optimizer.

    Raises:
        ValueError: if the optimizer has been built, or is a `MultiOptimizer`; when it is
            built, if a variable has no factor.

    Example:

    >>> optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.05)
    >>> multipliers = learning_rate_multipliers(model, decay=0.75)
    >>> model.compile(scale_learning_rates(optimizer, multipliers), loss)
    """
    multipliers = {path: float(factor) for path, factor in multipliers.items()}
    adapt(optimizer, multipliers=multipliers)
    return optimizer


def top_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """A model's layers, and in place of a model among them the layers of that."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from top_layers(layer)
        else:
            yield layer


def networks(model: keras.Model) -> list[list[keras.layers.Layer]]:
    """The `top_layers` of each of the models of this package that a model is made of.

    Each has encoder blocks or ResNet units; layers of others are left out where there is
    more than one.

    Raises:
        ValueError: if there is none.
    """
    groups: dict[str, list] = {}
    for layer in top_layers(model):
        groups.setdefault(model_prefix(layer), []).append(layer)
    with_blocks = [
        layers
        for layers in groups.values()
        if any(BLOCK.fullmatch(layer.name) for layer in layers)
    ]
    if not with_blocks:
        block_order(top_layers(model))  # which says so
    return with_blocks


def block_order(layers: Iterable[keras.layers.Layer]) -> list[str]:
    """The names of encoder blocks or ResNet units among layers, the first one first.

    Raises:
        ValueError: if there are none.
    """
    layers = list(layers)
    blocks = {layer.name for layer in layers if BLOCK.fullmatch(layer.name)}
    if not blocks:
        raise ValueError(
            "`model` must have layers `block_0`, `block_1`, … or `stage_0_unit_0`, …, "
            "whose order says how deep they are. Received the layers: "
            f"{', '.join(layer.name for layer in layers)}"
        )
    return sorted(blocks, key=lambda name: [*map(int, re.findall(r"\d+", name))])
