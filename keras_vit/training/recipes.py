"""Recipes of published trainings, one dataclass each."""

from dataclasses import dataclass, field
from typing import Any, Self

from keras_vit import arguments, deprecated
from keras_vit.data import Augmentation
from keras_vit.models.sizes import SIZES
from keras_vit.training.recipe import Recipe, accepts_old_names
from keras_vit.training.schedules import WarmupStepDecay

IMAGENET, IMAGENET_21K, JFT_300M = "imagenet2012", "imagenet21k", "jft300m"
NUM_EXAMPLES = {IMAGENET: 1_281_167, IMAGENET_21K: 14_197_122, JFT_300M: 303_000_000}


def num_steps(epochs: float, num_examples: int, batch_size: int) -> int:
    """Number of updates in `epochs` passes over a data set, at least 1."""
    return max(1, round(epochs * num_examples / batch_size))


# Fine-tuning.

# TFDS name: (steps, warm-up steps, learning rates that the paper searches).
FINE_TUNING = {
    "imagenet2012": (20_000, 500, (0.003, 0.01, 0.03, 0.06)),
    "cifar10": (10_000, 500, (0.001, 0.003, 0.01, 0.03)),
    "cifar100": (10_000, 500, (0.001, 0.003, 0.01, 0.03)),
    "oxford_iiit_pet": (500, 100, (0.001, 0.003, 0.01, 0.03)),
    "oxford_flowers102": (500, 100, (0.001, 0.003, 0.01, 0.03)),
}


@accepts_old_names
@dataclass(frozen=True, kw_only=True)
class ViTFineTuning(Recipe):
    """Fine-tuning as in the ViT paper: SGD with momentum, cosine decay, no weight decay.

    Source: ViT (arXiv 2010.11929), section 4.1, appendix B.1.1 and Table 4; warm-up and
    crops from the code (BigVision's `transfer`). `ViTFineTuning.for_data` has the
    hyperparameters of the paper's data sets.

    Command: `keras-vit finetune oxford_flowers102 --model ViTB32 --weights
    augreg_imagenet21k --recipe vit --base-learning-rate 0.003 --output runs/flowers`

    Published: ViT-L/16 (ImageNet-21k) ImageNet 85.30 %, CIFAR-10 99.15, CIFAR-100 93.25,
    Pets 94.67, Flowers 99.61. ViT-B/32 of AugReg, mean of five runs: ImageNet 83.27
    (learning rate 0.03), CIFAR-10 98.55 (0.003), CIFAR-100 91.35 (0.01), Pets 93.78
    (0.003), Flowers 99.43 (0.003); the CIFARs with `crop="random"`.
    """

    steps: int = 10_000
    warmup_steps: int = 500
    base_learning_rate: float = 0.03

    @classmethod
    @deprecated.renamed_arguments(learning_rate="base_learning_rate")
    def for_data(
        cls, name: str, base_learning_rate: float | None = None, **changes: Any
    ) -> Self:
        """The recipe for one of the paper's data sets.

        Args:
            name: name of the data set in TFDS, one of `FINE_TUNING`.
            base_learning_rate: float; `None` for the best one of AugReg's ViT-B/32. The
                paper chooses among the four in `FINE_TUNING`, on held-out training
                examples.
            **changes: other fields of the recipe.

        Raises:
            ValueError: if the paper has no such data set.
        """
        arguments.one_of(name, FINE_TUNING, "name")
        steps, warmup_steps, _ = FINE_TUNING[name]
        best = {"imagenet2012": 0.03, "cifar100": 0.01}.get(name, 0.003)
        if name.startswith("cifar"):
            changes = {"augmentation": Augmentation(crop="random"), **changes}
        numbers = {"steps": steps, "warmup_steps": warmup_steps}
        rate = best if base_learning_rate is None else base_learning_rate
        return cls(**{**numbers, "base_learning_rate": rate, **changes})


@accepts_old_names
@dataclass(frozen=True, kw_only=True)
class VTAB(Recipe):
    """Transfer to VTAB-1k, with the same hyperparameters for each task.

    Source: ViT (arXiv 2010.11929), Table 4 and appendix B.1.1; VTAB (arXiv 1910.04867).
    It trains on all 1,000 examples of a task. Images are resized, not cropped or flipped,
    as some tasks ask where an object is.

    Command: `keras-vit vtab --model ViTL16.imagenet21k --protocol finetune --output
    vtab/l16`

    Published, mean of the 19 tasks: ViT-H/14 (JFT) 77.63 %, ViT-L/16 (JFT) 76.28,
    ViT-L/16 (ImageNet-21k) 72.72.
    """

    steps: int = 2500
    warmup_steps: int = 100
    base_learning_rate: float = 0.01
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(
            crop="resize", flip=False, evaluation_crop="resize"
        )
    )


@accepts_old_names
@dataclass(frozen=True, kw_only=True)
class SmallData(Recipe):
    """Fine-tuning on your own images, on one machine.

    Not from one paper: Adam with decoupled weight decay, layer-wise learning rates (MAE,
    arXiv 2111.06377, appendix A.1), label smoothing, and batches that fit on one
    accelerator. `SmallData.for_examples` chooses hyperparameters by the size of the data
    set: fewer examples, more epochs.

    Command: `keras-vit finetune my_images --model ViTB16 --weights
    augreg_imagenet21k --output runs/mine`
    """

    steps: int = 500
    warmup_steps: int = 50
    batch_size: int = 32
    base_learning_rate: float = 1e-4
    algorithm: str = "adam"
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    layerwise_decay: float = 0.75
    image_size: int | tuple[int, int] = 224
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(crop_area=(0.35, 1.0))
    )

    @classmethod
    def for_examples(cls, num_examples: int, **changes: Any) -> Self:
        """The recipe for a number of training examples.

        Args:
            num_examples: int, images in the training set.
            **changes: other fields of the recipe. `batch_size` also changes `steps`.

        Raises:
            ValueError: if `num_examples` is not positive.
        """
        arguments.positive(num_examples, "num_examples")
        if num_examples < 2000:
            batch_size, epochs, least = 32, 30, 300
        elif num_examples < 20_000:
            batch_size, epochs, least = 64, 15, 900
        else:
            batch_size, epochs, least = 128, 8, 2300
        batch_size = changes.get("batch_size", batch_size)
        steps = max(least, num_steps(epochs, num_examples, batch_size))
        numbers = {"batch_size": batch_size, "steps": steps}
        numbers["warmup_steps"] = changes.get("steps", steps) // 10
        return cls(**{**numbers, **changes})


SMALL, MEDIUM = 20_000, 500_000  # BiT: a data set is small, or medium, below


@accepts_old_names
@dataclass(frozen=True, kw_only=True)
class BiTHyperRule(Recipe):
    """Fine-tuning of BiT models by one rule for every data set.

    Source: BiT (arXiv 1912.11370), section 3.3. `BiTHyperRule.for_data` chooses
    hyperparameters by the data set. Training images are resized to a square and randomly
    cropped; test images are resized to the size of the crop.

    Command: `keras-vit finetune oxford_flowers102 --model BiTR50x1 --weights imagenet21k
    --recipe bit --output runs/flowers`

    Published: BiT-L R152x4 ImageNet 87.54 %, CIFAR-10 99.37 %.

    Attributes:
        decay_steps: steps after which the learning rate is divided by 10. They replace
            `decay`.

    Example:

    >>> rule = BiTHyperRule.for_data(num_examples=1020, source_size=(500, 667))
    >>> rule.steps, rule.image_size
    (500, 480)
    """

    decay_steps: tuple[int, ...]
    base_learning_rate: float = 0.003
    global_clipnorm: float | None = None

    @classmethod
    def for_data(
        cls,
        num_examples: int,
        source_size: int | tuple[int, int] | None = None,
        **changes: Any,
    ) -> Self:
        """The recipe for a data set.

        Args:
            num_examples: int, images in the training set.
            source_size: int or (height, width), pixels of the data set's images before
                they are resized; a typical size if they vary.
            **changes: other fields of the recipe.

        Raises:
            ValueError: if `num_examples` or `source_size` is not positive.
        """
        arguments.positive(num_examples, "num_examples")
        if source_size is None and "image_size" in changes:  # the old name
            deprecated.warn("The argument `image_size`", "`source_size`")
            source_size = changes.pop("image_size")
        height, width = arguments.pair(source_size, "source_size")
        resize, crop = (160, 128) if height * width < 96 * 96 else (512, 480)
        if num_examples < SMALL:
            warmup_steps, *decay_steps, steps = 100, 200, 300, 400, 500
        elif num_examples < MEDIUM:
            warmup_steps, *decay_steps, steps = 500, 3000, 6000, 9000, 10_000
        else:
            warmup_steps, *decay_steps, steps = 500, 6000, 12_000, 18_000, 20_000
        augmentation = Augmentation(
            crop="square",
            resize_factor=resize / crop,
            evaluation_crop="resize",
            mixup_alpha=0.0 if num_examples < SMALL else 0.1,
        )
        numbers = {
            "steps": steps,
            "warmup_steps": warmup_steps,
            "decay_steps": tuple(decay_steps),
            "image_size": crop,
            "augmentation": augmentation,
        }
        return cls(**{**numbers, **changes})

    def _schedule_fields(self, steps):
        decay_steps = tuple(step * steps // self.steps for step in self.decay_steps)
        return {**super()._schedule_fields(steps), "decay_steps": decay_steps}

    def schedule(self) -> WarmupStepDecay:
        """The learning rate schedule, by update."""
        return WarmupStepDecay(self.base_learning_rate, self.warmup_steps, self.decay_steps)


# Training from scratch.


@accepts_old_names
@dataclass(frozen=True, kw_only=True)
class DeiT(Recipe):
    """Training on ImageNet alone, by the labels or with a teacher.

    Source: DeiT (arXiv 2012.12877), Table 9: AdamW with a learning rate of 5e-4 for each
    512 images of a batch, 300 epochs of which 5 warm up, strong augmentation. Not here are
    repeated augmentation, random erasing, and the noise of 0.5 in RandAugment's strength
    of 9; of MixUp and CutMix each batch uses one.

    Command: `keras-vit finetune imagenet2012 --model ViTS16 --weights none --recipe deit
    --set distilled=true --teacher runs/teacher --output runs/deit`

    Published, ImageNet: Ti/16 72.2 %, S/16 79.8, B/16 81.8; with a distillation token and
    RegNetY-16GF as the teacher 74.5, 81.2 and 83.4.
    """

    steps: int = num_steps(300, NUM_EXAMPLES[IMAGENET], 1024)
    batch_size: int = 1024
    warmup_steps: int = num_steps(5, NUM_EXAMPLES[IMAGENET], 1024)
    base_learning_rate: float = 1e-3
    algorithm: str = "adam"
    weight_decay: float = 0.05
    global_clipnorm: float | None = None
    label_smoothing: float = 0.1
    image_size: int | tuple[int, int] = 224
    drop_path_rate: float | None = 0.1
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(
            crop_area=(0.08, 1.0),
            randaugment=(2, 9),
            mixup_alpha=0.8,
            cutmix_alpha=1.0,
            resize_factor=256 / 224,
            evaluation_interpolation="bicubic",
        )
    )

    @classmethod
    def for_examples(cls, num_examples: int, epochs: float = 300, **changes: Any) -> Self:
        """The recipe for a number of training examples.

        Args:
            num_examples: int, images in the training set.
            epochs: passes over them, a sixtieth of which warms up.
            **changes: other fields of the recipe. `batch_size` also changes `steps` and
                `base_learning_rate`.

        Raises:
            ValueError: if `num_examples` is not positive.
        """
        arguments.positive(num_examples, "num_examples")
        batch_size = changes.get("batch_size", cls.batch_size)
        steps = changes.get("steps", num_steps(epochs, num_examples, batch_size))
        numbers = {
            "steps": steps,
            "warmup_steps": steps // 60,
            "base_learning_rate": 5e-4 * batch_size / 512,
        }
        return cls(**{**numbers, **changes})


# Pre-training.

# (models, data, epochs, learning rate, decay, weight decay, dropout) of Table 3.
PRE_TRAINING = (
    (("ViTB16", "ViTB32"), JFT_300M, (7,), 8e-4, "linear", 0.1, 0.0),
    (("ViTL32",), JFT_300M, (7,), 6e-4, "linear", 0.1, 0.0),
    (("ViTL16",), JFT_300M, (14, 7), 4e-4, "linear", 0.1, 0.0),
    (("ViTH14",), JFT_300M, (14,), 3e-4, "linear", 0.1, 0.0),
    (("R50ViTB16", "R50ViTB32"), JFT_300M, (7,), 8e-4, "linear", 0.1, 0.0),
    (("R50ViTL32",), JFT_300M, (7,), 2e-4, "linear", 0.1, 0.0),
    (("R50ViTL16",), JFT_300M, (14, 7), 4e-4, "linear", 0.1, 0.0),
    (("ViTB16", "ViTB32"), IMAGENET_21K, (90,), 1e-3, "linear", 0.03, 0.1),
    (("ViTL16", "ViTL32"), IMAGENET_21K, (90, 30), 1e-3, "linear", 0.03, 0.1),
    (
        ("ViTB16", "ViTB32", "ViTL16", "ViTL32", "ViTH14"),
        IMAGENET,
        (300,),
        3e-3,
        "cosine",
        0.3,
        0.1,
    ),
)


@accepts_old_names
@dataclass(frozen=True, kw_only=True)
class PreTraining(Recipe):
    """Hyperparameters that Google's pre-trainings on ImageNet-21k and JFT-300M share."""

    batch_size: int = 4096
    warmup_steps: int = 10_000
    algorithm: str = "adam"
    loss: str = "sigmoid"
    image_size: int | tuple[int, int] = 224
    init_head_bias: float | None = -10.0


@accepts_old_names
@dataclass(frozen=True, kw_only=True)
class ViTPreTraining(PreTraining):
    """Pre-training as in the ViT paper: Adam, batch 4096, warm-up of 10,000 steps.

    Source: ViT (arXiv 2010.11929), section 4.1, appendix B.1 and Table 3.
    `ViTPreTraining.for_model` has the row of a model and a data set. On ImageNet-21k and
    JFT-300M the loss is binary cross-entropy summed over the classes, the head's bias
    starts at -10 (`init_head_bias`), and a tanh layer of width `hidden_dim` precedes it.

    It takes a cluster, so there is no command. Pass `recipe.optimizer(model)` and the
    other parts to `compile` and `fit` under a distribution.

    Published, fine-tuned on ImageNet: ViT-H/14 (JFT-300M) 88.55 %, ViT-L/16 (JFT-300M)
    87.76, ViT-L/16 (ImageNet-21k) 85.30.
    """

    decay: str = "linear"
    global_clipnorm: float | None = None

    @classmethod
    def for_model(
        cls,
        model: str,
        data: str = IMAGENET_21K,
        epochs: int | None = None,
        num_examples: int | None = None,
        **changes: Any,
    ) -> Self:
        """The recipe for a model and a data set of the paper.

        Args:
            model: name of an architecture, such as `"ViTB16"`.
            data: `"imagenet2012"`, `"imagenet21k"` or `"jft300m"`.
            epochs: int, passes over the data; `None` for the paper's longest run.
            num_examples: int, images in the training set; `None` for the whole data set
                (1,281,167, 14,197,122 or about 303 million).
            **changes: other fields of the recipe.

        Raises:
            ValueError: if the paper's Table 3 has no such row.
        """
        arguments.one_of(data, NUM_EXAMPLES, "data")
        rows = [row for row in PRE_TRAINING if row[1] == data]
        row = next((row for row in rows if model in row[0]), None)
        if row is None:
            models = sorted({name for row in rows for name in row[0]})
            arguments.one_of(model, models, "model")
        _, _, epochs_of_the_paper, rate, decay, weight_decay, dropout_rate = row
        num_examples = num_examples or NUM_EXAMPLES[data]
        epochs = epochs or epochs_of_the_paper[0]
        batch_size = changes.get("batch_size", cls.batch_size)
        numbers = {
            "steps": num_steps(epochs, num_examples, batch_size),
            "base_learning_rate": rate,
            "decay": decay,
            "weight_decay": weight_decay,
            "dropout_rate": dropout_rate,
        }
        if data == IMAGENET:  # single labels, and clipping: the notes of Table 3
            numbers |= {"loss": "softmax", "init_head_bias": None, "global_clipnorm": 1.0}
        size = model.split("ViT")[1][0]  # as in "R50ViTB16"
        numbers["representation_size"] = SIZES[size]["hidden_dim"]
        return cls(**{**numbers, **changes})


# Name: (RandAugment's (layers, magnitude), MixUp's alpha).
AUGREG_AUGMENTATIONS = {
    "none": (None, 0.0),
    "light1": ((2, 0), 0.0),
    "light2": ((2, 10), 0.2),
    "medium1": ((2, 15), 0.2),
    "medium2": ((2, 15), 0.5),
    "strong1": ((2, 20), 0.5),
    "strong2": ((2, 20), 0.8),
}


@accepts_old_names
@dataclass(frozen=True, kw_only=True)
class AugReg(PreTraining):
    """Pre-training with augmentation and regularisation, as in *How to train your ViT?*

    Source: AugReg (arXiv 2106.10270), sections 3 and 4 and appendix; the code of
    BigVision. `AugReg.of` takes the settings that the paper's file names state.

    It takes a cluster, so there is no command, see `ViTPreTraining`.

    Published: ViT-B/16, ImageNet-21k, medium1, weight decay 0.1, fine-tuned on ImageNet
    at 384 pixels: 85.49 %. `keras_vit.list_presets("AugReg")` has the others.
    """

    base_learning_rate: float = 1e-3
    weight_decay: float = 0.1

    @classmethod
    def of(
        cls,
        augmentation: str,
        data: str = IMAGENET_21K,
        epochs: int = 300,
        *,
        weight_decay: float = 0.1,
        dropout_rate: float = 0.0,
        num_examples: int | None = None,
        **changes: Any,
    ) -> Self:
        """The recipe of one of AugReg's checkpoints.

        Args:
            augmentation: strength of RandAugment and MixUp: `"none"`, `"light1"`,
                `"light2"`, `"medium1"`, `"medium2"`, `"strong1"` or `"strong2"`.
            data: `"imagenet2012"` or `"imagenet21k"`.
            epochs: int, passes over the data; in the paper 300, or 30 over ImageNet-21k.
            weight_decay: float, in the paper 0.1 or 0.03.
            dropout_rate: float, rate of dropout and of stochastic depth; in the paper 0
                or 0.1.
            num_examples: int, images in the training set; `None` for the whole data set.
            **changes: other fields of the recipe.

        Raises:
            ValueError: if the paper has no such augmentation or data set.
        """
        arguments.one_of(augmentation, AUGREG_AUGMENTATIONS, "augmentation")
        arguments.one_of(data, (IMAGENET, IMAGENET_21K), "data")
        randaugment, mixup_alpha = AUGREG_AUGMENTATIONS[augmentation]
        num_examples = num_examples or NUM_EXAMPLES[data]
        batch_size = changes.get("batch_size", cls.batch_size)
        numbers = {
            "steps": num_steps(epochs, num_examples, batch_size),
            "weight_decay": weight_decay,
            "dropout_rate": dropout_rate,
            "drop_path_rate": dropout_rate,
            "augmentation": Augmentation(randaugment=randaugment, mixup_alpha=mixup_alpha),
        }
        if data == IMAGENET:
            numbers |= {"loss": "softmax", "init_head_bias": None}
        return cls(**{**numbers, **changes})


@accepts_old_names
@dataclass(frozen=True, kw_only=True)
class BigVisionS16(Recipe):
    """ViT-S/16 on ImageNet alone in 90 epochs: *Better plain ViT baselines*.

    Source: arXiv 2205.01580; the code of BigVision. Fixed positions, average pooling,
    RandAugment and MixUp at level "light2". BigVision does not multiply its weight decay
    of 1e-4 by the learning rate of 1e-3; Keras does, so it is 0.1 here.

    Command: `keras-vit finetune imagenet2012 --model ViTS16 --weights none --recipe
    bigvision --output runs/s16`; the authors report 6-7 hours on a TPU v3-8.

    Published: 76.5 % after 90 epochs, 78.5 % after 150, 80.0 % after 300.
    """

    steps: int = num_steps(90, 1_268_355, 1024)  # train[:99%] of ImageNet
    batch_size: int = 1024
    warmup_steps: int = 10_000
    base_learning_rate: float = 1e-3
    algorithm: str = "adam"
    weight_decay: float = 0.1
    image_size: int | tuple[int, int] = 224
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(
            randaugment=(2, 10), mixup_alpha=0.2, resize_factor=256 / 224
        )
    )
    pooling: str | None = "gap"
    position: str | None = "sincos2d"
    representation_size: int | None = 384

    @classmethod
    def for_epochs(cls, epochs: int, num_examples: int = 1_268_355, **changes: Any) -> Self:
        """The recipe for a number of epochs.

        Args:
            epochs: int, passes over the data; in the paper 90, 150 or 300.
            num_examples: int, images in the training set; by default 99 % of ImageNet's.
            **changes: other fields of the recipe.
        """
        batch_size = changes.get("batch_size", cls.batch_size)
        return cls(**{"steps": num_steps(epochs, num_examples, batch_size), **changes})
