"""The folder that a training writes, and what is read from it later."""

from keras_vit.runs.callbacks import Checkpoints, EventFiles, Progress
from keras_vit.runs.classifier import Classifier, image_fields, load_classifier, load_model
from keras_vit.runs.examples import Reunion, digests, reunite
from keras_vit.runs.folder import RunFolder, find_run

__all__ = [
    "Checkpoints",
    "Classifier",
    "EventFiles",
    "Progress",
    "Reunion",
    "RunFolder",
    "digests",
    "find_run",
    "image_fields",
    "load_classifier",
    "load_model",
    "reunite",
]
