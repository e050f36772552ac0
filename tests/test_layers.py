"""Each layer alone: shapes, configs, clones, precision, and what it computes."""

import math

import keras
import numpy as np
import pytest
from helpers import array, assert_close, assert_same_weights, images, randomize, weights
from keras import ops

from keras_vit import layers

TOKENS = (2, 16, 48)
LAYERS = [
    (layers.PatchEmbedding(8, 48, name="layer"), (2, 32, 24, 3)),
    (layers.PatchEmbedding((8, 4), 48, use_bias=False, name="layer"), (2, 32, 24, 1)),
    (layers.PatchEmbedding(8, 48, data_format="channels_first", name="layer"), (2, 3, 32, 24)),
    (layers.ClassToken(name="layer"), (2, 4, 3, 48)),
    (layers.Registers(4, name="layer"), (2, 4, 3, 48)),
    (layers.PositionEmbedding(name="layer"), (2, 4, 3, 48)),
    (layers.PositionEmbedding(grid_size=(5, 7), interpolation="bicubic", name="layer"),
     (2, 4, 3, 48)),
    (layers.PositionEmbedding("learned2d", name="layer"), (2, 4, 3, 48)),
    (layers.PositionEmbedding("learned2d", grid_size=(5, 7), interpolation="bicubic",
                              name="layer"), (2, 4, 3, 48)),
    (layers.PositionEmbedding("sincos", name="layer"), (2, 4, 3, 48)),
    (layers.PositionEmbedding("sincos2d", name="layer"), (2, 4, 3, 48)),
    (layers.PositionEmbedding("none", name="layer"), (2, 4, 3, 48)),
    (layers.SelfAttention(4, dropout_rate=0.1, name="layer"), TOKENS),
    (layers.SelfAttention(4, qkv_bias=False, qk_norm=True, layer_norm_epsilon=1e-5,
                          name="layer"), TOKENS),
    (layers.SelfAttention(4, qkv_bias="qv", sub_norm=True, name="layer"), TOKENS),
    (layers.MLP(96, activation="quick_gelu", name="layer"), TOKENS),
    (layers.MLP(96, activation="swiglu", sub_norm=True, layer_norm_epsilon=1e-5,
                name="layer"), TOKENS),
    (layers.EncoderBlock(4, 96, qkv_bias="qv", attention_sub_norm=True, mlp_sub_norm=True,
                         name="layer"), TOKENS),
    (layers.MLP(96, activation="swiglu", name="layer"), TOKENS),
    (layers.MLP(96, gelu_approximate=False, dropout_rate=0.1, name="layer"), TOKENS),
    (layers.EncoderBlock(4, 96, layer_scale=0.1, drop_path_rate=0.1, dropout_rate=0.1,
                         attention_dropout_rate=0.1, layer_norm_epsilon=1e-5,
                         gelu_approximate=False, name="layer"), TOKENS),
    (layers.EncoderBlock(4, 96, mlp="swiglu", qkv_bias=False, qk_norm=True, name="layer"),
     TOKENS),
    (layers.StandardizedConv2D(32, (3, 2), strides=2, name="layer"), (2, 7, 6, 3)),
    (layers.StandardizedConv2D(8, 3, padding=1, standardization="variance", epsilon=1e-8,
                               name="layer"), (2, 7, 6, 3)),
    (layers.ResNetRoot(32, name="layer"), (2, 17, 24, 3)),
    (layers.ResNetRoot(32, pre_activation=True, standardization="variance", name="layer"),
     (2, 17, 24, 3)),
    (layers.BottleneckUnit(32, strides=2, name="layer"), (2, 7, 6, 64)),
    (layers.BottleneckUnit(32, name="layer"), (2, 7, 6, 128)),
    (layers.PreActivationUnit(32, strides=2, name="layer"), (2, 7, 6, 64)),
    (layers.PreActivationUnit(32, group_norm_epsilon=1e-6, name="layer"), (2, 7, 6, 128)),
    (layers.DropPath(0.5, seed=3, name="layer"), TOKENS),
    (layers.LayerScale(0.1, name="layer"), TOKENS),
    (layers.LayerNormalization(epsilon=1e-5, name="layer"), TOKENS),
    (layers.RMSNormalization(epsilon=1e-5, name="layer"), TOKENS),
    (layers.GroupNormalization(4, epsilon=1e-5, name="layer"), (2, 7, 6, 12)),
    (layers.TokenPooling(name="layer"), TOKENS),
    (layers.MeanPooling(num_prefix=2, name="layer"), TOKENS),
    (layers.AttentionPooling(4, mlp_dim=96, layer_norm_epsilon=1e-5, name="layer"), TOKENS),
    (layers.AttentionPooling(4, activation="quick_gelu", name="layer"), TOKENS),
    (layers.TokenMeanPooling(num_prefix=2, name="layer"), TOKENS),
    (layers.QueryPooling(4, num_prefix=1, use_bias=True, name="layer"), TOKENS),
]  # fmt: skip
NAMES = [f"{type(layer).__name__}-{i}" for i, (layer, _) in enumerate(LAYERS)]
each_layer = pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=NAMES)


def fresh(layer, **config):
    """Another layer of the same config, as each test needs its own weights."""
    return type(layer).from_config({**layer.get_config(), **config})


def inputs_of(shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_every_public_layer_is_tested_here():
    # Angles and biases of scores have no batch and are float32 always: test_rotary.py,
    # test_relative.py. Positions of layers have no batch, either: test_positions.py.
    others = {"RotaryEmbedding", "RelativePositionBias", "RelativeKeys", "LayerPositions"}
    assert {type(layer).__name__ for layer, _ in LAYERS} | others == set(layers.__all__)


@pytest.mark.one_backend
@each_layer
def test_config_round_trip(layer, shape):
    config = layer.get_config()
    assert fresh(layer).get_config() == config
    # As in a file: through JSON, by registered name.
    revived = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(revived) is type(layer)
    assert revived.get_config() == config


@each_layer
def test_output_has_the_computed_shape_and_is_jit_free(layer, shape):
    layer = fresh(layer)
    output = layer(inputs_of(shape))
    assert tuple(output.shape) == layer.compute_output_shape(shape)
    symbolic = layer(keras.KerasTensor((None, *shape[1:])))
    assert symbolic.shape == (None, *output.shape[1:])


@each_layer
def test_clone_save_and_load_in_a_model(layer, shape, tmp_path):
    inputs = keras.Input(shape[1:])
    model = randomize(keras.Model(inputs, fresh(layer)(inputs)))
    x = inputs_of(shape)
    expected = array(model(x))

    clone = keras.models.clone_model(model)
    assert all(a is not b for a, b in zip(clone.weights, model.weights, strict=True))
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(array(clone(x)), expected)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(weights(loaded), weights(model))
    np.testing.assert_array_equal(array(loaded(x)), expected)


@each_layer
def test_mixed_precision_computes_in_bfloat16_on_float32_weights(layer, shape):
    layer = randomize_built(fresh(layer), shape)
    half = fresh(layer, dtype="mixed_bfloat16")
    half.build(shape)
    half.set_weights(layer.get_weights())
    output = half(inputs_of(shape))
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert all(weight.dtype == "float32" for weight in half.weights)
    expected = array(layer(inputs_of(shape)))
    assert_close(ops.cast(output, "float32"), expected, tolerance=0.03)


def randomize_built(layer, shape):
    layer.build(shape)
    return randomize(layer)


def test_patch_embedding_is_a_strided_convolution():
    layer = randomize_built(layers.PatchEmbedding((8, 4), 48), (None, 32, 24, 3))
    expected = ops.conv(images(32, 24), layer.kernel, strides=(8, 4), padding="valid")
    assert_close(layer(images(32, 24)), array(expected) + array(layer.bias))


def test_patch_embedding_channels_first_equals_channels_last():
    last = randomize_built(layers.PatchEmbedding(8, 48), (None, 32, 24, 3))
    first = layers.PatchEmbedding(8, 48, data_format="channels_first")
    first.build((None, 3, 32, 24))
    first.set_weights(last.get_weights())
    x = images(32, 24)
    assert_close(first(np.transpose(x, (0, 3, 1, 2))), last(x), tolerance=1e-6)


def test_patch_embedding_takes_integers():
    layer = randomize_built(layers.PatchEmbedding(8, 48), (None, 32, 24, 3))
    pixels = np.arange(32 * 24 * 3, dtype="uint8").reshape(1, 32, 24, 3)
    assert_close(layer(pixels), layer(pixels.astype("float32")))


@pytest.mark.parametrize("size", [(30, 32), (32, 20)])
def test_patch_embedding_refuses_images_that_patches_do_not_fill(size):
    layer = layers.PatchEmbedding((8, 16), 48)
    with pytest.raises(ValueError, match=rf"images of {size[0]} x {size[1]} .* 8 x 16"):
        layer(np.zeros((1, *size, 3)))


def test_patch_embedding_refuses_another_number_of_channels():
    layer = layers.PatchEmbedding(8, 48)
    layer(images())
    with pytest.raises(ValueError, match="expected axis -1 .* to have value 3"):
        layer(images(channels=4))


def test_class_token_starts_at_zero_and_registers_apart():
    assert not array(layers.ClassToken()(np.zeros((1, 4, 48)))).any()
    registers = array(layers.Registers(3)(np.zeros((2, 4, 48))))
    assert len(np.unique(registers[0], axis=0)) == 3
    np.testing.assert_array_equal(registers[0], registers[1])


def test_position_embedding_adds_to_the_prefix_that_owns_positions():
    layer = layers.PositionEmbedding(num_prefix=1)
    layer.build((None, 2, 3, 48), (None, 3, 48))
    patches, prefix = inputs_of((2, 2, 3, 48)), inputs_of((2, 3, 48))
    tokens = array(layer(patches, prefix))
    assert tokens.shape == (2, 9, 48)
    np.testing.assert_allclose(
        tokens[:, 0], prefix[:, 0] + array(layer.prefix)[0], atol=1e-6
    )
    np.testing.assert_array_equal(tokens[:, 1:3], prefix[:, 1:])
    expected = (patches + array(layer.grid)).reshape(2, 6, 48)
    np.testing.assert_allclose(tokens[:, 3:], expected, atol=1e-6)


def test_position_embedding_needs_the_tokens_that_own_positions():
    with pytest.raises(ValueError, match="num_prefix=2 and a prefix of 1 tokens"):
        layers.PositionEmbedding(num_prefix=2)(np.zeros((1, 2, 2, 8)), np.zeros((1, 1, 8)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"position": "fourier"}, "'learned2d', 'sincos', 'sincos2d', 'none'.*'fourier'"),
        ({"interpolation": "nearest"}, "'linear', 'bilinear', 'bicubic'.*'nearest'"),
        ({"position": "sincos2d", "num_prefix": 1}, "num_prefix=1"),
        ({"grid_size": (4, 0)}, r"grid_size=\(4, 0\)"),
    ],
)
def test_position_embedding_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        layers.PositionEmbedding(**arguments)


def test_position_embedding_takes_a_grid_not_a_sequence():
    with pytest.raises(ValueError, match="expected ndim=4, found ndim=3"):
        layers.PositionEmbedding()(np.zeros((1, 16, 48)))


@pytest.mark.parametrize(
    ("position", "width", "message"),
    [
        ("sincos2d", 50, "divisible by 4.*hidden_dim=50"),
        ("sincos", 49, "divisible by 2.*hidden_dim=49"),
        ("learned2d", 49, "an even `hidden_dim`.*hidden_dim=49"),
    ],
)
def test_positions_of_parts_need_a_width_that_can_be_parted(position, width, message):
    with pytest.raises(ValueError, match=message):
        layers.PositionEmbedding(position)(np.zeros((1, 2, 2, width)))


def attention_by_hand(layer, tokens):
    """Softmax attention written out in NumPy, float64."""
    kernel = array(layer.qkv.kernel).astype("float64")
    bias = np.zeros(kernel.shape[1:])
    if layer.qkv_bias == "qv":
        bias[[0, 2]] = array(layer.query_value_bias)
    elif layer.qkv_bias:
        bias = array(layer.qkv.bias)
    query, key, value = (
        np.einsum("btd,dhk->bhtk", tokens, kernel[:, i]) + bias[i][:, None]
        for i in range(3)
    )
    if layer.qk_norm:
        query = norm_by_hand(layer.query_norm, query)
        key = norm_by_hand(layer.key_norm, key)
    scores = query @ key.swapaxes(2, 3) / np.sqrt(query.shape[-1])
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    attended = scores / scores.sum(-1, keepdims=True) @ value
    attended = attended.swapaxes(1, 2)  # (batch, tokens, heads, head_dim)
    if layer.sub_norm:
        joined = attended.reshape(*attended.shape[:2], -1)
        attended = norm_by_hand(layer.values_norm, joined).reshape(attended.shape)
    projection = array(layer.projection.kernel)
    return np.einsum("bthk,hkd->btd", attended, projection) + array(layer.projection.bias)


def norm_by_hand(norm, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + norm.epsilon)
    return x * array(norm.gamma) + array(norm.beta)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("qkv_bias", [False, True, "qv"])
def test_self_attention_is_softmax_attention(qkv_bias, qk_norm):
    # An epsilon that is seen: the norms must have the layer's.
    layer = layers.SelfAttention(
        4, qkv_bias=qkv_bias, qk_norm=qk_norm, sub_norm=qk_norm, layer_norm_epsilon=0.1
    )
    randomize_built(layer, TOKENS)
    x = inputs_of(TOKENS)
    expected = attention_by_hand(layer, x)
    assert_close(layer(x), expected)
    assert_close(layer(x[:, :1], context=x), expected[:, :1])


def test_weights_of_self_attention_follow_its_arguments():
    layer = layers.SelfAttention(4, qkv_bias=False, qk_norm=True, name="attention")
    layer.build(TOKENS)
    assert {weight.path: tuple(weight.shape) for weight in layer.weights} == {
        "attention/qkv/kernel": (48, 3, 4, 12),
        "attention/query_norm/gamma": (12,),
        "attention/query_norm/beta": (12,),
        "attention/key_norm/gamma": (12,),
        "attention/key_norm/beta": (12,),
        "attention/projection/kernel": (4, 12, 48),
        "attention/projection/bias": (48,),
    }


@pytest.mark.parametrize(
    "layer",
    [
        layers.SelfAttention(4),
        layers.SelfAttention(4, qkv_bias=False, qk_norm=True),
        layers.EncoderBlock(4, 96),
        layers.EncoderBlock(4, 96, mlp="swiglu", qkv_bias=False, qk_norm=True),
    ],
    ids=["attention", "normed attention", "block", "normed block"],
)
def test_a_part_of_the_tokens_is_computed_as_in_the_whole(layer):
    layer = randomize_built(fresh(layer), TOKENS)
    x = inputs_of(TOKENS)
    assert_close(layer(x[:, :3], context=x), array(layer(x))[:, :3])


def test_attention_with_dropout_is_the_same_in_inference_and_random_in_training():
    layer = randomize_built(layers.SelfAttention(4, dropout_rate=0.5), TOKENS)
    x = inputs_of(TOKENS)
    assert_close(layer(x), attention_by_hand(layer, x))
    first, second = array(layer(x, training=True)), array(layer(x, training=True))
    assert np.abs(first - second).max() > 1e-3
    layer.dropout.rate = 0.0
    layer.dropout_rate = 1e-9  # still the path for training
    assert_close(layer(x, training=True), attention_by_hand(layer, x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS_BY_HAND = {
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2,
    "gelu, approximate": lambda x: (
        x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2
    ),
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "swiglu": lambda x: x[..., :96] * sigmoid(x[..., :96]) * x[..., 96:],
    "geglu": lambda x: (
        x[..., :96]
        * (1 + np.vectorize(math.erf)(x[..., :96] / np.sqrt(2)))
        / 2
        * x[..., 96:]
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS_BY_HAND)
def test_mlp_is_two_dense_layers_around_an_activation(name):
    activation, _, approximate = name.partition(", ")
    layer = layers.MLP(96, activation=activation, gelu_approximate=bool(approximate))
    randomize_built(layer, TOKENS)
    x = inputs_of(TOKENS).astype("float64")
    kernels = [array(dense.kernel) for dense in (layer.dense_1, layer.dense_2)]
    biases = [array(dense.bias) for dense in (layer.dense_1, layer.dense_2)]
    hidden = x @ kernels[0] + biases[0]
    expected = ACTIVATIONS_BY_HAND[name](hidden) @ kernels[1] + biases[1]
    assert_close(layer(inputs_of(TOKENS)), expected, tolerance=2e-6)


def test_a_kernel_is_standardised_before_it_is_rounded():
    layer = layers.StandardizedConv2D(8, 3, dtype="mixed_bfloat16")
    x = inputs_of((2, 7, 6, 3))
    layer.build(x.shape)
    kernel = ops.cast(layer.standardized_kernel(), "bfloat16")
    x = ops.cast(x, "bfloat16")
    expected = ops.conv(x, kernel, padding="same", data_format="channels_last")
    np.testing.assert_array_equal(
        array(ops.cast(layer(x), "float32")), array(ops.cast(expected, "float32"))
    )


def test_attention_needs_heads_that_divide_the_width():
    with pytest.raises(ValueError, match="hidden_dim=48, num_heads=5"):
        layers.SelfAttention(5)(np.zeros(TOKENS))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX runs on TPU")
def test_flash_attention_is_off_on_tpu_and_where_keras_says_so(monkeypatch):
    import jax

    from keras_vit.layers.kernels import flash_attention

    assert flash_attention() is None
    tpu = type("Device", (), {"platform": "tpu"})()
    monkeypatch.setattr(jax, "devices", lambda: [tpu])
    assert flash_attention() is False
    monkeypatch.undo()
    keras.config.disable_flash_attention()
    try:
        assert flash_attention() is False
    finally:
        keras.config.enable_flash_attention()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX runs on TPU")
def test_the_wrong_kernel_of_tpu_is_not_taken(monkeypatch):
    """On a TPU, Keras' own choice for 128 tokens is a kernel with a causal mask."""
    import jax
    from keras.src.backend.jax import nn

    layer, tokens = layers.SelfAttention(2, dtype="bfloat16"), inputs_of((2, 128, 32))
    expected = array(layer(tokens))
    taken = []

    def splash(query, key, value, **options):
        taken.append(options["custom_mask"])  # None, which stands for a causal one
        return query

    tpu = type("Device", (), {"platform": "tpu"})()
    monkeypatch.setattr(jax, "devices", lambda *_: [tpu])
    monkeypatch.setattr(nn, "wrap_flash_attention", splash)
    heads = ops.ones((2, 128, 2, 16))
    ops.dot_product_attention(heads, heads, heads)
    assert taken == [None]  # the trap is there
    np.testing.assert_array_equal(array(layer(tokens)), expected)
    pooled = layers.AttentionPooling(2, dtype="bfloat16")
    pooled.build(tokens.shape)
    pooled(tokens)
    assert len(taken) == 1  # and we are not in it


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
    output = array(layers.DropPath(0.25)(np.ones((4000, 3, 2)), training=True))
    per_example = output.reshape(4000, 6)
    assert set(np.unique(per_example.min(1))) == {0.0, np.float32(1 / 0.75)}
    np.testing.assert_array_equal(per_example.min(1), per_example.max(1))
    assert abs(output.mean() - 1) < 0.05


def test_drop_path_does_nothing_in_inference():
    x = inputs_of(TOKENS)
    np.testing.assert_array_equal(array(layers.DropPath(0.9)(x)), x)


def test_poolings():
    x = inputs_of(TOKENS)
    assert_close(layers.TokenPooling()(x), x[:, 0])
    assert_close(layers.MeanPooling(num_prefix=5)(x), x[:, 5:].mean(1))
    both = np.concatenate([x[:, 0], x[:, 5:].mean(1)], axis=1)
    assert_close(layers.TokenMeanPooling(num_prefix=5)(x), both)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.PatchEmbedding(0, 48), "patch_size=0"),
        (lambda: layers.PatchEmbedding((8, 8, 8), 48), r"patch_size=\(8, 8, 8\)"),
        (lambda: layers.PatchEmbedding(8, -1), "hidden_dim=-1"),
        (lambda: layers.PatchEmbedding(8, 48, data_format="nhwc"), "data_format='nhwc'"),
        (lambda: layers.DropPath(1.0), r"\[0, 1\). Received: rate=1.0"),
        (lambda: layers.MLP(96, dropout_rate=-0.1), "dropout_rate=-0.1"),
        (
            lambda: layers.MLP(96, activation="relu"),
            "'quick_gelu', 'swiglu', 'geglu'.*'relu'",
        ),
        (lambda: layers.AttentionPooling(4, activation="relu"), "activation='relu'"),
        (lambda: layers.EncoderBlock(4, 96, mlp="relu"), "`mlp` must be.*mlp='relu'"),
        (lambda: layers.SelfAttention(2.5), "num_heads=2.5"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_attention_pooling_leaves_the_prefix_out():
    pooling = randomize_built(layers.AttentionPooling(4, num_prefix=2), TOKENS)
    tokens = inputs_of(TOKENS)
    changed = tokens.copy()
    changed[:, :2] += 1
    np.testing.assert_array_equal(array(pooling(tokens)), array(pooling(changed)))
    changed[:, 2] += 1
    assert np.abs(array(pooling(tokens)) - array(pooling(changed))).max() > 1e-4
