"""Recipes of pre-training without labels, one dataclass for each paper."""

import math
from dataclasses import dataclass, field
from typing import Any, Self

import keras

from keras_vit import arguments
from keras_vit.data import Augmentation
from keras_vit.training.recipe import Recipe
from keras_vit.training.recipes import NUM_EXAMPLES, num_steps
from keras_vit.training.weight_decay import raise_weight_decay

# Fields of `Recipe` that are about labels or about a model that is trained already.
LABELLED = ("loss", "label_smoothing", "init_head_bias", "layerwise_decay", "freeze")
LABELLED += ("lora_rank", "representation_size")
# MAE's rate of 1.5e-4 for each 256 images, at its batch of 4096.
_RATE, _BATCH_SIZE = 1.5e-4 * 16, 4096


@dataclass(frozen=True, kw_only=True)
class SelfSupervisedRecipe(Recipe):
    """Hyperparameters of a training without labels.

    Attributes: see `Recipe`. Those on labels and classes (`loss`, `label_smoothing`,
    `init_head_bias`) and on models that are trained already (`layerwise_decay`, `freeze`,
    `lora_rank`) must have their default values.

    Raises:
        ValueError: also if one of these has another value.
    """

    batch_size: int = 4096
    algorithm: str = "adam"
    global_clipnorm: float | None = None
    image_size: int | tuple[int, int] = 224

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in LABELLED:
            default = Recipe.__dataclass_fields__[name].default
            if (value := getattr(self, name)) != default:
                raise ValueError(
                    f"Training without labels has no `{name}`. Received: {name}={value!r}. "
                    "Leave it out."
                )
        if self.augmentation.mixes:
            raise ValueError(
                "MixUp and CutMix mix labels, and there are none. Received: mixup_alpha="
                f"{self.augmentation.mixup_alpha}, cutmix_alpha="
                f"{self.augmentation.cutmix_alpha}. Set both to 0."
            )


@dataclass(frozen=True, kw_only=True)
class MaskedPatchPreTraining(SelfSupervisedRecipe):
    """Masked patch prediction as in the ViT paper: Adam, batch 4096, a million steps.

    Source: ViT (arXiv 2010.11929), appendix B.1.2: 14 epochs of JFT-300M, a learning rate
    of 2e-4, a warm-up of 10,000 steps, cosine decay. The paper states no weight decay and
    no clipping. The crops are those of its code's other pre-trainings.

    Command: `keras-vit pretrain my_images --objective masked_patch_prediction --model
    ViTB16 --recipe paper --output runs/mpp`, which takes a cluster

    Published: ViT-B/16 (JFT-300M), fine-tuned on ImageNet at 384 pixels: 79.9 %.
    """

    steps: int = 1_000_000
    warmup_steps: int = 10_000
    base_learning_rate: float = 2e-4


@dataclass(frozen=True, kw_only=True)
class MAEPreTraining(SelfSupervisedRecipe):
    """Masked autoencoding as in *Masked Autoencoders Are Scalable Vision Learners*.

    Source: MAE (arXiv 2111.06377), appendix A.1, Table 8: AdamW with beta_2 of 0.95, weight
    decay 0.05, a learning rate of 1.5e-4 for each 256 images of the batch, 40 epochs of
    warm-up, cosine decay, batch 4096, 800 epochs of ImageNet, crops of 20 % or more and
    mirroring; fixed positions (appendix A.1).

    Command: `keras-vit pretrain imagenet2012 --objective masked_autoencoder --model ViTB16
    --recipe paper --output runs/mae`, which takes a cluster

    Published, fine-tuned on ImageNet at 224 pixels after 1600 epochs: ViT-B/16 83.6 %,
    ViT-L/16 85.9 %, ViT-H/14 86.9 %.
    """

    steps: int = num_steps(800, NUM_EXAMPLES["imagenet2012"], 4096)
    warmup_steps: int = num_steps(40, NUM_EXAMPLES["imagenet2012"], 4096)
    base_learning_rate: float = 1.5e-4 * 16
    beta_2: float = 0.95
    weight_decay: float = 0.05
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(crop_area=(0.2, 1.0))
    )
    position: str | None = "sincos2d"

    @classmethod
    def for_examples(cls, num_examples: int, epochs: float = 800, **changes: Any) -> Self:
        """The recipe for a number of training images.

        Args:
            num_examples: int, images in the training set.
            epochs: passes over them; in the paper 800 or 1600. A twentieth is the warm-up.
            **changes: other fields of the recipe. `batch_size` also changes `steps` and the
                learning rate.

        Raises:
            ValueError: if `num_examples` is not positive.
        """
        arguments.positive(num_examples, "num_examples")
        batch_size = changes.get("batch_size", cls.batch_size)
        steps = changes.get("steps", num_steps(epochs, num_examples, batch_size))
        numbers = {
            "steps": steps,
            "warmup_steps": steps // 20,
            "base_learning_rate": 1.5e-4 * batch_size / 256,
        }
        return cls(**{**numbers, **changes})


@dataclass(frozen=True, kw_only=True)
class DINOPreTraining(SelfSupervisedRecipe):
    """Self-distillation as in *Emerging Properties in Self-Supervised Vision Transformers*.

    Source: DINO (arXiv 2104.14294), section 3.2, *Implementation details*: AdamW, batch
    1024, a learning rate of 5e-4 for each 256 images of the batch, 10 epochs of warm-up,
    cosine decay; weight decay that rises from 0.04 to 0.4; 300 epochs of ImageNet. From its
    code: a last learning rate of 1e-6, the gradient of each weight clipped to norm 3,
    stochastic depth 0.1. `augmentation.crop_area` is that of the global views.

    Command: `keras-vit pretrain imagenet2012 --objective self_distillation --model ViTS16
    --recipe paper --output runs/dino`, which takes a cluster

    Published, on ImageNet with 20 nearest neighbours and a linear classifier: ViT-S/16
    74.5 % and 77.0 % (800 epochs), ViT-B/16 76.1 % and 78.2 %.

    Attributes: see `Recipe`, and:
        clipnorm: float, norm to which the gradient of each weight is clipped; `None` for
            no clipping.
        final_weight_decay: float, weight decay after `steps`; `None` for a constant one.
        end_learning_rate: float, learning rate after `steps`, under `decay="cosine"`.
    """

    steps: int = num_steps(300, NUM_EXAMPLES["imagenet2012"], 1024)
    warmup_steps: int = num_steps(10, NUM_EXAMPLES["imagenet2012"], 1024)
    batch_size: int = 1024
    base_learning_rate: float = 5e-4 * 4
    weight_decay: float = 0.04
    drop_path_rate: float | None = 0.1
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(crop_area=(0.4, 1.0))
    )
    clipnorm: float | None = 3.0
    final_weight_decay: float | None = 0.4
    end_learning_rate: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clipnorm is not None and self.global_clipnorm is not None:
            raise ValueError(
                "Gradients are clipped one by one or all together. Received: clipnorm="
                f"{self.clipnorm}, global_clipnorm={self.global_clipnorm}. Set one to None."
            )

    @classmethod
    def for_examples(cls, num_examples: int, epochs: float = 300, **changes: Any) -> Self:
        """The recipe for a number of training images.

        Args:
            num_examples: int, images in the training set.
            epochs: passes over them; in the paper 100 to 800.
            **changes: other fields of the recipe. `batch_size` also changes `steps` and the
                learning rate.

        Raises:
            ValueError: if `num_examples` is not positive.
        """
        arguments.positive(num_examples, "num_examples")
        batch_size = changes.get("batch_size", cls.batch_size)
        steps = changes.get("steps", num_steps(epochs, num_examples, batch_size))
        numbers = {
            "steps": steps,
            "warmup_steps": min(num_steps(10, num_examples, batch_size), steps // 10),
            "base_learning_rate": 5e-4 * batch_size / 256,
        }
        return cls(**{**numbers, **changes})

    @classmethod
    def for_one_machine(cls, num_examples: int, **changes: Any) -> Self:
        """The recipe with the batch and the steps of `SmallPreTraining`.

        Args:
            num_examples: int, images in the training set.
            **changes: see `for_examples`.
        """
        given = {n: changes[n] for n in ("batch_size", "steps") if n in changes}
        small = SmallPreTraining.for_examples(num_examples, **given)
        numbers = {"batch_size": small.batch_size, "steps": small.steps}
        return cls.for_examples(num_examples, **{**numbers, **changes})

    def schedule(self) -> keras.optimizers.schedules.LearningRateSchedule:
        """The learning rate schedule, by update."""
        schedule = super().schedule()
        if self.decay == "cosine":
            schedule.alpha = self.end_learning_rate / self.base_learning_rate
        return schedule

    def optimizer(self, model: keras.Model) -> keras.optimizers.Optimizer:
        """The optimizer for `compile`, see `Recipe.optimizer`."""
        optimizer = super().optimizer(model)
        optimizer.clipnorm = self.clipnorm
        if self.final_weight_decay is not None and self.weight_decay:
            raise_weight_decay(optimizer, self.final_weight_decay, self.steps)
        return optimizer


@dataclass(frozen=True, kw_only=True)
class SmallPreTraining(SelfSupervisedRecipe):
    """Pre-training without labels on your own images, on one machine.

    Not from one paper: the hyperparameters of MAE (arXiv 2111.06377, appendix A.1), with
    batches that fit on one accelerator, and a learning rate that follows the square root of
    the batch, as suits Adam. `SmallPreTraining.for_examples` chooses the length by the size
    of the data set: fewer images, more epochs.

    Command: `keras-vit pretrain my_images --model ViTS16 --output runs/pretrained`
    """

    steps: int = 2000
    warmup_steps: int = 100
    batch_size: int = 64
    base_learning_rate: float = _RATE * math.sqrt(64 / _BATCH_SIZE)
    beta_2: float = 0.95
    weight_decay: float = 0.05
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(crop_area=(0.2, 1.0))
    )

    @classmethod
    def for_examples(cls, num_examples: int, **changes: Any) -> Self:
        """The recipe for a number of training images.

        Args:
            num_examples: int, images in the training set.
            **changes: other fields of the recipe. `batch_size` also changes `steps` and the
                learning rate.

        Raises:
            ValueError: if `num_examples` is not positive.
        """
        arguments.positive(num_examples, "num_examples")
        if num_examples < 2000:
            batch_size, epochs, least = 64, 200, 2000
        elif num_examples < 20_000:
            batch_size, epochs, least = 128, 100, 6000
        else:
            batch_size, epochs, least = 256, 50, 15_000
        batch_size = changes.get("batch_size", batch_size)
        steps = max(least, num_steps(epochs, num_examples, batch_size))
        steps = changes.get("steps", steps)
        numbers = {
            "batch_size": batch_size,
            "steps": steps,
            "warmup_steps": steps // 20,
            "base_learning_rate": _RATE * math.sqrt(batch_size / _BATCH_SIZE),
        }
        return cls(**{**numbers, **changes})
