"""Images of several shapes in one batch, as NaViT and SigLIP 2 NaFlex take them."""

from keras_vit.naflex.images import fitting_size, pack_images
from keras_vit.naflex.model import NaFlexModel

__all__ = ["NaFlexModel", "fitting_size", "pack_images"]
