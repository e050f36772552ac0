"""Pre-training without labels: models around an encoder, for `compile` and `fit`."""

from keras_vit.pretraining.masked_autoencoder import MaskedAutoencoder
from keras_vit.pretraining.masked_patch_prediction import MaskedPatchPrediction
from keras_vit.pretraining.self_distillation import SelfDistillation

__all__ = ["MaskedAutoencoder", "MaskedPatchPrediction", "SelfDistillation"]
