"""Trainings that go on where they were killed."""

from keras_vit.training.resume.callback import ExactResume

__all__ = ["ExactResume"]
