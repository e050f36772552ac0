"""A page on this machine that shows what each patch of an image attends to."""

from keras_vit.explorer.explored import ExploredModel, OpenedImage, explored_model
from keras_vit.explorer.server import explore

__all__ = ["ExploredModel", "OpenedImage", "explore", "explored_model"]
