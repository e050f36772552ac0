"""`NeighborAccuracy`: judges an encoder by its neighbours while it is trained."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_vit.data import ImageData
from keras_vit.evaluation import extract_features, nearest_neighbors
from keras_vit.runs.callbacks import Epochs

METRIC = "val_knn_accuracy"
NEIGHBORS = 10
_MOST = {"train": 2000, "validation": 1000}  # images of each split


class NeighborAccuracy(keras.callbacks.Callback):
    """Adds the accuracy of the encoder's nearest neighbours to the logs of each epoch.

    A vote of the 10 training images whose features are most similar predicts the class of
    each validation image, see `evaluation.nearest_neighbors`. The labels are for this
    alone. At most 2,000 training and 1,000 validation images are looked at, the same each
    time, so that the cost stays the same for any data.

    Args:
        data: labelled images with a split `"validation"`, prepared for the encoder.

    Attributes:
        before: accuracy of the encoder before the first step; `None` until it is known.
    """

    def __init__(self, data: ImageData) -> None:
        super().__init__()
        self._data = _sample(data)
        self.before: float | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not int(self.model.optimizer.iterations):
            self.before = self._accuracy()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs[METRIC] = self._accuracy()

    def resume_state(self) -> dict[str, Any]:
        """State for `ExactResume` to save."""
        return {"before": self.before}

    def resume(self, state: Mapping[str, Any], epochs: Epochs) -> None:
        """Restores the state that `ExactResume` saved."""
        self.before = state.get("before")

    def _accuracy(self) -> float:
        model = self.model.kept_encoder
        train, test = (
            extract_features(model, self._data, split=split, verbose=0) for split in _MOST
        )
        found = nearest_neighbors(
            *(train.features, train.labels, test.features, test.labels),
            k=(min(NEIGHBORS, len(train.labels)),),
            num_classes=self._data.num_classes,
        )
        return float(np.asarray(found.accuracy).ravel()[0])


def _sample(data: ImageData) -> ImageData:
    """The same examples of the training and the validation split, at most `_MOST`."""
    splits = {}
    for split, most in _MOST.items():
        source = data.splits[split]
        if len(source) > most:
            chosen = np.random.RandomState(data.seed % 2**32).permutation(len(source))
            source = source.take(np.sort(chosen[:most]))
        splits[split] = source
    return replace(data, splits=splits)
