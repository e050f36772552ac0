"""Exclusion of weights from weight decay."""

import keras

from keras_vit import arguments
from keras_vit.keras_internals.sublayers import all_layers
from keras_vit.layers import LayerScale, Registers, RelativeKeys, RelativePositionBias
from keras_vit.layers.position import Positions
from keras_vit.training.optimizers import adapt, inner_optimizer
from keras_vit.weight_paths import inner_paths

NORMS = (
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.BatchNormalization,
    keras.layers.RMSNormalization,
)
POSITIONS = (Positions, RelativeKeys, RelativePositionBias)
UNDECAYED_LAYERS = (*NORMS, *POSITIONS, Registers, LayerScale)  # and class tokens
# Attributes of layers.
UNDECAYED_WEIGHTS = (
    "bias",
    "query_value_bias",
    "probe",
    "frequencies",
    "mask_token",
    "scale",
)


def exclude_from_weight_decay(
    optimizer: keras.optimizers.Optimizer, model: keras.Model
) -> keras.optimizers.Optimizer:
    """Limits an optimizer's weight decay to the kernels of a model.

    Source: the code of DeiT and MAE. Excluded are biases, the weights of norms and of
    `LayerScale`, the class token, registers, the mask token of a masked autoencoder, the
    probe of attention pooling and learned positions, also relative ones and the frequencies
    of rotary ones, and the norms of weight-normalized kernels. Unlike Keras' method of this
    name, this is saved with a compiled model.

    Args:
        optimizer: a Keras optimizer that has not been used, also a `LossScaleOptimizer`.
            It is changed in place.
        model: a built model.

    Returns:
        The same optimizer.

    Raises:
        ValueError: if the optimizer has been built or is a `MultiOptimizer`.
    """
    undecayed, paths = set(), inner_paths(model)
    for layer in all_layers(model, include_self=False):
        if isinstance(layer, UNDECAYED_LAYERS):
            undecayed |= {paths[id(weight)] for weight in layer.weights}
        attributes = (getattr(layer, name, None) for name in UNDECAYED_WEIGHTS)
        undecayed |= {paths[id(w)] for w in attributes if isinstance(w, keras.Variable)}
    adapt(optimizer, undecayed=frozenset(undecayed))
    return optimizer


def raise_weight_decay(
    optimizer: keras.optimizers.Optimizer, final_weight_decay: float, steps: int
) -> keras.optimizers.Optimizer:
    """Makes an optimizer's weight decay rise during the training, by half a cosine.

    Source: DINO (arXiv 2104.14294), section 3.2, *Implementation details*.

    Args:
        optimizer: a Keras optimizer with a `weight_decay`, from which it rises, that has
            not been used, also a `LossScaleOptimizer`. It is changed in place.
        final_weight_decay: float, the weight decay at the end.
        steps: int, updates until then.

    Returns:
        The same optimizer.

    Raises:
        ValueError: if the optimizer has been built, is a `MultiOptimizer`, or has no weight
            decay.
    """
    if not inner_optimizer(optimizer).weight_decay:
        raise ValueError(
            "The weight decay rises from that of the optimizer. Received: "
            f"{optimizer.name} with weight_decay={inner_optimizer(optimizer).weight_decay}."
            " Give it one, such as 0.04."
        )
    steps = arguments.positive(steps, "steps")
    adapt(optimizer, rising_decay=(float(final_weight_decay), steps))
    return optimizer
