"""Averages of the weights, kept by the optimizer and used by `fit`."""

import keras
import numpy as np
import pytest
from helpers import array, assert_same_weights, path_of, weights

from keras_vit.training import (
    SwapAveragedWeights,
    average_weights,
    scale_learning_rates,
)

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")
MOMENTUM = 0.8


def dense_model(optimizer):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(4, activation="tanh", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(hidden))
    model.compile(optimizer, "mse")
    return model


class Recorder(keras.callbacks.Callback):
    """Copies of the model's weights at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(weights(self.model))


def fit(model, callbacks=(), epochs=1, batch_size=8, **options):
    data = {"x": X, "y": Y, "batch_size": batch_size, "shuffle": False, "verbose": 0}
    return model.fit(**data, epochs=epochs, callbacks=list(callbacks), **options)


def averages(model):
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return {path_of(v): array(average) for v, average in optimizer.averages()}


def averaged(trajectory):
    """The formula, in NumPy: the average after each update."""
    result = [trajectory[0]]
    for step in trajectory[1:]:
        before = result[-1]
        result.append({p: MOMENTUM * before[p] + (1 - MOMENTUM) * step[p] for p in step})
    return result


def sgd(**options):
    return keras.optimizers.SGD(0.2, momentum=0.9, **options)


OPTIMIZERS = {
    "plain": lambda: average_weights(sgd(), MOMENTUM),
    "accumulated": lambda: average_weights(sgd(gradient_accumulation_steps=2), MOMENTUM),
    "scaled": lambda: average_weights(
        scale_learning_rates(sgd(), dict.fromkeys(weights(dense_model("sgd")), 1)), MOMENTUM
    ),
    "float16": lambda: average_weights(
        keras.optimizers.LossScaleOptimizer(sgd()), MOMENTUM
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_averages_over_updates(name):
    """One update an epoch, of one batch or of two accumulated ones."""
    trained, swapped, expected = Recorder(), Recorder(), Recorder()
    fit(dense_model(sgd()), [expected], epochs=5)
    model = dense_model(OPTIMIZERS[name]())
    history = fit(
        model,
        [trained, SwapAveragedWeights(), swapped],
        epochs=5,
        batch_size=4 if name == "accumulated" else 8,
        validation_data=(X, Y),
    )
    # Training does not see the averages.
    for actual, desired in zip(trained.weights, expected.weights, strict=True):
        for path in desired:
            np.testing.assert_allclose(actual[path], desired[path], atol=1e-6)
    # What comes after the callback does, and the validation.
    for actual, desired in zip(swapped.weights, averaged(trained.weights), strict=True):
        for path in desired:
            np.testing.assert_allclose(actual[path], desired[path], atol=1e-6)
    assert_same_weights(weights(model), swapped.weights[-1])
    assert_same_weights(averages(model), swapped.weights[-1])
    loss = np.mean((array(model(X)) - Y) ** 2)
    np.testing.assert_allclose(history.history["val_loss"][-1], loss, rtol=1e-5)


def test_fit_fit_evaluate_save_load(tmp_path):
    """On JAX, Keras' own `use_ema` leaves one array in two variables."""
    model = dense_model(OPTIMIZERS["plain"]())
    fit(model, epochs=2)
    fit(model)
    model.evaluate(X, Y, verbose=0)
    assert_same_weights(weights(model), averages(model))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(averages(again), averages(model))
    fit(model, [SwapAveragedWeights()])
    fit(again, [SwapAveragedWeights()])
    for path, value in weights(model).items():
        np.testing.assert_allclose(weights(again)[path], value, atol=1e-6)


def test_checkpoints_and_the_early_end_of_training(tmp_path):
    model = dense_model(OPTIMIZERS["plain"]())
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras")
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 1)
    )
    recorder = Recorder()
    fit(model, [recorder, SwapAveragedWeights(), checkpoint, stop], epochs=9)
    assert len(recorder.weights) == 2
    for path, value in averaged(recorder.weights)[-1].items():
        np.testing.assert_allclose(weights(model)[path], value, atol=1e-6)
    saved = keras.models.load_model(tmp_path / "best.keras")
    assert_same_weights(weights(saved), weights(model))
    assert_same_weights(averages(saved), weights(model))


def test_no_update_no_change():
    """One batch of two that an update takes."""
    optimizer = average_weights(sgd(gradient_accumulation_steps=2), MOMENTUM)
    model = dense_model(optimizer)
    before = weights(model)
    fit(model, [SwapAveragedWeights()])
    assert_same_weights(weights(model), before)


def test_a_failed_first_step_leaves_the_model():
    def fail(batch, logs):
        raise KeyboardInterrupt

    model = dense_model(OPTIMIZERS["plain"]())
    before = weights(model)
    fails = keras.callbacks.LambdaCallback(on_train_batch_begin=fail)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [SwapAveragedWeights(), fails])
    assert_same_weights(weights(model), before)


def test_refusals():
    with pytest.raises(ValueError, match=r"`ema_momentum` must be in \[0, 1\)"):
        average_weights(sgd(), 1.0)
    with pytest.raises(ValueError, match="needs an optimizer that averages weights"):
        fit(dense_model(sgd()), [SwapAveragedWeights()])
