"""Recipes and schedules: the papers' formulas, and that `fit` takes them."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import array

import keras_vit
from keras_vit.training import WarmupStepDecay, bit_hyperrule


def bit_learning_rate(step, supports, base):
    """As BiT's paper words it: linear warm-up, then a tenth after each support."""
    if step < supports[0]:
        return base * step / supports[0]
    return base / 10 ** sum(step > support for support in supports[1:-1])


@pytest.mark.parametrize(
    ("num_examples", "supports", "mixup_alpha"),
    [
        (1, (100, 200, 300, 400, 500), 0),
        (19_999, (100, 200, 300, 400, 500), 0),
        (20_000, (500, 3000, 6000, 9000, 10_000), 0.1),
        (499_999, (500, 3000, 6000, 9000, 10_000), 0.1),
        (500_000, (500, 6000, 12_000, 18_000, 20_000), 0.1),
    ],
)
def test_bit_hyperrule_by_the_number_of_examples(num_examples, supports, mixup_alpha):
    rule = bit_hyperrule(num_examples, 224)
    assert (rule.steps, rule.mixup_alpha, rule.batch_size) == (
        supports[-1],
        mixup_alpha,
        512,
    )
    steps = np.arange(rule.steps)
    expected = [bit_learning_rate(step, supports, 0.003) for step in steps]
    np.testing.assert_allclose(array(rule.schedule()(steps)), expected, rtol=1e-5)
    assert (rule.mixup() is None) == (mixup_alpha == 0)


@pytest.mark.parametrize(
    ("image_size", "resize", "crop"),
    [(32, 160, 128), ((95, 97), 160, 128), (96, 512, 480), ((500, 667), 512, 480)],
)
def test_bit_hyperrule_by_the_size_of_the_images(image_size, resize, crop):
    rule = bit_hyperrule(1000, image_size)
    assert (rule.resize, rule.crop) == (resize, crop)


def test_bit_hyperrule_refuses():
    with pytest.raises(ValueError, match="`num_examples` must be a positive integer"):
        bit_hyperrule(0, 32)
    with pytest.raises(
        ValueError, match="`image_size` must be a positive integer or a pair"
    ):
        bit_hyperrule(10, (32, 0))


def test_a_schedule_is_saved_and_in_order():
    schedule = WarmupStepDecay(0.1, 2, (4, 8))
    config = keras.optimizers.schedules.serialize(schedule)
    again = keras.optimizers.schedules.deserialize(config)
    assert again.get_config() == schedule.get_config()
    for steps in [(0, (4, 8)), (5, (4, 8)), (2, (8, 4)), (2, (4, 4))]:
        with pytest.raises(
            ValueError, match="`warmup_steps` must be positive, and `decay_"
        ):
            WarmupStepDecay(0.1, *steps)


def test_the_rule_trains_a_model():
    import tensorflow as tf

    rule = bit_hyperrule(30_000, (40, 50))
    small = {"resize": 40, "crop": 32, "warmup_steps": 5, "decay_steps": (20,)}
    rule = dataclasses.replace(rule, **small, base_learning_rate=0.05, batch_size=16)
    rng = np.random.default_rng(0)
    labels = np.arange(16) % 2
    images = rng.uniform(-0.2, 0.2, (16, 40, 50, 3)) + (labels - 0.5)[:, None, None, None]
    augment, mixup = rule.augmentation(seed=0), rule.mixup(seed=0)

    def mixed(images, labels):
        examples = {"images": images, "labels": tf.one_hot(labels, 2)}
        examples = mixup(examples)
        return examples["images"], examples["labels"]

    train = tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels))
    train = train.repeat().map(lambda x, y: (augment(x), y)).batch(16).map(mixed)
    keras.utils.set_random_seed(0)
    model = keras_vit.BiTResNet(32, (1,), 0.5, classes=2)
    model.compile(rule.optimizer(), "categorical_crossentropy")
    history = model.fit(train, epochs=2, steps_per_epoch=10, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]
    accuracy = (array(model(images[:, 4:36, 9:41])).argmax(1) == labels).mean()
    assert accuracy == 1
