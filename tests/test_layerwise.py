"""Learning rates and weight decay by variable: under every optimizer, saved with it."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import TINY, array, tiny, weights

import keras_vit
from keras_vit.training import (
    exclude_from_weight_decay,
    learning_rate_multipliers,
    scale_learning_rates,
)

OPTIMIZERS = {
    "sgd": lambda **c: keras.optimizers.SGD(0.5, **c),
    "momentum": lambda **c: keras.optimizers.SGD(0.5, momentum=0.9, nesterov=True, **c),
    "adam": lambda **c: keras.optimizers.Adam(0.1, **c),
    "adamw": lambda **c: keras.optimizers.AdamW(0.1, weight_decay=0.1, **c),
    "nadam": lambda **c: keras.optimizers.Nadam(0.1, **c),
    "adamax": lambda **c: keras.optimizers.Adamax(0.1, **c),
    "lamb": lambda **c: keras.optimizers.Lamb(0.1, **c),
    "lion": lambda **c: keras.optimizers.Lion(0.1, weight_decay=0.1, **c),
    "rmsprop": lambda **c: keras.optimizers.RMSprop(0.1, momentum=0.9, **c),
    "adagrad": lambda **c: keras.optimizers.Adagrad(0.1, **c),
    "adafactor": lambda **c: keras.optimizers.Adafactor(0.1, **c),
    "muon": lambda **c: keras.optimizers.Muon(0.1, **c),
}
UNITS = (5, 2)
X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")


def dense_model():
    inputs = outputs = keras.Input((6,))
    for units in UNITS:
        outputs = keras.layers.Dense(units, name=f"d{units}")(outputs)
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(2)
    for weight in model.weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return model


def fitted(optimizer, model=None, batch_size=8, epochs=1):
    model = model or dense_model()
    model.compile(optimizer, "mse")
    model.fit(X, Y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return weights(model)


def update(optimizer, **fit):
    before = weights(dense_model())
    return {path: value - before[path] for path, value in fitted(optimizer, **fit).items()}


MULTIPLIERS = {
    f"d{n}/{name}": 0.5**k / (1 + (name == "bias"))
    for k, n in enumerate(UNITS)
    for name in ("kernel", "bias")
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_update_is_scaled(name):
    plain = update(OPTIMIZERS[name]())
    scaled = update(scale_learning_rates(OPTIMIZERS[name](), MULTIPLIERS))
    for path, multiplier in MULTIPLIERS.items():
        expected = plain[path] * multiplier
        largest = np.abs(expected).max()
        assert largest > 0
        np.testing.assert_allclose(scaled[path], expected, atol=1e-5 * largest, rtol=0)


@pytest.mark.parametrize("name", ["momentum", "adamw", "nadam"])
def test_multipliers_of_one_change_nothing(name):
    """Over several updates, with accumulation and clipping."""
    options = {"global_clipnorm": 0.1, "gradient_accumulation_steps": 2}
    expected = fitted(OPTIMIZERS[name](**options), batch_size=2, epochs=2)
    ones = dict.fromkeys(MULTIPLIERS, 1.0)
    optimizer = scale_learning_rates(OPTIMIZERS[name](**options), ones)
    actual = fitted(optimizer, batch_size=2, epochs=2)
    for path in expected:
        np.testing.assert_allclose(actual[path], expected[path], atol=1e-5)


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_scaled_under_accumulation(name):
    """Four steps of two examples are one of eight."""
    expected = update(scale_learning_rates(OPTIMIZERS[name](), MULTIPLIERS))
    optimizer = OPTIMIZERS[name](gradient_accumulation_steps=4)
    actual = update(scale_learning_rates(optimizer, MULTIPLIERS), batch_size=2)
    for path in expected:
        np.testing.assert_allclose(actual[path], expected[path], atol=1e-5)


def test_scaled_inside_a_loss_scale_optimizer():
    plain = update(OPTIMIZERS["adamw"]())
    optimizer = keras.optimizers.LossScaleOptimizer(OPTIMIZERS["adamw"]())
    assert scale_learning_rates(optimizer, MULTIPLIERS) is optimizer
    scaled = update(optimizer)
    for path, multiplier in MULTIPLIERS.items():
        np.testing.assert_allclose(scaled[path], plain[path] * multiplier, atol=1e-5)


def test_scaled_in_mixed_float16():
    """Keras itself wraps the optimizer in a `LossScaleOptimizer`."""
    keras.config.set_dtype_policy("mixed_float16")
    plain = update(keras.optimizers.SGD(0.5))
    optimizer = scale_learning_rates(keras.optimizers.SGD(0.5), MULTIPLIERS)
    model = dense_model()
    model.compile(optimizer, "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    scaled = update(optimizer)
    for path, multiplier in MULTIPLIERS.items():
        np.testing.assert_allclose(scaled[path], plain[path] * multiplier, atol=1e-6)


@pytest.mark.one_backend
def test_multipliers_of_a_vision_transformer():
    model = keras_vit.VisionTransformer(
        **{**TINY, "num_layers": 3, "patch_size": 2},
        stem={"num_units": (1,), "width_factor": 0.5},
        num_registers=1,
        class_token=True,
        pooling="map",
        pre_norm=True,
        representation_size=8,
        classes=10,
    )
    depths = {f"block_{i}": 3 - i for i in range(3)}
    before = ("patch_embedding", "class_token", "registers", "position_embedding")
    depths |= dict.fromkeys((*before, "pre_norm", "stem_root", "stem_stage_0_unit_0"), 4)
    depths |= dict.fromkeys(("encoder_norm", "pooling", "pre_logits", "head"), 0)
    multipliers = learning_rate_multipliers(model, 0.5)
    assert multipliers.keys() == {weight.path for weight in model.weights}
    for path, multiplier in multipliers.items():
        assert multiplier == 0.5 ** depths[path.split("/")[1]], path
    # The same as a layer of another model, whose own layers learn at full rate.
    outer = keras.Sequential([keras.Input((32, 32, 3)), model, keras.layers.Dense(2)])
    assert learning_rate_multipliers(outer, 0.5) == {
        **multipliers,
        **{weight.path: 1.0 for weight in outer.layers[-1].weights},
    }


@pytest.mark.one_backend
def test_multipliers_of_a_resnet():
    model = keras_vit.BiTResNet(32, (1, 2), 0.5, classes=3)
    units = ("root", "stage_0_unit_0", "stage_1_unit_0", "stage_1_unit_1", "norm")
    depths = {name: len(units) - 1 - i for i, name in enumerate(units)} | {"head": 0}
    for path, multiplier in learning_rate_multipliers(model, 0.5).items():
        assert multiplier == 0.5 ** depths[path.split("/")[1]], path


def test_refusals():
    with pytest.raises(ValueError, match=r"`decay` must be in \(0, 1\]. Received: decay=0"):
        learning_rate_multipliers(dense_model(), 0)
    with pytest.raises(ValueError, match="must have layers `block_0`.*d5, d2"):
        learning_rate_multipliers(dense_model(), 0.5)
    optimizer = scale_learning_rates(keras.optimizers.SGD(), {"d5/kernel": 1, "x": 1})
    with pytest.raises(ValueError, match="none for: d2/bias, d2/kernel, d5/bias. Take"):
        optimizer.build(dense_model().trainable_variables)
    optimizer = keras.optimizers.SGD()
    optimizer.build(dense_model().trainable_variables)
    with pytest.raises(ValueError, match="only before its first use"):
        scale_learning_rates(optimizer, MULTIPLIERS)


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras has it from 3.15 on"
)
def test_several_optimizers_are_refused():
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD())
    )
    with pytest.raises(ValueError, match="inside a `MultiOptimizer`"):
        scale_learning_rates(several, MULTIPLIERS)


@pytest.mark.parametrize(
    "fields",
    [
        {"pooling": "map", "class_token": True, "num_registers": 1, "layer_scale": 0.1},
        {"qk_norm": True, "qkv_bias": "qv", "rope": "mixed", "norm": "rms"},
        {"attention_sub_norm": True, "mlp_sub_norm": True, "position": "relative"},
        {"distilled": True},
        {"pooling": "query", "patch_norm": True},
    ],
)
def test_weight_decay_of_kernels_alone(fields):
    model = tiny(num_layers=1, **fields)
    before = weights(model)
    optimizer = keras.optimizers.SGD(1.0, weight_decay=0.5)
    assert exclude_from_weight_decay(optimizer, model) is optimizer
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    after = weights(model)
    decayed = {path for path in before if not (before[path] == after[path]).all()}
    assert decayed == {path for path in before if path.endswith("/kernel")}
    np.testing.assert_allclose(after["head/kernel"], before["head/kernel"] / 2, rtol=1e-6)


def test_nothing_to_decay():
    model = keras.Sequential([keras.Input((6,)), keras.layers.LayerNormalization()])
    optimizer = keras.optimizers.SGD(0.0, weight_decay=0.5)
    model.compile(exclude_from_weight_decay(optimizer, model), "mse")
    model.fit(X, X, verbose=0)
    np.testing.assert_array_equal(array(model.weights[0]), np.ones(6))


CONTINUE = """
import sys, keras, numpy as np, keras_vit
model = keras.models.load_model(sys.argv[1])
x, y = np.load(sys.argv[2]).values()
model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
np.savez(sys.argv[3], **{w.path.replace("/", "|"): w.numpy() for w in model.weights})
"""


def test_saved_with_the_model(tmp_path):
    """Rules and state: a fresh process trains on as this one does."""
    model = dense_model()
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(0.1, 10), weight_decay=0.1
    )
    exclude_from_weight_decay(scale_learning_rates(optimizer, MULTIPLIERS), model)
    fitted(optimizer, model, batch_size=4)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    files = [tmp_path / name for name in ("model.keras", "data.npz", "after.npz")]
    subprocess.run([sys.executable, "-c", CONTINUE, *map(str, files)], check=True)
    model.fit(X, Y, batch_size=2, shuffle=False, verbose=0)
    with np.load(files[-1]) as after:
        for path, value in weights(model).items():
            np.testing.assert_allclose(after[path.replace("/", "|")], value, atol=1e-6)


def test_saved_as_the_optimizer_of_every_backend():
    optimizer = scale_learning_rates(OPTIMIZERS["momentum"](), MULTIPLIERS)
    config = keras.optimizers.serialize(optimizer)
    assert config["registered_name"] == "keras_vit>AdaptedOptimizer"
    inner = config["config"]["optimizer"]
    assert (inner["module"], inner["class_name"]) == ("keras.optimizers", "SGD")
    assert inner["config"]["nesterov"]
    again = keras.optimizers.deserialize(config)
    assert isinstance(again, keras.optimizers.SGD)
    assert again.get_config() == optimizer.get_config()
