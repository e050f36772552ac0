"""A frozen teacher."""

from collections.abc import Callable

import keras
from keras import ops

from keras_vit.models import ImageModel, VisionTransformer
from keras_vit.pretraining.teacher_images import conversion
from keras_vit.types import Shape, Tensor

# The name of a last layer's activation → whether it gives logits.
_LOGITS = {"linear": True, "softmax": False}
_WAY_OUT = (
    "Give `preprocess`, a function that makes of the student's images those of the teacher."
)
_TINY = 1e-37  # the least probability whose logarithm is taken, a normal float32


class FrozenTeacher(keras.layers.Layer):
    """A model that answers a student's images, and is never trained.

    Whatever `trainable` is set to, of this layer or of the model around it, the weights
    stay frozen. The teacher computes as in inference, so that statistics of batch norms
    stay and dropout does nothing.

    Args:
        model: the teacher, see `Distillation`.
        student: the student.
        preprocess: see `Distillation`.
        from_logits: bool, whether the teacher gives logits; `None` asks the teacher.
        needs_logits: bool, whether the distillation needs to know that.

    Call arguments:
        images: a batch of images as the student takes them.

    Returns:
        float32 (batch, classes): logits, up to a constant; or the teacher's outputs as they
        are, where logits are not needed.

    Raises:
        ValueError: if the teacher does not take the images, gives no scores of the
            student's classes, or does not tell whether these are logits.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        student: VisionTransformer,
        *,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        from_logits: bool | None = None,
        needs_logits: bool = False,
    ):
        super().__init__(
            dtype="float32", autocast=False, trainable=False, name="frozen_teacher"
        )
        if not callable(model):
            raise ValueError(
                "`teacher` must be a model, or a function of a batch of images. Received: "
                f"teacher={model!r}"
            )
        self.model = model
        self._is_layer = isinstance(model, keras.layers.Layer)
        self.preprocess = preprocess
        for part in (model, preprocess):
            if isinstance(part, keras.layers.Layer):
                part.trainable = False
        self.from_logits = from_logits
        self._converted = bool(needs_logits and not _gives_logits(model, from_logits))
        self._convert = preprocess or _conversion(student, model)
        self._classes = student.fields.classes
        self.build(student.input_shape)
        self._check(student)

    # Layers and models around set it, and must not thaw the teacher.
    @property
    def trainable(self) -> bool:
        """False."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        pass

    def build(self, images_shape: Shape) -> None:
        self.built = True

    def call(self, images: Tensor) -> Tensor:
        if self._convert is not None:
            images = self._convert(images)
        self._check_shape(images.shape)
        outputs = self.model(images, **({"training": False} if self._is_layer else {}))
        if len(getattr(outputs, "shape", ())) != 2 or outputs.shape[1] != self._classes:
            raise _MismatchError(
                "`teacher` must give a score for each class of the student, (batch, "
                f"{self._classes}). Received: {getattr(outputs, 'shape', outputs)} from "
                f"{self.model!r}"
            )
        outputs = ops.cast(outputs, "float32")
        if self._converted:
            outputs = ops.log(ops.maximum(outputs, _TINY))
        return ops.stop_gradient(outputs)

    def _check_shape(self, shape):
        """Refuses images of another shape than a teacher's; some networks would not."""
        taken = getattr(self.model, "input_shape", None)
        if not isinstance(taken, tuple):  # a function, or a model that does not tell
            return
        pairs = zip(taken[1:], shape[1:], strict=False)
        if len(taken) != len(shape) or any(a != b and a and b for a, b in pairs):
            raise _MismatchError(
                f"`teacher` takes images of the shape {taken[1:]}. Received: "
                f"{tuple(shape[1:])} of the student. {_WAY_OUT}"
            )

    def _check(self, student):
        """Lets the teacher answer without numbers, to find what it does not take."""
        try:
            self.compute_output_spec(keras.KerasTensor(student.input_shape, "float32"))
        except _MismatchError as error:  # Keras' own text stands before ours
            text = str(error)
            raise ValueError(text[text.find("`teacher`") :]) from None
        except Exception as error:
            raise ValueError(
                "`teacher` must answer the student's images. Received: images of the shape "
                f"{student.input_shape[1:]}, and from the teacher: {error}\n{_WAY_OUT}"
            ) from error


class _MismatchError(ValueError):
    """A teacher that does not fit its student."""


def _conversion(student, teacher):
    """The conversion of images for a teacher of this package; `None` for another."""
    return conversion(student, teacher) if isinstance(teacher, ImageModel) else None


def _gives_logits(teacher, stated):
    if stated is not None:
        return stated
    if (activation := _last_activation(teacher)) not in _LOGITS:
        raise ValueError(
            "`from_logits` must say whether the teacher gives logits or probabilities, as "
            f"nothing in it does. Received: from_logits=None for {teacher!r}. Give True or "
            "False."
        )
    return _LOGITS[activation]


def _last_activation(teacher) -> str | None:
    """The name of the activation of a model's last layer; `None` for an unknown one."""
    if isinstance(teacher, ImageModel):
        activation = teacher.arguments["classifier_activation"] or "linear"
    else:
        last = (getattr(teacher, "layers", None) or [teacher])[-1]
        is_softmax = isinstance(last, keras.layers.Softmax)
        activation = "softmax" if is_softmax else getattr(last, "activation", None)
    return getattr(activation, "__name__", activation)
