"""Experiments from arguments to results: fine-tuning, evaluation and prediction."""

from keras_vit.runs.callbacks import Checkpoints, EventFiles, Progress
from keras_vit.runs.classifier import Classifier, load_classifier, load_model
from keras_vit.runs.evaluation import evaluate
from keras_vit.runs.fine_tuning import FineTuningResult, fine_tune
from keras_vit.runs.folder import RunFolder, find_run
from keras_vit.runs.prediction import ClassProbability, Prediction, predict
from keras_vit.runs.results import EvaluationResult

__all__ = [
    "Checkpoints",
    "ClassProbability",
    "Classifier",
    "EvaluationResult",
    "EventFiles",
    "FineTuningResult",
    "Prediction",
    "Progress",
    "RunFolder",
    "evaluate",
    "find_run",
    "fine_tune",
    "load_classifier",
    "load_model",
    "predict",
]
