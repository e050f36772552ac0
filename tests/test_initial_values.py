"""Initial values: distributions, seeds, configs, and where NumPy draws them."""

import json
import math
from inspect import signature

import keras
import numpy as np
import pytest
from helpers import TINY, array, assert_same_weights, tiny, weights
from keras import initializers

import keras_vit
from keras_vit import layers
from keras_vit.layers import initial_values
from keras_vit.layers.initial_values import by_numpy, waiting_for_values
from keras_vit.weight_paths import inner_paths

SHAPE = (40, 30, 50)
CUT = 0.87962566103423978  # the standard deviation of a normal cut off at 2
AXES = {"input_axes": [0], "output_axes": [1, 2]}
# Of Keras' formulas: mean, standard deviation, and how far from the mean values go.
KINDS = {
    "uniform": (lambda: initializers.RandomUniform(-0.3, 0.1), -0.1, 0.4 / 12**0.5, 0.2),
    "normal": (lambda: initializers.RandomNormal(0.5, 0.02), 0.5, 0.02, math.inf),
    "truncated": (lambda: initializers.TruncatedNormal(0.5, 0.02), 0.5, 0.02 * CUT, 0.04),
    "glorot_uniform": (
        lambda: "glorot_uniform", 0, (2 / 3200) ** 0.5, (6 / 3200) ** 0.5
    ),
    "glorot_normal": (
        lambda: "glorot_normal", 0, (2 / 3200) ** 0.5, 2 * (2 / 3200) ** 0.5 / CUT
    ),
    "lecun_normal": (
        lambda: "lecun_normal", 0, (1 / 1200) ** 0.5, 2 * (1 / 1200) ** 0.5 / CUT
    ),
    "he_uniform": (lambda: "he_uniform", 0, (2 / 1200) ** 0.5, (6 / 1200) ** 0.5),
    "untruncated": (
        lambda: initializers.VarianceScaling(3.0, "fan_out", "untruncated_normal"),
        0, (3 / 2000) ** 0.5, math.inf,
    ),
    "axes": (
        lambda: initializers.VarianceScaling(1.0, "fan_avg", "uniform", **AXES),
        0, (1 / 770) ** 0.5, (3 / 770) ** 0.5,
    ),
}  # fmt: skip
if "input_axes" not in signature(initializers.VarianceScaling).parameters:
    del KINDS["axes"]  # an argument of Keras 3.15
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="NumPy draws for JAX alone"
)


def drawn(usual, shape=SHAPE, dtype="float32"):
    return array(by_numpy(usual)(shape, dtype=dtype))


def everything(**overrides):
    """A model with every layer that draws numbers."""
    fields = {"num_registers": 2, "class_token": True, "pooling": "map", **overrides}
    fields |= {"patch_size": 1, "stem": {"num_units": (1, 1)}, "layer_scale": 0.1}
    return keras_vit.VisionTransformer(**{**TINY, "num_layers": 1, "classes": 3, **fields})


@pytest.mark.parametrize("kind", KINDS)
def test_distributions_are_those_of_keras(kind):
    make, mean, deviation, limit = KINDS[kind]
    values = drawn(make()).astype("float64")
    assert values.shape == SHAPE
    error = deviation / values.size**0.5
    assert abs(values.mean() - mean) < 4 * error
    assert abs(values.std() / deviation - 1) < 0.01
    # Beyond 4 standard deviations there is one of 16,000 normal numbers.
    farthest = np.abs(values - mean).max()
    assert farthest <= limit + 1e-7
    assert farthest > min(0.99 * limit, 4 * deviation)
    keras_own = array(initializers.get(make())(SHAPE)).astype("float64")
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        ours, theirs = np.quantile(values, share), np.quantile(keras_own, share)
        assert abs(ours - theirs) < 0.05 * deviation


def test_numbers_of_a_cut_off_normal_are_independent():
    """Values that are drawn again replace those outside."""
    values = drawn(initializers.TruncatedNormal(0, 1), (100_000,)).astype("float64")
    for lag in (1, 2, 7):
        assert abs(np.corrcoef(values[lag:], values[:-lag])[0, 1]) < 0.015
    assert len(np.unique(values)) > 95_000


def test_a_seed_determines_the_values():
    usual = initializers.GlorotUniform(seed=7)
    np.testing.assert_array_equal(drawn(usual), drawn(usual))  # at each call, as Keras'
    np.testing.assert_array_equal(drawn(usual), drawn(initializers.GlorotUniform(seed=7)))
    assert (drawn(usual) != drawn(initializers.GlorotUniform(seed=8))).mean() > 0.9
    unseeded = initializers.GlorotUniform(), initializers.GlorotUniform()
    assert (drawn(unseeded[0]) != drawn(unseeded[1])).mean() > 0.9
    np.testing.assert_array_equal(drawn(unseeded[0]), drawn(unseeded[0]))


@pytest.mark.parametrize("kind", [initializers.RandomUniform, initializers.TruncatedNormal])
def test_large_weights_do_not_depend_on_the_number_of_processors(kind, monkeypatch):
    usual, shape = kind(seed=3), (3, 2**20)
    values = drawn(usual, shape)
    assert all((values[i] != values[i - 1]).mean() > 0.9 for i in range(3))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    np.testing.assert_array_equal(drawn(usual, shape), values)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="of torch alone")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torch_has_numpy_draw_large_weights_alone(dtype):
    import torch

    usual, shapes = initializers.GlorotUniform(seed=3), [(512, 512), (1024, 1024)]
    ours = [by_numpy(usual)(shape, dtype=dtype) for shape in shapes]
    theirs = [usual(shape, dtype=dtype) for shape in shapes]
    assert {values.dtype for values in ours} == {getattr(torch, dtype)}
    assert torch.equal(ours[0], theirs[0])
    assert (ours[1] != theirs[1]).float().mean() > 0.9
    assert abs(ours[1].float().std() / theirs[1].float().std() - 1) < 0.01
    assert not isinstance(by_numpy("zeros"), initial_values.ByNumPy)  # one array as it is


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch keeps the array")
@pytest.mark.parametrize("shape", [(1024, 1024), (1025, 1027), (3, 7, 2**16)])
def test_large_weights_start_where_a_cache_line_does(shape):
    layer = keras.layers.Layer()
    for _ in range(4):  # an array of NumPy's does so one time in four
        weight = layer.add_weight(shape, by_numpy(initializers.GlorotUniform(seed=3)))
        assert weight.value.data_ptr() % 64 == 0


def test_a_generator_steps_on_as_keras_has_it():
    ours, theirs = (
        initializers.RandomNormal(seed=keras.random.SeedGenerator(3)) for _ in range(2)
    )
    first = drawn(ours)
    np.testing.assert_array_equal(first, array(theirs(SHAPE)))
    assert (first != drawn(ours)).mean() > 0.9


def test_what_is_not_known_is_left_as_it_is():
    class Own(initializers.RandomNormal):
        def __call__(self, shape, dtype=None):
            return keras.ops.full(shape, 7.0, dtype)

    def function(shape, dtype=None):
        return keras.ops.full(shape, 8.0, dtype)

    assert by_numpy(None) is None
    for usual in (Own(), function, initializers.Orthogonal()):
        assert by_numpy(usual) is usual


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
@pytest.mark.parametrize("usual", ["zeros", "ones", initializers.Constant(1e-5)])
def test_constants_are_those_of_keras(usual, dtype):
    ours = by_numpy(usual)((3, 4), dtype=dtype)
    theirs = initializers.get(usual)((3, 4), dtype=dtype)
    assert keras.backend.standardize_dtype(ours.dtype) == dtype
    np.testing.assert_array_equal(array(ours), array(theirs))


def test_layers_draw_different_numbers_and_the_global_seed_the_same():
    keras.utils.set_random_seed(5)
    first, second = weights(everything()), weights(everything())
    keras.utils.set_random_seed(5)
    assert_same_weights(weights(everything()), first)
    random = {path for path, value in first.items() if value.min() != value.max()}
    assert all((first[path] != second[path]).mean() > 0.9 for path in random)
    kernels = [np.ravel(first[path])[:100] for path in random if "kernel" in path]
    assert len(kernels) >= 10
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


def test_configs_have_the_usual_initializers():
    model = everything(representation_size=8)
    parts, paths = list(model._flatten_layers()), inner_paths(model)
    configs = {paths[id(part)]: part.get_config() for part in parts if part is not model}
    assert "NumPy" not in json.dumps(configs, default=str)
    dense = configs["block_0/mlp/dense_1"]
    assert dense["kernel_initializer"]["class_name"] == "GlorotUniform"
    assert dense["bias_initializer"]["config"]["stddev"] == 1e-6
    qkv = configs["block_0/attention/qkv"]
    assert qkv["kernel_initializer"]["class_name"] == "RandomUniform"
    norm = configs["block_0/attention_norm"]
    assert norm["gamma_initializer"]["class_name"] == "Ones"


def test_while_values_are_to_come_there_are_zeros():
    with waiting_for_values():
        model = everything(representation_size=8)
    for path, value in weights(model).items():
        assert value.min() == value.max(), path
    assert not weights(model)["block_0/mlp/dense_1/kernel"].any()


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16"])
def test_values_are_cast_to_the_dtype_of_the_weights(policy):
    keras.utils.set_random_seed(5)
    expected = weights(layer := built(layers.MLP(96)))
    keras.utils.set_random_seed(5)
    actual = weights(halves := built(layers.MLP(96, dtype=policy, name=layer.name)))
    dtype = keras.DTypePolicy(policy).variable_dtype
    held = {keras.backend.standardize_dtype(w.value.dtype) for w in halves.weights}
    assert held == {dtype}
    for path, value in expected.items():
        # TensorFlow and torch draw other numbers in bfloat16.
        if keras.backend.backend() == "jax":
            rounded = value.astype(actual[path].dtype)
            np.testing.assert_array_equal(actual[path], rounded)
        assert np.isclose(actual[path].astype("float32").std(), value.std(), rtol=0.1)


def built(layer, width=48):
    layer.build((None, None, width))
    return layer


def compiled_by(function):
    """Number of programs that JAX compiles."""
    import jax

    seen = []

    def listen(event, duration, **_):
        seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        function()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return sum("backend_compile" in event for event in seen)


@on_jax
def test_building_compiles_nothing():
    # Of widths that no other test has: what is compiled once is kept.
    assert compiled_by(lambda: built(keras.layers.Dense(94), width=62)) > 0
    block = layers.EncoderBlock(2, 94, layer_scale=0.1, qk_norm=True)
    assert compiled_by(lambda: built(block, width=62)) == 0
    pooling = layers.AttentionPooling(2, mlp_dim=94)
    assert compiled_by(lambda: built(pooling, width=58)) == 0
    for layer in (
        layers.PatchEmbedding(8, 62),
        layers.StandardizedConv2D(62, 3),
        layers.Registers(3),
        layers.PositionEmbedding(),
    ):
        assert compiled_by(lambda layer=layer: layer.build((None, 16, 24, 62))) == 0


@on_jax
def test_a_trace_draws_nothing(monkeypatch):
    """As `keras_vit.planning` builds models, of any size."""
    import jax

    monkeypatch.setattr(
        initial_values, "VALUES", dict.fromkeys(initial_values.VALUES)
    )  # calls none
    made = []
    jax.eval_shape(lambda: made.append(tiny_values()) or 0)
    assert all(isinstance(value, jax.core.Tracer) for value in made[0])


def tiny_values():
    model = keras_vit.VisionTransformer(**TINY, classes=3)
    return [weight.value for weight in model.weights]


@on_jax
def test_models_without_values_draw_none(monkeypatch):
    monkeypatch.setattr(
        initial_values, "VALUES", dict.fromkeys(initial_values.VALUES)
    )  # calls none
    with keras.StatelessScope(initialize_variables=False):
        model = keras_vit.VisionTransformer(**TINY, classes=3)
    assert all(weight._value is None for weight in model.weights)


def test_a_layer_that_keras_builds_by_calling_it_has_values():
    class Own(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.mlp = layers.MLP(96)

        def call(self, tokens):
            return self.mlp(tokens)

    layer = Own()
    layer(keras.Input((5, 48)))
    kernel = weights(layer)[layer.mlp.dense_1.kernel.path]
    assert abs(kernel.std() / (2 / (48 + 96)) ** 0.5 - 1) < 0.05


@on_jax
@pytest.mark.parametrize("name", ["data_parallel", "fsdp"])
def test_values_do_not_depend_on_a_distribution(name):
    """On one device; test_sharding.py has eight."""
    import jax

    mesh = keras.distribution.DeviceMesh((1,), ("batch",), [str(jax.devices()[0])])
    found = []
    for distribution in (
        None,
        keras.distribution.DataParallel(device_mesh=mesh)
        if name == "data_parallel"
        else keras_vit.distribution.layouts.ShardedWeights(mesh),
    ):
        keras.utils.set_random_seed(5)
        keras.distribution.set_distribution(distribution)
        try:
            model = tiny(hidden_dim=256, mlp_dim=512, num_layers=1)
            of_keras = keras.layers.Dense(512)
            of_keras.build((None, 256))
        finally:
            keras.distribution.set_distribution(None)
        found.append(weights(model))
    assert_same_weights(*found)
    kernel = model.get_layer("block_0").mlp.dense_1.kernel
    assert kernel.value.sharding == of_keras.kernel.value.sharding
