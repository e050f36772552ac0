"""The loss of the ViT paper's pre-training."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_vit")
class SigmoidCrossentropy(keras.losses.Loss):
    """Binary cross-entropy, summed over the classes.

    The ViT paper pre-trains with it on ImageNet-21k and JFT-300M, whose images may have
    several labels. `keras.losses.BinaryCrossentropy` takes the mean over the classes
    instead, which scales the gradient: by 1 / 21,843 for ImageNet-21k.

    Source: ViT (arXiv 2010.11929), appendix B.1; the code of BigVision.

    Args:
        from_logits: bool, whether predictions are logits; otherwise probabilities.
        label_smoothing: float in [0, 1), share of each label that is replaced by 0.5.
        reduction: as in `keras.losses.Loss`.
        name: name of the loss.
        **kwargs: other arguments of `keras.losses.Loss`.

    Call arguments:
        y_true: (batch, classes), in [0, 1].
        y_pred: (batch, classes).
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str = "sum_over_batch_size",
        name: str = "sigmoid_crossentropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = y_true * (1 - self.label_smoothing) + self.label_smoothing / 2
        return ops.sum(ops.binary_crossentropy(y_true, y_pred, self.from_logits), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
        }
