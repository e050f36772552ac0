"""Self-distillation without labels (DINO)."""

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_vit import arguments, weight_paths
from keras_vit.distribution.replicated import assign_on_devices, mean_over_devices
from keras_vit.keras_internals.stateless_scope import in_symbolic_scope
from keras_vit.keras_internals.trainers import for_several_devices
from keras_vit.layers import kernels
from keras_vit.layers.initial_values import waiting_for_values
from keras_vit.layers.position import POSITIONS as ABSOLUTE
from keras_vit.layers.trainability import TRAINABLE_PARTS
from keras_vit.models import VisionTransformer
from keras_vit.models.token_features import pooled_features
from keras_vit.pretraining import self_distillation_checks as checks
from keras_vit.pretraining.after_update import AfterUpdate
from keras_vit.pretraining.projection_head import ProjectionHead
from keras_vit.pretraining.self_supervision import SelfSupervision
from keras_vit.types import Shape, Tensor

GLOBAL_VIEWS = 2
_NEEDED = {
    "pooling": (("token", "gap", "token_gap", "map", "query"), "a pooling"),
    "position": (
        ABSOLUTE,
        "positions that can be resized inside the graph",
    ),
}


@keras.saving.register_keras_serializable(package="keras_vit")
class SelfDistillation(AfterUpdate, SelfSupervision):
    """An encoder that learns without labels, from a teacher that is its moving average.

    Source: *Emerging Properties in Self-Supervised Vision Transformers* (DINO, arXiv
    2104.14294). Student and teacher are the encoder and a copy of it, each with a
    `ProjectionHead`. The student sees two large (global) and several small (local) views
    of each image, the teacher the global ones. The student learns to give each view the
    distribution over the outputs that the teacher gives another view of the image. The
    teacher gets no gradients: after each update it moves towards the student. Its outputs
    are centred and sharpened, against collapse.

    The model has its own loss: `compile(optimizer)`, then `fit(views)`, of
    `data.multi_crop` or your own. Labels and weights of examples are not read. Afterwards
    `.teacher` is kept, which the paper evaluates and publishes; it is better than
    `.encoder`, the student, throughout the training. `.kept_encoder` is the teacher.

    The logs of `fit` and `evaluate` tell a collapse (the paper's section 5.3, figure 7).
    `kl_divergence` is that of the student from the teacher: 0 if all images have the same
    output. `teacher_entropy`, in nats, is then 0 or log(output_dim). The loss is their sum.

    Args:
        encoder: a built `VisionTransformer` without a head (`classes=0`), with a pooling,
            for images of one size, that of the global views. It is the student; the
            teacher begins as its copy. In the paper its `drop_path_rate` is 0.1; the
            teacher drops nothing.
        steps: int, updates of the whole training, the length of the momentum's schedule.
        output_dim: int, number of outputs.
        projection_hidden_dim: int, `hidden_dim` of `ProjectionHead`.
        bottleneck_dim: int, see `ProjectionHead`.
        norm_last_layer: bool, see `ProjectionHead`. `False` can be better for small
            encoders (ViT-S), and less stable for large ones.
        freeze_last_layer_steps: int, updates from the first in which the last layer of the
            student's head has no gradients; those of an epoch in the paper. `None` for a
            hundredth of `steps`.
        student_temperature: float, divisor of the student's outputs before their softmax.
        teacher_temperature: float, divisor of the teacher's outputs.
        initial_teacher_temperature: float, divisor at the start, from which the other is
            reached linearly.
        warmup_teacher_temperature_steps: int, updates until then. `None` for a tenth of
            `steps`: 30 of 300 epochs in the paper.
        teacher_momentum: float in [0, 1), the teacher's share in its moving average at the
            start. It rises to 1 at the end, by half a cosine.
        center_momentum: float in [0, 1), share of the centre in its moving average.
        num_local_views: int, number of local views of each image, from 0.
        local_image_size: int or (height, width) of the local views, in pixels, divisible
            by the patch size. `None` for 3/7 of the encoder's image size, 96 of 224, in
            whole patches.
        dtype: dtype policy of the heads, `None` for the encoder's. Under any policy their
            outputs and the loss are float32.
        name: str, the model's name.
        trainable: bool, whether the student is to be trained.

    Call arguments:
        views: a dictionary of `"global"`, (batch, 2, height, width, channels), two views of
            each image as the encoder takes them, and, if there are local views, `"local"`,
            (batch, num_local_views, height, width, channels) in `local_image_size`. With
            `data_format="channels_first"` the channels come before height and width.

    Returns:
        A dictionary of `"teacher_entropy"` and `"kl_divergence"`, float32 (batch,), in
        nats, and `"loss"`, a float32 scalar, which `predict` leaves out.

    Raises:
        ValueError: if an argument is out of its range, or the encoder cannot be
            pre-trained so.

    Example:

    >>> encoder = keras_vit.ViTS16(weights=None, include_top=False, drop_path_rate=0.1)
    >>> steps = 100 * data.steps_per_epoch
    >>> model = SelfDistillation(encoder, steps=steps)
    >>> train, _ = keras_vit.data.multi_crop(data.prepared_for(encoder), model)
    >>> model.compile(keras.optimizers.AdamW(5e-4, weight_decay=0.04, clipnorm=3.0))
    >>> model.fit(train, steps_per_epoch=data.steps_per_epoch, epochs=100)
    >>> classifier = keras_vit.from_pretrained(model.teacher, classes=102)
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        steps: int,
        output_dim: int = 65536,
        projection_hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        norm_last_layer: bool = True,
        freeze_last_layer_steps: int | None = None,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        initial_teacher_temperature: float = 0.04,
        warmup_teacher_temperature_steps: int | None = None,
        teacher_momentum: float = 0.996,
        center_momentum: float = 0.9,
        num_local_views: int = 8,
        local_image_size: int | tuple[int, int] | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        super().__init__(
            encoder, dtype=dtype, name=name, trainable=trainable, needed=_NEEDED
        )
        checks.check_precision(encoder)
        self.steps = arguments.positive(steps, "steps")
        self.freeze_last_layer_steps = checks.count(
            steps // 100 if freeze_last_layer_steps is None else freeze_last_layer_steps,
            "freeze_last_layer_steps",
        )
        self.student_temperature = checks.temperature(
            student_temperature, "student_temperature"
        )
        self.teacher_temperature = checks.temperature(
            teacher_temperature, "teacher_temperature"
        )
        self.initial_teacher_temperature = checks.temperature(
            initial_teacher_temperature, "initial_teacher_temperature"
        )
        warmup = warmup_teacher_temperature_steps
        self.warmup_teacher_temperature_steps = checks.count(
            steps // 10 if warmup is None else warmup, "warmup_teacher_temperature_steps"
        )
        self.teacher_momentum = arguments.rate(teacher_momentum, "teacher_momentum")
        self.center_momentum = arguments.rate(center_momentum, "center_momentum")
        self.num_local_views = checks.count(num_local_views, "num_local_views")
        self.local_image_size = checks.local_size(encoder, local_image_size)

        self.teacher_entropy = keras.metrics.Mean(name="teacher_entropy")
        self.kl_divergence = keras.metrics.Mean(name="kl_divergence")
        head = {
            "output_dim": output_dim,
            "hidden_dim": projection_hidden_dim,
            "bottleneck_dim": bottleneck_dim,
            "norm_last_layer": norm_last_layer,
            "dtype": self.dtype_policy,
        }
        self.projection_head = ProjectionHead(**head, name="projection_head")
        with waiting_for_values():
            self.teacher = _copy(encoder)
            self.teacher_projection_head = ProjectionHead(
                **head, name="teacher_projection_head"
            )
        self.build(encoder.input_shape)
        weight_paths.mark(self, f"{self.name}/")
        weight_paths.mark_part(self.teacher, "teacher")
        for own, theirs in self._teacher_pairs():
            # A copy: on JAX two variables must not share an array.
            own.assign(ops.copy(theirs.value))

    def build(self, images_shape: Shape) -> None:
        if self.projection_head.built:
            return
        features = self.encoder.output_shape
        self.projection_head.build(features)
        with waiting_for_values():
            self.teacher_projection_head.build(features)
        fixed = {"trainable": False, "aggregation": "only_first_replica"}
        self.center = self.add_weight(
            name="center",
            shape=(self.projection_head.output_dim,),
            dtype="float32",
            initializer="zeros",
            autocast=False,  # to half precision, which would round it at each update
            **fixed,
        )
        self.step = self.add_weight(
            name="step", shape=(), dtype="int32", initializer="zeros", **fixed
        )

    @property
    def kept_encoder(self) -> VisionTransformer:
        """The teacher, which the paper evaluates and publishes."""
        return self.teacher

    # The computation.

    def call(
        self, views: Mapping[str, Tensor], training: bool | None = None
    ) -> dict[str, Tensor]:
        logits = self.logits(views, training=training)
        teacher = (logits["teacher"] - self.center) / self._temperature_of_teacher()
        log_teacher = ops.log_softmax(teacher, axis=-1)  # (batch, 2, output_dim)
        teacher = ops.exp(log_teacher)
        entropy = ops.mean(-ops.sum(teacher * log_teacher, axis=-1), axis=1)  # (batch,)
        student = logits["student"] / self.student_temperature
        cross_entropy = _mean_cross_entropy(teacher, student)  # (batch,)
        if training and not in_symbolic_scope():
            self._move_center(logits["teacher"])
        return {
            "teacher_entropy": entropy,
            "kl_divergence": cross_entropy - entropy,
            "loss": ops.mean(cross_entropy),
        }

    def logits(
        self, views: Mapping[str, Tensor], training: bool | None = None
    ) -> dict[str, Tensor]:
        """The outputs of both heads, before centring and temperatures.

        Args:
            views: see the class.
            training: bool, whether the student drops what its rates say.

        Returns:
            A dictionary of `"student"`, float32 (batch, 2 + num_local_views, output_dim),
            of the global views, then the local ones, and `"teacher"`, float32 (batch, 2,
            output_dim), of which no gradient is taken.
        """
        checks.check_views(views, self._view_shapes())
        features = [self._features(views[name], training) for name in self._view_shapes()]
        features = features[0] if len(features) == 1 else ops.concatenate(features, axis=1)
        is_frozen = None
        if training and self.freeze_last_layer_steps:
            is_frozen = self.step < self.freeze_last_layer_steps
        student = self.projection_head(features, is_last_layer_frozen=is_frozen)
        with kernels.without_gradients():
            images, shape = _as_batch(views["global"])
            features = self.teacher(images, training=False)
            teacher = self.teacher_projection_head(features, training=False)
        teacher = ops.reshape(ops.stop_gradient(teacher), (*shape, teacher.shape[-1]))
        return {"student": student, "teacher": teacher}

    def _features(self, views, training):
        """The student's features of views of one size, (batch, views, dim)."""
        images, shape = _as_batch(views)
        if tuple(images.shape[1:]) == tuple(self.encoder.input_shape[1:]):
            features = self.encoder(images, training=training)
        else:
            features = pooled_features(self.encoder, images)
        return ops.reshape(features, (*shape, features.shape[-1]))

    def _temperature_of_teacher(self):
        """The teacher's temperature in this step of the warm-up, a scalar."""
        if not self.warmup_teacher_temperature_steps:
            return self.teacher_temperature
        done = ops.cast(self.step, "float32") / self.warmup_teacher_temperature_steps
        first, last = self.initial_teacher_temperature, self.teacher_temperature
        return first + (last - first) * ops.minimum(done, 1.0)

    def _move_center(self, teacher):
        mean = mean_over_devices(ops.mean(teacher, axis=(0, 1)))
        momentum = self.center_momentum
        center = momentum * ops.convert_to_tensor(self.center) + (1 - momentum) * mean
        assign_on_devices([self.center], [center])

    # Training.

    def after_update(self, is_update: Tensor) -> None:
        """Moves the teacher towards the student.

        Args:
            is_update: see `AfterUpdate`.
        """
        done = ops.minimum(ops.cast(self.step, "float32") / self.steps, 1.0)
        rate = (1 - self.teacher_momentum) * (1 + ops.cos(math.pi * done)) / 2
        rate = ops.where(is_update, rate, 0.0)
        step = self.step + ops.cast(is_update, "int32")
        pairs = self._teacher_pairs()
        moved = [own.value + (theirs.value - own.value) * rate for own, theirs in pairs]
        own = [own for own, _ in pairs]
        assign_on_devices([*own, self.step], [*moved, step])

    def _teacher_pairs(self):
        """(weight of the teacher, the student's) of each weight."""
        teacher = (*self.teacher.weights, *self.teacher_projection_head.weights)
        student = (*self.encoder.weights, *self.projection_head.weights)
        return list(zip(teacher, student, strict=True))

    @for_several_devices
    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The loss of a batch's outputs, and the penalties of regularizers."""
        return sum(self.losses, start=y_pred["loss"])

    @for_several_devices
    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Updates the metrics by a batch's outputs, and returns their values."""
        for metric in (self.teacher_entropy, self.kl_divergence):
            metric.update_state(y_pred[metric.name])
        return super().compute_metrics(x, y, y_pred, sample_weight)

    # The optimizer trains the student alone, whatever `trainable` says of the teacher: this
    # is kept, and a file of it must not be of a frozen model.

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables of the student that are trained."""
        return self._of_student(super().trainable_variables)

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The weights of the student that are trained."""
        return self._of_student(super().trainable_weights)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All other variables, with the teacher's."""
        trained = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in trained]

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """All other weights, with the teacher's."""
        trained = {id(weight) for weight in self.trainable_weights}
        return [weight for weight in self.weights if id(weight) not in trained]

    def _of_student(self, variables):
        parts = (self.teacher, self.teacher_projection_head)
        theirs = {id(variable) for part in parts for variable in part.variables}
        return [variable for variable in variables if id(variable) not in theirs]

    # Configuration.

    def symbolic_inputs(self) -> dict[str, Tensor]:
        """The `keras.Input`s of `call`."""
        return {n: keras.Input(s, name=n) for n, s in self._view_shapes().items()}

    def _view_shapes(self):
        """The shape of the views of an image, by their kind."""
        fields = self.encoder.fields
        shapes = {"global": (GLOBAL_VIEWS, *fields.input_shape)}
        if self.num_local_views:
            size, channels = self.local_image_size, fields.input_shape
            is_last = fields.data_format == "channels_last"
            local = (*size, channels[-1]) if is_last else (channels[0], *size)
            shapes["local"] = (self.num_local_views, *local)
        return shapes

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same model, without its weights."""
        own = (
            *("steps", "freeze_last_layer_steps", "student_temperature"),
            *("teacher_temperature", "initial_teacher_temperature"),
            *("warmup_teacher_temperature_steps", "teacher_momentum", "center_momentum"),
            *("num_local_views", "local_image_size"),
        )
        head = ("output_dim", "bottleneck_dim", "norm_last_layer")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in own},
            **{name: getattr(self.projection_head, name) for name in head},
            "projection_hidden_dim": self.projection_head.hidden_dim,
        }


def _copy(encoder):
    """A new model of an encoder's config, of which nothing is frozen."""
    config = {**encoder.get_config(), "name": f"{encoder.name}_teacher", "trainable": True}
    config.pop(TRAINABLE_PARTS, None)
    copy = type(encoder).from_config(config)
    shapes = [[tuple(w.shape) for w in model.weights] for model in (encoder, copy)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "The teacher is made of the encoder's config. Received: "
            f"{encoder.name!r} with other weights than its config has, such as LoRA's. "
            "Use the model before these were added."
        )
    return copy


def _as_batch(views):
    """Views (batch, views, …) as images (batch * views, …), and (batch, views)."""
    number = views.shape[1]
    return ops.reshape(views, (-1, *views.shape[2:])), (-1, number)


def _mean_cross_entropy(teacher, student):
    """The mean of the cross-entropies of all pairs of two views, (batch,).

    As probabilities sum to 1, -Σ q · log softmax(s) is logsumexp(s) - Σ q · s, and so no
    logarithm is kept for each view.

    Args:
        teacher: probabilities (batch, 2, outputs), of the first views.
        student: logits (batch, views, outputs).
    """
    norms = ops.logsumexp(student, axis=-1)  # (batch, views)
    all_norms, total = ops.sum(norms, axis=1), ops.sum(student, axis=1)
    views, number = teacher.shape[1], teacher.shape[1] * (student.shape[1] - 1)
    parts = [
        all_norms - norms[:, i] - ops.sum(teacher[:, i] * (total - student[:, i]), axis=-1)
        for i in range(views)
    ]
    return sum(parts) / number
