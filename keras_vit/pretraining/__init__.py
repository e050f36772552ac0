"""Pre-training, without labels or with a teacher: models for `compile` and `fit`."""

from keras_vit.pretraining.distillation import Distillation
from keras_vit.pretraining.distillation_loss import DistillationLoss
from keras_vit.pretraining.masked_autoencoder import MaskedAutoencoder
from keras_vit.pretraining.masked_patch_prediction import MaskedPatchPrediction
from keras_vit.pretraining.self_distillation import SelfDistillation

__all__ = [
    "Distillation",
    "DistillationLoss",
    "MaskedAutoencoder",
    "MaskedPatchPrediction",
    "SelfDistillation",
]
