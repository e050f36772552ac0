"""The losses of distillation, and what is measured beside them."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.types import Tensor

WEIGHTS = {"hard": 0.5, "soft": 0.1}  # of the teacher, in DeiT's experiments


@keras.saving.register_keras_serializable(package="keras_vit")
class DistillationLoss(keras.losses.Loss):
    """Cross-entropy with the labels, and a distance from the teacher's answer.

    Source: DeiT (arXiv 2012.12877), section 4, *Soft distillation* and *Hard-label
    distillation*; the former is that of *Distilling the Knowledge in a Neural Network*
    (arXiv 1503.02531), section 2. With λ the weight, τ the temperature, ψ the softmax, CE
    the cross-entropy and KL the Kullback-Leibler divergence:

    - `"hard"`: (1 - λ) CE(ψ(logits), y) + λ CE(ψ(distilled), argmax teacher)
    - `"soft"`: (1 - λ) CE(ψ(logits), y) + λ τ² KL(ψ(teacher / τ) ‖ ψ(distilled / τ))

    Args:
        kind: `"hard"` or `"soft"`.
        weight: float from 0 to 1, λ; `None` for the paper's, 0.5 for `"hard"` and 0.1 for
            `"soft"`.
        temperature: float above 0, τ.
        label_smoothing: float in [0, 1), share of each label that is spread evenly over all
            classes. The teacher's answers are not smoothed.
        reduction: as in `keras.losses.Loss`.
        name: str, the loss's name.
        **kwargs: other arguments of `keras.losses.Loss`.

    Call arguments:
        y_true: labels, (batch,) numbers of classes or (batch, classes) probabilities.
        y_pred: (batch, 3, classes), what `Distillation` gives: logits of the head, logits
            of the distillation head, the teacher's.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        kind: str = "hard",
        weight: float | None = None,
        temperature: float = 3.0,
        label_smoothing: float = 0.0,
        reduction: str = "sum_over_batch_size",
        name: str = "distillation_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.kind = arguments.one_of(kind, tuple(WEIGHTS), "kind")
        self.weight = _share(WEIGHTS[kind] if weight is None else weight)
        self.temperature = _positive(temperature)
        self.label_smoothing = arguments.rate(label_smoothing, "label_smoothing")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits, distilled, teacher = (y_pred[:, i] for i in range(3))
        classes = y_pred.shape[-1]
        labels = probabilities(y_true, classes) * (1 - self.label_smoothing)
        labels = labels + self.label_smoothing / classes
        of_labels = _crossentropy(labels, logits)
        if self.kind == "hard":
            answers = ops.one_hot(ops.argmax(teacher, axis=-1), classes)
            of_teacher = _crossentropy(answers, distilled)
        else:
            of_teacher = self._divergence(teacher, distilled)
        return (1 - self.weight) * of_labels + self.weight * of_teacher

    def _divergence(self, teacher, distilled):
        """τ² KL, whose gradient is as large at any temperature."""
        log_teacher, log_student = (
            ops.log_softmax(each / self.temperature, axis=-1)
            for each in (teacher, distilled)
        )
        divergence = ops.exp(log_teacher) * (log_teacher - log_student)
        return self.temperature**2 * ops.sum(divergence, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same loss."""
        return {
            **super().get_config(),
            "kind": self.kind,
            "weight": self.weight,
            "temperature": self.temperature,
            "label_smoothing": self.label_smoothing,
        }


def metrics() -> list[keras.metrics.Metric]:
    """The student's accuracy, and how often it answers as the teacher does."""
    functions = {"accuracy": _hits, "agreement": _agreements}
    return [keras.metrics.MeanMetricWrapper(f, name) for name, f in functions.items()]


def probabilities(labels: Any, classes: int) -> Tensor:
    """Labels of a batch as float32 (batch, classes)."""
    if len(labels.shape) == 2 and labels.shape[1] == classes:
        return ops.cast(labels, "float32")
    return ops.one_hot(ops.cast(ops.reshape(labels, (-1,)), "int32"), classes)


def _hits(y_true, y_pred):
    labels = probabilities(y_true, y_pred.shape[-1])
    return _is_same(_answers(y_pred), ops.argmax(labels, axis=-1))


def _agreements(y_true, y_pred):
    return _is_same(_answers(y_pred), ops.argmax(y_pred[:, 2], axis=-1))


def _answers(y_pred):
    """The classes of the averaged heads, as the student answers alone."""
    return ops.argmax(y_pred[:, 0] + y_pred[:, 1], axis=-1)


def _is_same(first, second):
    return ops.cast(
        ops.equal(ops.cast(first, "int32"), ops.cast(second, "int32")), "float32"
    )


def _crossentropy(probabilities, logits):
    return -ops.sum(probabilities * ops.log_softmax(logits, axis=-1), axis=-1)


def _share(value):
    if isinstance(value, str) or not 0 <= value <= 1:
        raise ValueError(
            "`weight` must be from 0 (labels alone) to 1 (the teacher alone). Received: "
            f"weight={value!r}"
        )
    return value


def _positive(value):
    if isinstance(value, str) or not value > 0:
        raise ValueError(f"`temperature` must be above 0. Received: temperature={value!r}")
    return value
