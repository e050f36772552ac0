"""Recipes of published trainings, and parts of them for `compile` and `fit`."""

from collections.abc import Callable
from typing import Any

from keras_vit import deprecated
from keras_vit.training.averaging import SwapAveragedWeights, average_weights
from keras_vit.training.finetune import finetune, prepare_data
from keras_vit.training.freezing import freeze
from keras_vit.training.layerwise import learning_rate_multipliers, scale_learning_rates
from keras_vit.training.lora import enable_lora
from keras_vit.training.losses import SigmoidCrossentropy
from keras_vit.training.pretrain import pretrain
from keras_vit.training.pretraining_recipes import (
    DINOPreTraining,
    MAEPreTraining,
    MaskedPatchPreTraining,
    SelfSupervisedRecipe,
    SmallPreTraining,
)
from keras_vit.training.recipe import Recipe
from keras_vit.training.recipes import (
    VTAB,
    AugReg,
    BigVisionS16,
    BiTHyperRule,
    DeiT,
    SmallData,
    ViTFineTuning,
    ViTPreTraining,
)
from keras_vit.training.resume import ExactResume
from keras_vit.training.schedules import PerUpdate, WarmupLinearDecay, WarmupStepDecay
from keras_vit.training.weight_decay import exclude_from_weight_decay, raise_weight_decay

__all__ = [
    "VTAB",
    "AugReg",
    "BiTHyperRule",
    "BigVisionS16",
    "DINOPreTraining",
    "DeiT",
    "ExactResume",
    "MAEPreTraining",
    "MaskedPatchPreTraining",
    "PerUpdate",
    "Recipe",
    "SelfSupervisedRecipe",
    "SigmoidCrossentropy",
    "SmallData",
    "SmallPreTraining",
    "SwapAveragedWeights",
    "ViTFineTuning",
    "ViTPreTraining",
    "WarmupLinearDecay",
    "WarmupStepDecay",
    "average_weights",
    "enable_lora",
    "exclude_from_weight_decay",
    "finetune",
    "freeze",
    "learning_rate_multipliers",
    "prepare_data",
    "pretrain",
    "raise_weight_decay",
    "scale_learning_rates",
]
_OLD_NAMES = {"configured": "keras_vit.training.prepare_data"}
__getattr__: Callable[[str], Any] = deprecated.module_getattr(__name__, _OLD_NAMES)
