"""Objectives of pre-training without labels, by name: one row and one module each."""

from keras_vit.runs.objectives import (
    masked_autoencoder,
    masked_patch_prediction,
    self_distillation,
)
from keras_vit.runs.objectives.objective import Objective, Pictures

OBJECTIVES: dict[str, Objective] = {
    "masked_autoencoder": masked_autoencoder.OBJECTIVE,
    "masked_patch_prediction": masked_patch_prediction.OBJECTIVE,
    "self_distillation": self_distillation.OBJECTIVE,
}

__all__ = ["OBJECTIVES", "Objective", "Pictures"]
