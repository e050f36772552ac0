"""Labelled images as batches, loaded by one function: `load`."""

from keras_vit.data.augment import Augmentation
from keras_vit.data.formula import formula_images
from keras_vit.data.image_data import ImageData
from keras_vit.data.images import read_image
from keras_vit.data.load import load
from keras_vit.data.pipeline import Pipeline, load_images

__all__ = [
    "Augmentation",
    "ImageData",
    "Pipeline",
    "formula_images",
    "load",
    "load_images",
    "read_image",
]
