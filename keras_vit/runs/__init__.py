"""Experiments from arguments to results: trainings, evaluation and prediction."""

from collections.abc import Callable
from typing import Any

from keras_vit import deprecated
from keras_vit.runs.callbacks import Checkpoints, EventFiles, Progress
from keras_vit.runs.classifier import Classifier, load_classifier, load_model
from keras_vit.runs.embedding import (
    Embedder,
    Embeddings,
    Neighbor,
    embed,
    load_embedder,
)
from keras_vit.runs.evaluation import evaluate
from keras_vit.runs.explanation import (
    Explainer,
    Explanation,
    Explanations,
    explain,
    load_explainer,
)
from keras_vit.runs.fine_tuning import FineTuningResult, fine_tune
from keras_vit.runs.folder import RunFolder, find_run
from keras_vit.runs.imagenet import TestSetResult, evaluate_imagenet
from keras_vit.runs.model_pictures import ModelPictures
from keras_vit.runs.prediction import ClassProbability, Prediction, predict
from keras_vit.runs.pretraining import PreTrainingResult, pretrain
from keras_vit.runs.representation import RepresentationResult, evaluate_representation
from keras_vit.runs.results import EvaluationResult
from keras_vit.runs.vtab import TaskState, VtabResult, evaluate_vtab, vtab_states

__all__ = [
    "Checkpoints",
    "ClassProbability",
    "Classifier",
    "Embedder",
    "Embeddings",
    "EvaluationResult",
    "EventFiles",
    "Explainer",
    "Explanation",
    "Explanations",
    "FineTuningResult",
    "ModelPictures",
    "Neighbor",
    "PreTrainingResult",
    "Prediction",
    "Progress",
    "RepresentationResult",
    "RunFolder",
    "TaskState",
    "TestSetResult",
    "VtabResult",
    "embed",
    "evaluate",
    "evaluate_imagenet",
    "evaluate_representation",
    "evaluate_vtab",
    "explain",
    "find_run",
    "fine_tune",
    "load_classifier",
    "load_embedder",
    "load_explainer",
    "load_model",
    "predict",
    "pretrain",
    "vtab_states",
]
_OLD_NAMES = {
    "Reunion": "image_digests.MatchedImages",
    "digests": "image_digests.image_digests",
    "image_fields": "classifier.image_fields",
    "reunite": "image_digests.match_images",
}
__getattr__: Callable[[str], Any] = deprecated.module_getattr(
    __name__, {old: f"{__name__}.{new}" for old, new in _OLD_NAMES.items()}
)
