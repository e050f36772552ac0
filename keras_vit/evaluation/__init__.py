"""Quality of a representation: features of images, judged by simple classifiers."""

from keras_vit.evaluation import vtab
from keras_vit.evaluation.feature_files import Features
from keras_vit.evaluation.features import extract_features
from keras_vit.evaluation.few_shot_regression import few_shot
from keras_vit.evaluation.neighbors import nearest_neighbors
from keras_vit.evaluation.probe import linear_probe
from keras_vit.evaluation.real_labels import real_accuracy
from keras_vit.evaluation.result import ProtocolResult

__all__ = [
    "Features",
    "ProtocolResult",
    "extract_features",
    "few_shot",
    "linear_probe",
    "nearest_neighbors",
    "real_accuracy",
    "vtab",
]
