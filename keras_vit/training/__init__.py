"""How published models were trained and fine-tuned, for `compile` and `fit`."""

from keras_vit.training.recipes import BiTHyperRule, bit_hyperrule
from keras_vit.training.schedules import WarmupStepDecay

__all__ = ["BiTHyperRule", "WarmupStepDecay", "bit_hyperrule"]
