"""How published models were trained and fine-tuned, for `compile` and `fit`."""

from keras_vit.training.averaging import SwapAveragedWeights, average_weights
from keras_vit.training.freezing import freeze
from keras_vit.training.layerwise import learning_rate_multipliers, scale_learning_rates
from keras_vit.training.lora import enable_lora
from keras_vit.training.recipes import BiTHyperRule, bit_hyperrule
from keras_vit.training.schedules import PerUpdate, WarmupLinearDecay, WarmupStepDecay
from keras_vit.training.weight_decay import exclude_from_weight_decay

__all__ = [
    "BiTHyperRule",
    "PerUpdate",
    "SwapAveragedWeights",
    "WarmupLinearDecay",
    "WarmupStepDecay",
    "average_weights",
    "bit_hyperrule",
    "enable_lora",
    "exclude_from_weight_decay",
    "freeze",
    "learning_rate_multipliers",
    "scale_learning_rates",
]
