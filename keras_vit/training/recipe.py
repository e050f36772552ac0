"""`Recipe`: hyperparameters of a training, and the parts of `compile` and `fit`."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import keras

from keras_vit import arguments, deprecated
from keras_vit.data import Augmentation
from keras_vit.distribution.checks import check_gradient_accumulation
from keras_vit.training.averaging import SwapAveragedWeights, average_weights
from keras_vit.training.freezing import freeze
from keras_vit.training.layerwise import learning_rate_multipliers, scale_learning_rates
from keras_vit.training.lora import enable_lora
from keras_vit.training.losses import SigmoidCrossentropy
from keras_vit.training.optimizers import adapt
from keras_vit.training.schedules import PerUpdate, WarmupLinearDecay
from keras_vit.training.weight_decay import exclude_from_weight_decay
from keras_vit.weight_paths import HEADS

ALGORITHMS = ("sgd", "adam")
DECAYS = ("cosine", "linear")
LOSSES = ("softmax", "sigmoid")
# Fields of a recipe that are arguments of the model's constructor.
MODEL_ARGUMENTS = (
    *("dropout_rate", "attention_dropout_rate", "drop_path_rate", "rematerialize"),
    *("pooling", "position", "representation_size"),
)
# A decorator of the dataclasses: the field `image_size` was called `resolution`.
accepts_old_names = deprecated.renamed_arguments(resolution="image_size")


@accepts_old_names
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyperparameters of a training, and the parts of `compile` and `fit` made from them.

    Each paper's recipe is a subclass. `recipe.replace(steps=100)` returns a changed copy;
    `keras_vit.training.finetune` trains a model by a recipe.

    Attributes:
        steps: int, number of weight updates, each on `batch_size` examples.
        batch_size: int, examples per update.
        micro_batch_size: int, examples in memory at a time, a divisor of `batch_size`.
            Gradients are accumulated over `batch_size / micro_batch_size` micro-batches.
            `None` computes the whole batch at once.
        base_learning_rate: float, learning rate after the warm-up.
        warmup_steps: int, steps in which the learning rate rises linearly from 0.
        decay: `"cosine"`, to 0, or `"linear"`, to 1e-5, as in the ViT paper's code.
        algorithm: `"sgd"`, with momentum, or `"adam"`, with decoupled weight decay.
        momentum: float, momentum of SGD.
        beta_1: float, decay of Adam's first moment.
        beta_2: float, decay of Adam's second moment.
        weight_decay: float. Each step subtracts `learning_rate * weight_decay * weight`.
            Biases, norms, positions and tokens do not decay.
        global_clipnorm: float, largest norm of all gradients together; `None` does not
            clip.
        loss: `"softmax"`, cross-entropy of classes that exclude each other, or
            `"sigmoid"`, binary cross-entropy summed over the classes.
        label_smoothing: float in [0, 1), taken from the label and spread over all classes.
        image_size: int or (height, width), pixels of the model's input.
        augmentation: `keras_vit.data.Augmentation` of the training images.
        layerwise_decay: float in (0, 1], factor of the learning rate per layer away from
            the head, see `learning_rate_multipliers`; 1 gives all layers the same rate.
        ema_momentum: float in [0, 1), momentum of an exponential moving average of the
            weights, which the trained model has, see `average_weights`; `None` for no
            average.
        freeze: weights to train: `"linear"`, `"norms"` or a number of last blocks, see
            `training.freeze`; `None` trains all.
        lora_rank: int, rank of the low-rank updates of a frozen encoder, see
            `training.enable_lora`; `None` for no LoRA.
        dropout_rate, attention_dropout_rate, drop_path_rate, rematerialize, pooling,
            position, representation_size: arguments of the model, see
            `VisionTransformer`; `None` takes the model as it is. `pooling="avg"` is
            `"gap"`.
        init_head_bias: float, value of the head's bias before the first step; `None`
            leaves the bias as it is.

    Raises:
        ValueError: if a value is out of range, or two values contradict each other.

    Example:

    >>> recipe = keras_vit.training.VTAB()
    >>> model = keras_vit.ViTB16(
    ...     weights="imagenet21k", classes=37, classifier_activation=None,
    ...     input_shape=(recipe.image_size, recipe.image_size, 3),
    ...     **recipe.model_arguments())
    >>> loss = recipe.loss_function(model)
    >>> model.compile(recipe.optimizer(model), loss, metrics=["accuracy"])
    """

    steps: int
    batch_size: int = 512
    micro_batch_size: int | None = None
    base_learning_rate: float
    warmup_steps: int = 0
    decay: str = "cosine"
    algorithm: str = "sgd"
    momentum: float = 0.9
    beta_1: float = 0.9
    beta_2: float = 0.999
    weight_decay: float = 0.0
    global_clipnorm: float | None = 1.0
    loss: str = "softmax"
    label_smoothing: float = 0.0
    image_size: int | tuple[int, int] = 384
    augmentation: Augmentation = field(default_factory=Augmentation)
    layerwise_decay: float = 1.0
    ema_momentum: float | None = None
    freeze: str | int | None = None
    lora_rank: int | None = None
    dropout_rate: float | None = None
    attention_dropout_rate: float | None = None
    drop_path_rate: float | None = None
    rematerialize: bool | None = None
    pooling: str | None = None
    position: str | None = None
    representation_size: int | None = None
    init_head_bias: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"`{name}` must be finite. Received: {name}={value}")
        if self.pooling == "avg":  # the name in `keras.applications`
            object.__setattr__(self, "pooling", "gap")
        for name in ("steps", "batch_size"):
            arguments.positive(getattr(self, name), name)
        arguments.one_of(self.algorithm, ALGORITHMS, "algorithm")
        arguments.one_of(self.decay, DECAYS, "decay")
        arguments.one_of(self.loss, LOSSES, "loss")
        arguments.rate(self.label_smoothing, "label_smoothing")
        arguments.pair(self.image_size, "image_size")
        micro_batch_size = self.micro_batch_size or self.batch_size
        arguments.positive(micro_batch_size, "micro_batch_size")
        if self.batch_size % micro_batch_size:
            raise ValueError(
                "`batch_size` must be divisible by `micro_batch_size`. Received: "
                f"batch_size={self.batch_size}, micro_batch_size={micro_batch_size}"
            )
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(
                "`warmup_steps` must be at least 0 and less than `steps`. Received: "
                f"warmup_steps={self.warmup_steps}, steps={self.steps}"
            )
        if self.base_learning_rate <= 0:
            raise ValueError(
                "`base_learning_rate` must be positive. Received: "
                f"base_learning_rate={self.base_learning_rate}"
            )
        if not 0 < self.layerwise_decay <= 1:
            raise ValueError(
                "`layerwise_decay` must be in (0, 1]. Received: "
                f"layerwise_decay={self.layerwise_decay}"
            )
        if self.freeze is not None and self.lora_rank is not None:
            raise ValueError(
                "`lora_rank` freezes the encoder already, so `freeze` must be None. "
                f"Received: freeze={self.freeze!r}, lora_rank={self.lora_rank}"
            )

    @property
    def resolution(self) -> int | tuple[int, int]:
        """Old name of `image_size`."""
        deprecated.warn("`resolution` of a recipe", "`image_size`")
        return self.image_size

    @property
    def gradient_accumulation_steps(self) -> int:
        """Number of micro-batches per update."""
        return self.batch_size // (self.micro_batch_size or self.batch_size)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restores a pickled recipe, also from before `image_size` had this name."""
        state = dict(state)
        if "resolution" in state:
            state["image_size"] = state.pop("resolution")
        vars(self).update(state)

    def replace(self, **changes: Any) -> Self:
        """Returns the recipe with other fields.

        Args:
            **changes: fields of the recipe. Other `steps` stretch the schedule:
                `warmup_steps` (and `decay_steps`) keep their share of `steps` unless they
                are given too.

        Raises:
            ValueError: if a value is out of range, or two values contradict each other.
        """
        if "steps" in changes:
            arguments.positive(changes["steps"], "steps")
            changes = {**self._schedule_fields(changes["steps"]), **changes}
        return dataclasses.replace(self, **changes)

    def _schedule_fields(self, steps):
        """The fields that count steps, rescaled to another number of them."""
        return {"warmup_steps": self.warmup_steps * steps // self.steps}

    def prepare(self, model: keras.Model) -> keras.Model:
        """Freezes weights, adds LoRA and sets the head's bias, as the recipe says.

        Args:
            model: a model of this package. It is changed in place.

        Returns:
            The same model.

        Raises:
            ValueError: if the model was built with other arguments than
                `model_arguments`.
        """
        self._check_arguments(model)
        if self.init_head_bias is not None:
            for bias in (layer.bias for layer in model.layers if layer.name in HEADS):
                bias.assign(keras.ops.full(bias.shape, self.init_head_bias))
        if self.lora_rank is not None:
            enable_lora(model, self.lora_rank)
        elif self.freeze is not None:
            freeze(model, self.freeze)
        return model

    def _check_arguments(self, model):
        config = model.get_config()
        asked = self.model_arguments()
        other = {k: config.get(k) for k, v in asked.items() if config.get(k) != v}
        if other:
            raise ValueError(
                "The model must be built with the arguments of the recipe. Expected: "
                f"{ {k: asked[k] for k in other} }. Received: a model with {other}. Build "
                "it with **recipe.model_arguments(), or change the recipe: "
                "recipe.replace(…)."
            )

    def model_arguments(self) -> dict[str, Any]:
        """The arguments that the recipe sets in the model's constructor."""
        asked = {name: getattr(self, name) for name in MODEL_ARGUMENTS}
        return {name: value for name, value in asked.items() if value is not None}

    def schedule(self) -> keras.optimizers.schedules.LearningRateSchedule:
        """The learning rate schedule, by update."""
        if self.decay == "linear":
            return WarmupLinearDecay(self.base_learning_rate, self.steps, self.warmup_steps)
        decay_steps = self.steps - self.warmup_steps
        if not self.warmup_steps:
            return keras.optimizers.schedules.CosineDecay(
                self.base_learning_rate, decay_steps
            )
        return keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps,
            warmup_target=self.base_learning_rate,
            warmup_steps=self.warmup_steps,
        )

    def optimizer(self, model: keras.Model) -> keras.optimizers.Optimizer:
        """The optimizer for `compile`.

        Args:
            model: a model of this package. Its layers determine which weights decay and
                their learning rates. It is not changed.

        Raises:
            ValueError: if the algorithm is Adam and the weights are in half precision, or
                gradients cannot be accumulated under the distribution.
        """
        self._check_dtype(model)
        optimizer = self._algorithm()
        adapt(optimizer)  # clipping under tf.distribute, also where no rule is set
        if self.weight_decay:
            exclude_from_weight_decay(optimizer, model)
        if self.layerwise_decay != 1:
            multipliers = learning_rate_multipliers(model, self.layerwise_decay)
            scale_learning_rates(optimizer, multipliers)
        if self.ema_momentum is not None:
            average_weights(optimizer, self.ema_momentum)
        return optimizer

    def _check_dtype(self, model):
        """Refuses Adam on half-precision weights: Keras keeps its moments in half, too."""
        dtype = model.dtype_policy.variable_dtype
        if dtype in ("float16", "bfloat16") and self.algorithm == "adam":
            raise ValueError(
                "Adam needs weights in float32: bfloat16 rounds beta_2=0.999 to 1, so that "
                "nothing is trained, and float16 rounds squared gradients to 0. Received: "
                f"a model of dtype {model.dtype_policy.name!r}. Use mixed_bfloat16 or "
                "mixed_float16, which keep weights in float32, or a recipe with SGD."
            )

    def _algorithm(self):
        schedule, common = self.schedule(), {"global_clipnorm": self.global_clipnorm}
        if self.gradient_accumulation_steps > 1:
            check_gradient_accumulation()
            steps = self.gradient_accumulation_steps
            schedule = PerUpdate(schedule, steps)
            common["gradient_accumulation_steps"] = steps
        common["weight_decay"] = self.weight_decay or None
        if self.algorithm == "sgd":
            return keras.optimizers.SGD(schedule, momentum=self.momentum, **common)
        betas = {"beta_1": self.beta_1, "beta_2": self.beta_2}
        return keras.optimizers.Adam(schedule, **betas, epsilon=1e-8, **common)

    def loss_function(self, model: keras.Model) -> keras.losses.Loss:
        """The loss for `compile`, of labels (batch, classes).

        Args:
            model: a model with a head. The loss is computed from logits if the head has
                `classifier_activation=None` (the most exact), otherwise from
                probabilities.

        Raises:
            ValueError: if the model has no head, or its activation does not fit the loss.
        """
        activation = _head_activation(model)
        if activation not in ("linear", self.loss):
            raise ValueError(
                f"A {self.loss} loss needs logits or the activation {self.loss!r}. "
                f"Received: a model whose head has the activation {activation!r}. Build it "
                "with classifier_activation=None."
            )
        kind = {
            "softmax": keras.losses.CategoricalCrossentropy,
            "sigmoid": SigmoidCrossentropy,
        }[self.loss]
        return kind(
            from_logits=activation == "linear", label_smoothing=self.label_smoothing
        )

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """The callbacks for `fit`."""
        if self.ema_momentum is None:
            return []
        return [SwapAveragedWeights()]


def _head_activation(model):
    names = {layer.name for layer in model.layers}
    if "head" not in names:
        raise ValueError(
            "The loss depends on the activation of the model's layer 'head'. Received: "
            f"the model {model.name!r}, which has none. Add one: "
            "keras_vit.from_pretrained(model, classes=10, classifier_activation=None)."
        )
    # With two heads the activation is that of their average.
    last = model.get_layer("head_activation" if "head_activation" in names else "head")
    return keras.activations.serialize(last.activation)
