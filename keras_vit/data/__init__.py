"""Labelled images as batches, loaded by one function: `load`."""

from keras_vit.data.augment import Augmentation
from keras_vit.data.formula import formula_images
from keras_vit.data.image_data import ImageData
from keras_vit.data.images import read_image
from keras_vit.data.load import load
from keras_vit.data.pipeline import Pipeline, load_images
from keras_vit.data.views import MultiCrop, multi_crop

__all__ = [
    "Augmentation",
    "ImageData",
    "MultiCrop",
    "Pipeline",
    "formula_images",
    "load",
    "load_images",
    "multi_crop",
    "read_image",
]
