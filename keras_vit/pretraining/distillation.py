"""Training with a teacher."""

from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_vit.layers.trainability import (
    TRAINABLE_PARTS,
    set_trainable_parts,
    trainable_parts,
)
from keras_vit.models import VisionTransformer
from keras_vit.models.encoding import logits_of_heads
from keras_vit.pretraining.distillation_loss import DistillationLoss, metrics
from keras_vit.pretraining.teacher import FrozenTeacher
from keras_vit.types import Shape, Tensor

_OURS = ("loss", "loss_weights", "metrics", "weighted_metrics")  # of `compile`


@keras.saving.register_keras_serializable(package="keras_vit")
class Distillation(keras.Model):
    """A student that learns from labels and from a teacher.

    Source: DeiT (*Training data-efficient image transformers & distillation through
    attention*, arXiv 2012.12877), section 4. See `DistillationLoss` for the formulas.

    A student with `distilled=True` has a distillation token beside the class token, whose
    head learns from the teacher while the other learns from the labels; used alone it
    averages both. The one head of another student learns from both.

    The model has its own loss: `compile(optimizer)`, then `fit` with images and labels.
    Labels are numbers of classes, or probabilities, as MixUp and CutMix make them. The logs
    have `accuracy`, and `agreement`, the share of images that the student classifies as the
    teacher does; both are of the averaged heads. Afterwards `.student` is kept.

    The teacher computes as in inference. Its weights and the statistics of its batch norms
    stay as they are; `trainable` is set to False in it. The files of this model hold the
    teacher's weights, too; those of `.student` do not.

    Args:
        student: a built `VisionTransformer` with a head, whose `classifier_activation` is
            `"softmax"` or `None`.
        teacher: a `keras.Model` or another layer, or a function of a batch of images, that
            gives (batch, classes) scores of the same classes in the same order. What a
            function computes with must be what Keras' backend can trace.
        preprocess: layer or function that makes of a batch of the student's images what the
            teacher takes: another size or another range of values. `None` for the images
            as they are; for teachers of this package, whose arguments tell their images,
            for what it takes to convert one into the other.
        kind: `"hard"`, the teacher's answer counts as a label, or `"soft"`, its
            probabilities at a temperature do.
        weight: float from 0 to 1, the teacher's part in the loss; `None` for the paper's,
            0.5 for `"hard"` and 0.1 for `"soft"`.
        temperature: float above 0, of `"soft"`; 3 in the paper.
        label_smoothing: float in [0, 1), of the labels and not of the teacher's answers;
            0.1 in the paper.
        from_logits: bool, whether the teacher gives logits rather than probabilities, which
            `"soft"` must know; `None` for what the activation of its last layer tells.
        dtype: dtype policy of this model, `None` for the student's. Under any policy
            scores and losses are float32.
        name: str, the model's name.
        trainable: bool, whether the student is to be trained.

    Call arguments:
        images: a batch of images as the student takes them.

    Returns:
        float32 (batch, 3, classes): the logits of the student's head; those of its
        distillation head, or of the head again; and those of the teacher (up to a constant
        where it gives probabilities, and with `"hard"` its outputs as they are). `predict`
        gives what the student gives alone.

    Raises:
        ValueError: if an argument is out of its range, the student cannot be trained so,
            or the teacher does not answer the student's images.

    Example:

    >>> teacher = keras_vit.from_pretrained("runs/teacher")
    >>> classes = teacher.output_shape[-1]
    >>> student = keras_vit.ViTS16(weights=None, classes=classes, distilled=True)
    >>> model = Distillation(student, teacher, label_smoothing=0.1)
    >>> model.compile(keras.optimizers.AdamW(5e-4, weight_decay=0.05))
    >>> model.fit(images, labels, epochs=300)
    >>> model.student.save("deit.keras")
    """

    def __init__(
        self,
        student: VisionTransformer,
        teacher: Callable[[Tensor], Tensor],
        *,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        kind: str = "hard",
        weight: float | None = None,
        temperature: float = 3.0,
        label_smoothing: float = 0.0,
        from_logits: bool | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        _check_student(student, teacher)
        loss = DistillationLoss(kind, weight, temperature, label_smoothing)
        policy = keras.dtype_policies.get(dtype or student.dtype_policy)
        # Without `autocast`, which would round images to half precision.
        super().__init__(dtype=policy, name=name, trainable=trainable, autocast=False)
        self.student = student
        self.frozen_teacher = FrozenTeacher(
            teacher,
            student,
            preprocess=preprocess,
            from_logits=from_logits,
            needs_logits=kind == "soft",
        )
        self._loss = loss
        self._logits = logits_of_heads(student)
        self.build(student.input_shape)

    @property
    def teacher(self) -> Callable[[Tensor], Tensor]:
        """The teacher, as it was given."""
        return self.frozen_teacher.model

    @property
    def label_smoothing(self) -> float:
        """Share of each label that is spread evenly over all classes."""
        return self._loss.label_smoothing

    def build(self, images_shape: Shape) -> None:
        self.built = True

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        logits = self._logits(images, training=training)
        # Last, as Keras tells `training` also the layers that are called afterwards.
        teacher = self.frozen_teacher(images, training=False)
        return ops.stack([logits[0], logits[-1], teacher], axis=1)

    # Training.

    def compile(self, optimizer: Any = "rmsprop", **options: Any) -> None:
        """Configures the training as Keras does; the model has its own loss and metrics.

        Raises:
            ValueError: if a loss or metrics are given.
        """
        if given := [name for name in _OURS if options.pop(name, None) is not None]:
            raise ValueError(
                f"A `{type(self).__name__}` has its own loss, accuracy and agreement. "
                f"Received: {', '.join(given)}. Compile it with an optimizer alone, and "
                "evaluate `.student` by others."
            )
        # Weighted: images that pad a batch have weight 0.
        super().compile(optimizer, loss=self._loss, weighted_metrics=metrics(), **options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model; Keras asks for it where `compile` is a class's own."""
        config = {name: value for name, value in config.items() if name not in _OURS}
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def predict(self, x: Any, *arguments: Any, **options: Any) -> Any:
        """Predicts as the student does alone."""
        return self.student.predict(x, *arguments, **options)

    # Configuration.

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same model, without its weights."""
        serialize = keras.saving.serialize_keras_object
        config = {
            "student": serialize(self.student),
            "teacher": serialize(self.teacher),
            "preprocess": serialize(self.frozen_teacher.preprocess),
            "from_logits": self.frozen_teacher.from_logits,
            "kind": self._loss.kind,
            "weight": self._loss.weight,
            "temperature": self._loss.temperature,
            "label_smoothing": self._loss.label_smoothing,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
            "trainable": self.trainable,
        }
        parts = trainable_parts(self)
        return {**config, **({TRAINABLE_PARTS: parts} if parts else {})}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Self:
        """Builds the model of a `get_config`, with new weights."""
        fields = dict(config)
        parts = fields.pop(TRAINABLE_PARTS, {})
        for name in ("student", "teacher", "preprocess"):
            fields[name] = keras.saving.deserialize_keras_object(
                fields[name], custom_objects
            )
        model = cls(**fields)
        set_trainable_parts(model, parts)
        return model


def _check_student(student, teacher):
    if not isinstance(student, VisionTransformer):
        raise ValueError(
            "`student` must be a `VisionTransformer`. Received: "
            f"{type(student).__name__} {student!r}"
        )
    if student is teacher:
        raise ValueError(
            "`teacher` must be another model than the student. Received: "
            f"{student.name!r} for both"
        )
    fields = student.fields
    if fields.classes < 2:
        raise ValueError(
            "`student` must have a head of two classes or more. Received: "
            f"{student.name!r} with classes={fields.classes}. Build it with as many as the "
            "teacher has: `keras_vit.from_pretrained(model, classes=…)`."
        )
    if fields.classifier_activation not in ("softmax", "linear", None):
        raise ValueError(
            "A student learns the classes by a softmax. Received: "
            f"{student.name!r} with classifier_activation="
            f"{fields.classifier_activation!r}. Build it with 'softmax' or None."
        )
