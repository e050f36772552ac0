"""Recipes of the papers, in parts that `compile`, `fit` and `tf.data` take."""

from dataclasses import dataclass

import keras

from keras_vit.layers import arguments
from keras_vit.training.schedules import WarmupStepDecay

SMALL, MEDIUM = 20_000, 500_000  # examples, from which a data set is no longer so


@dataclass(frozen=True, kw_only=True)
class BiTHyperRule:
    """How BiT models are fine-tuned: one rule for every data set.

    Source: BiT (arXiv 1912.11370), section 3.3. With it BiT-L R152x4 reaches 87.54 % on
    ImageNet and 99.37 % on CIFAR-10. `bit_hyperrule` chooses the numbers by the data
    set; `dataclasses.replace` changes one.

    Attributes:
        resize: int, pixels of the side to which an image is resized, as a square.
        crop: int, pixels of the side of the random crop from it; a test image is resized
            to `crop` at once.
        steps: int, length of the training in steps of `batch_size` examples.
        warmup_steps: int, steps in which the learning rate rises from 0.
        decay_steps: the steps after which it is divided by 10.
        mixup_alpha: float, both parameters of MixUp's Beta distribution; 0 for none.
        base_learning_rate: float, reached after the warm-up.
        momentum: float, of the stochastic gradient descent. There is no weight decay.
        batch_size: int, examples in a step.

    Example:

    >>> rule = bit_hyperrule(num_examples=1020, image_size=(500, 667))
    >>> model = keras_vit.BiTR50x1(input_shape=(rule.crop, rule.crop, 3), classes=102)
    >>> model.compile(rule.optimizer(), "sparse_categorical_crossentropy")
    >>> augment = rule.augmentation()
    >>> train = train.repeat().map(lambda x, y: (augment(x), y)).batch(rule.batch_size)
    >>> model.fit(train, epochs=5, steps_per_epoch=rule.steps // 5)
    """

    resize: int
    crop: int
    steps: int
    warmup_steps: int
    decay_steps: tuple[int, ...]
    mixup_alpha: float
    base_learning_rate: float = 0.003
    momentum: float = 0.9
    batch_size: int = 512

    def schedule(self) -> WarmupStepDecay:
        """The learning rate at each step."""
        return WarmupStepDecay(self.base_learning_rate, self.warmup_steps, self.decay_steps)

    def optimizer(self) -> keras.optimizers.SGD:
        """The optimizer for `compile`."""
        return keras.optimizers.SGD(self.schedule(), momentum=self.momentum)

    def augmentation(self, seed: int | None = None) -> keras.layers.Pipeline:
        """Resizing, random crop and random flip, for an image or a batch of them.

        Takes images (height, width, channels) of any size and value range.
        """
        resize, crop = (self.resize,) * 2, (self.crop,) * 2
        channels = {"data_format": "channels_last"}
        return keras.layers.Pipeline(
            [
                keras.layers.Resizing(*resize, **channels),
                keras.layers.RandomCrop(*crop, seed=seed, **channels),
                keras.layers.RandomFlip("horizontal", seed=seed, **channels),
            ]
        )

    def mixup(self, seed: int | None = None) -> keras.layers.MixUp | None:
        """Mixes the examples of a batch: a dictionary of `images` and one-hot `labels`.

        `None` where the rule has none.
        """
        if not self.mixup_alpha:
            return None
        return keras.layers.MixUp(self.mixup_alpha, data_format="channels_last", seed=seed)


def bit_hyperrule(num_examples: int, image_size: int | tuple[int, int]) -> BiTHyperRule:
    """The numbers of BiT's rule for a data set.

    Source: BiT (arXiv 1912.11370), section 3.3 and its code.

    Args:
        num_examples: int, images in the training set.
        image_size: int or (height, width), pixels of its images, of the usual one where
            they vary.

    Raises:
        ValueError: if `num_examples` or `image_size` is not positive.
    """
    arguments.positive(num_examples, "num_examples")
    height, width = arguments.pair(image_size, "image_size")
    resize, crop = (160, 128) if height * width < 96 * 96 else (512, 480)
    if num_examples < SMALL:
        warmup_steps, *decay_steps, steps = 100, 200, 300, 400, 500
    elif num_examples < MEDIUM:
        warmup_steps, *decay_steps, steps = 500, 3000, 6000, 9000, 10_000
    else:
        warmup_steps, *decay_steps, steps = 500, 6000, 12_000, 18_000, 20_000
    return BiTHyperRule(
        resize=resize,
        crop=crop,
        steps=steps,
        warmup_steps=warmup_steps,
        decay_steps=tuple(decay_steps),
        mixup_alpha=0.0 if num_examples < SMALL else 0.1,
    )
