"""Exact resumption of an interrupted training."""

from keras_vit.training.resume.callback import ExactResume

__all__ = ["ExactResume"]
