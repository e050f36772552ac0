"""Recipes and schedules: the papers' formulas, and that `fit` takes them."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import array, weights

import keras_vit
from keras_vit.training import (
    BiTHyperRule,
    PerUpdate,
    WarmupLinearDecay,
    WarmupStepDecay,
)


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
    rule = BiTHyperRule.for_data(num_examples, 224)
    assert (rule.steps, rule.batch_size) == (supports[-1], 512)
    assert rule.augmentation.mixup_alpha == mixup_alpha
    steps = np.arange(rule.steps)
    expected = [bit_learning_rate(step, supports, 0.003) for step in steps]
    np.testing.assert_allclose(array(rule.schedule()(steps)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("image_size", "resize", "crop"),
    [(32, 160, 128), ((95, 97), 160, 128), (96, 512, 480), ((500, 667), 512, 480)],
)
def test_bit_hyperrule_by_the_size_of_the_images(image_size, resize, crop):
    rule = BiTHyperRule.for_data(1000, image_size)
    assert rule.image_size == crop
    assert rule.augmentation.crop == "square"
    assert rule.augmentation.resize_factor * crop == resize


def test_bit_hyperrule_refuses():
    with pytest.raises(ValueError, match="`num_examples` must be a positive integer"):
        BiTHyperRule.for_data(0, 32)
    with pytest.raises(
        ValueError, match="`source_size` must be a positive integer or a pair"
    ):
        BiTHyperRule.for_data(10, (32, 0))


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
    rng = np.random.default_rng(0)
    labels = np.arange(32) % 2
    images = rng.uniform(0, 90, (32, 40, 50, 3)) + 150 * labels[:, None, None, None]
    data = keras_vit.data.load((images.astype("uint8"), labels), validation_split=0.5)
    rule = BiTHyperRule.for_data(30_000, (40, 50), base_learning_rate=0.05, batch_size=16)
    rule = dataclasses.replace(
        rule, steps=20, warmup_steps=5, decay_steps=(15,), image_size=32
    )
    model = keras_vit.BiTResNet(32, (1,), 0.5, classes=2)
    history = keras_vit.training.finetune(model, data, rule, evaluations=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]
    assert history.history["val_accuracy"][-1] == 1


def warmed_up(step, warmup_steps):
    return min(1, step / warmup_steps) if warmup_steps else 1


def progress(step, steps, warmup_steps):
    return np.clip((step - warmup_steps) / (steps - warmup_steps), 0, 1)


@pytest.mark.parametrize("warmup_steps", [0, 1, 10])
def test_warmup_linear_decay(warmup_steps):
    steps, base, end = 50, 0.03, 1e-5
    schedule = WarmupLinearDecay(base, steps, warmup_steps)
    expected = [
        warmed_up(step, warmup_steps)
        * (end + (base - end) * (1 - progress(step, steps, warmup_steps)))
        for step in range(steps + 20)
    ]
    actual = array(schedule(np.arange(steps + 20)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-9)
    config = keras.optimizers.schedules.serialize(schedule)
    again = keras.optimizers.schedules.deserialize(config)
    assert again.get_config() == schedule.get_config()


@pytest.mark.parametrize("warmup_steps", [0, 4])
def test_keras_cosine_decay_is_that_of_the_papers(warmup_steps):
    steps, base = 16, 0.03
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup_steps, warmup_target=base, warmup_steps=warmup_steps
    )
    expected = [
        warmed_up(step, warmup_steps)
        * (base * 0.5 * (1 + np.cos(np.pi * progress(step, steps, warmup_steps))))
        for step in range(steps + 4)
    ]
    actual = [float(schedule(step)) for step in range(steps + 4)]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-8)


def test_warmup_linear_decay_refuses():
    for warmup_steps in (-1, 50, 60):
        with pytest.raises(ValueError, match="`warmup_steps` must be at least 0 and less"):
            WarmupLinearDecay(0.1, 50, warmup_steps)


class Line(keras.layers.Layer):
    """An output whose gradient is 1 whatever the weight: SGD moves by the rates."""

    def build(self, input_shape):
        self.weight = self.add_weight(shape=(), initializer="zeros", name="weight")

    def call(self, inputs):
        return inputs * 0 + self.weight


def sum_of_rates(schedule, batches, **options):
    """Sum of the learning rates of all updates in a `fit` of some batches."""
    model = keras.Sequential([keras.Input((1,)), Line()])
    optimizer = keras.optimizers.SGD(schedule, **options)
    model.compile(optimizer, loss=lambda true, outputs: -outputs)
    model.fit(np.ones((batches, 1)), np.ones((batches, 1)), batch_size=1, verbose=0)
    return float(array(model.weights[0]))


def test_a_schedule_under_accumulation_goes_by_the_update():
    schedule = WarmupStepDecay(100.0, 100, (200,))  # the step is the rate
    accumulation = {"gradient_accumulation_steps": 3}
    assert sum_of_rates(schedule, 4) == 0 + 1 + 2 + 3
    # Keras goes by the batch, if this fails no longer: `PerUpdate` has done its work.
    assert sum_of_rates(schedule, 12, **accumulation) == 2 + 5 + 8 + 11
    per_update = PerUpdate(schedule, 3)
    assert sum_of_rates(per_update, 12, **accumulation) == 0 + 1 + 2 + 3
    config = keras.optimizers.schedules.serialize(per_update)
    again = keras.optimizers.schedules.deserialize(config)
    assert again.get_config() == per_update.get_config()
    assert float(again(11)) == 3
    with pytest.raises(
        ValueError, match="`gradient_accumulation_steps` must be a positive"
    ):
        PerUpdate(schedule, 0)


def test_accumulated_batches_are_one_large_batch():
    """With momentum, clipping of the mean gradient, weight decay and a schedule."""
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, 8, warmup_target=0.5, warmup_steps=2
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 6)), rng.integers(0, 4, 32)

    def trained(schedule, batch_size, **options):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(5, activation="gelu", name="hidden")(inputs)
        outputs = keras.layers.Dense(4, activation="softmax", name="head")(hidden)
        model = keras.Model(inputs, outputs)
        optimizer = keras.optimizers.SGD(
            schedule, momentum=0.9, weight_decay=0.01, global_clipnorm=0.1, **options
        )
        model.compile(optimizer, "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=batch_size, epochs=2, shuffle=False, verbose=0)
        return weights(model)

    expected = trained(schedule, 8)
    actual = trained(PerUpdate(schedule, 4), 2, gradient_accumulation_steps=4)
    for path, value in expected.items():
        np.testing.assert_allclose(actual[path], value, atol=1e-6, err_msg=path)
