"""Pre-training without labels: models around an encoder, for `compile` and `fit`."""

from keras_vit.pretraining.masked_autoencoder import MaskedAutoencoder

__all__ = ["MaskedAutoencoder"]
