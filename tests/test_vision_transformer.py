"""The model: shapes, features, precision, training, saving."""

import inspect
import json

import keras
import numpy as np
import pytest
from helpers import (
    TINY,
    array,
    assert_close,
    assert_same_weights,
    images,
    path_of,
    tiny,
    weights,
)

import keras_vit
from keras_vit.layers.initial_values import waiting_for_values

MODERN = {
    "num_registers": 3,
    "num_prefix_positions": 2,
    "pre_norm": True,
    "patch_bias": True,
    "fc_norm": True,
    "mlp": "swiglu",
    "qkv_bias": False,
    "qk_norm": True,
}
VARIANTS = {
    "token": {},
    "gap": {"pooling": "gap"},
    "map": {"pooling": "map"},
    "map with sizes of its own": {
        **{"pooling": "map", "pooling_num_heads": 8, "pooling_mlp_dim": 72},
        **{"pooling_prefix": True, "class_token": True, "num_registers": 2},
    },
    "mean of every token": {"pooling": "gap", "pooling_prefix": True, "class_token": True},
    "class token and mean": {"pooling": "token_gap", "num_registers": 2, "fc_norm": True},
    "query": {"pooling": "query", "pooling_num_heads": 2, "qkv_bias": False},
    "without a final norm": {"final_norm": False, "image_size": (32, 48)},
    "distilled": {"distilled": True, "num_registers": 2},
    "features of a distilled model": {"distilled": True, "classes": 0},
    "all tokens": {"pooling": None, "classes": 0},
    "features": {"classes": 0},
    "representation": {"representation_size": 24},
    "registers": {"num_registers": 3, "layer_scale": 0.1},
    "gap of a class token model": {"pooling": "gap", "class_token": True},
    "learned2d": {"position": "learned2d", "image_size": (32, 48), "num_registers": 1},
    "sincos": {"position": "sincos", "image_size": (32, 48)},
    "sincos2d": {"position": "sincos2d"},
    "positions of each layer": {"position_at": "each_layer", "distilled": True},
    "positions of all layers": {
        **{"position_at": "each_layer_shared", "position": "learned2d"},
        **{"input_shape": (None, None, 3), "num_registers": 2},
    },
    "relative keys": {
        "position": "relative_key",
        "image_size": (32, 48),
        "num_registers": 1,
    },
    "no positions": {"position": "none"},
    "non-square": {"image_size": (32, 48), "patch_size": (8, 16)},
    "four channels": {"input_shape": (32, 32, 4)},
    "any size": {"input_shape": (None, None, 3)},
    "full last block": {"full_last_block": True},
    "one block": {"num_layers": 1},
    "modern": MODERN,
    "hybrid": {"stem": {"num_units": (1, 2), "width_factor": 0.5}, "patch_size": 1},
    "hybrid of any size": {
        "stem": {"num_units": (), "width_factor": 0.5, "standardization": "variance"},
        "patch_size": 4,
        "input_shape": (None, None, 3),
    },
    "CLIP": {"pre_norm": True, "mlp": "quick_gelu"},
    "regularized": {
        "dropout_rate": 0.1,
        "attention_dropout_rate": 0.1,
        "drop_path_rate": 0.1,
    },
}
HYBRID = {"stem": {"num_units": (1, 1), "width_factor": 0.5}, "patch_size": 2}
each_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


def images_for(model, batch=2):
    height, width, channels = (size or 32 for size in model.input_shape[1:])
    return images(height, width, channels, batch)


NOTES = {"class_names", "probabilities", "preprocessing"}  # there where they are given


@pytest.mark.one_backend
@each_variant
def test_config_is_the_arguments_and_revives_the_model(variant):
    model = tiny(**variant)
    config = model.get_config()
    signature = inspect.signature(keras_vit.VisionTransformer)
    assert set(config) == set(signature.parameters) - {"input_tensor", *NOTES}
    assert keras_vit.VisionTransformer.from_config(config).get_config() == config
    assert json.loads(json.dumps(config))
    revived = keras_vit.VisionTransformer.from_config(json.loads(json.dumps(config)))
    assert [path_of(w) for w in revived.weights] == [path_of(w) for w in model.weights]
    assert [w.shape for w in revived.weights] == [w.shape for w in model.weights]


@each_variant
def test_save_and_load_is_the_identity(variant, tmp_path):
    model = tiny(**variant)
    x = images_for(model)
    expected = array(model(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is keras_vit.VisionTransformer
    assert loaded.get_config() == model.get_config()
    assert_same_weights(weights(loaded), weights(model))
    np.testing.assert_array_equal(array(loaded(x)), expected)

    model.save_weights(tmp_path / "model.weights.h5")
    other = tiny(**variant, name="other")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_weights(weights(other), weights(model))


@pytest.mark.one_backend
@each_variant
def test_clone_model_computes_the_same(variant):
    model = tiny(**variant)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert [path_of(w) for w in clone.weights] == [path_of(w) for w in model.weights]
    x = images_for(model)
    np.testing.assert_array_equal(array(clone(x)), array(model(x)))


@each_variant
def test_one_step_of_training_moves_every_weight(variant):
    # `tiny` gives the head random weights; a new one is zero and would pass no gradient.
    model = tiny(**variant)
    before = weights(model)
    target = np.random.default_rng(0).normal(size=array(model(images_for(model))).shape)
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(images_for(model), target, epochs=2, verbose=0)
    still = {
        path for path, value in weights(model).items() if (value == before[path]).all()
    }
    # Softmax does not see what is added to every key alike: rounding alone moves it.
    still = {path for path in still if not path.endswith("key_norm/beta")}
    # The last block's query is the class token, from which patches have no offset.
    unread = {"block_1/attention/relative_keys/grid"}
    assert still == (unread if variant.get("position") == "relative_key" else set())


def test_new_models_start_as_the_paper_says():
    model = keras_vit.VisionTransformer(**TINY, classes=10)
    values = weights(model)
    assert not values["head/kernel"].any()
    assert not values["head/bias"].any()
    assert not values["class_token/tokens"].any()
    grid = values["position_embedding/grid"]
    assert abs(grid.std() - 0.02) < 0.002
    kernel = values["block_0/attention/qkv/kernel"]
    limit = np.sqrt(6 / (48 + 48))  # Glorot uniform of each projection
    assert 0.95 * limit < np.abs(kernel).max() <= limit
    assert np.abs(values["block_0/mlp/dense_1/bias"]).max() < 1e-5


def test_same_seed_same_weights():
    keras.utils.set_random_seed(7)
    first = weights(keras_vit.VisionTransformer(**TINY))
    second = weights(keras_vit.VisionTransformer(**TINY))
    keras.utils.set_random_seed(7)
    assert_same_weights(weights(keras_vit.VisionTransformer(**TINY)), first)
    path = "block_0/mlp/dense_1/kernel"
    assert (first[path] != second[path]).any()


def test_layer_names_are_public():
    model = tiny(num_registers=2, representation_size=24, dropout_rate=0.1)
    names = {layer.name for layer in model.layers}
    assert names >= {
        *("patch_embedding", "class_token", "registers", "position_embedding"),
        *("block_0", "block_1", "encoder_norm", "pooling", "pre_logits", "head"),
    }
    extractor = keras.Model(model.input, model.get_layer("block_0").output)
    assert extractor(images()).shape == (2, 1 + 2 + 16, 48)


def test_weight_paths_are_public():
    assert [path_of(w) for w in tiny(num_layers=1).weights] == [
        "patch_embedding/kernel",
        "patch_embedding/bias",
        "class_token/tokens",
        "position_embedding/prefix",
        "position_embedding/grid",
        "block_0/attention_norm/gamma",
        "block_0/attention_norm/beta",
        "block_0/attention/qkv/kernel",
        "block_0/attention/qkv/bias",
        "block_0/attention/projection/kernel",
        "block_0/attention/projection/bias",
        "block_0/mlp_norm/gamma",
        "block_0/mlp_norm/beta",
        "block_0/mlp/dense_1/kernel",
        "block_0/mlp/dense_1/bias",
        "block_0/mlp/dense_2/kernel",
        "block_0/mlp/dense_2/bias",
        "encoder_norm/gamma",
        "encoder_norm/beta",
        "head/kernel",
        "head/bias",
    ]


@pytest.mark.one_backend
def test_weight_paths_of_a_modern_model():
    paths = {path_of(w) for w in tiny(num_layers=1, **MODERN).weights}
    plain = {path_of(w) for w in tiny(num_layers=1, num_registers=3).weights}
    norms = ["pre_norm", "block_0/attention/query_norm", "block_0/attention/key_norm"]
    assert paths - plain == {
        f"{norm}/{weight}" for norm in (*norms, "fc_norm") for weight in ("gamma", "beta")
    }
    assert plain - paths == {
        "block_0/attention/qkv/bias",
        "encoder_norm/gamma",
        "encoder_norm/beta",
    }


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        ({"mlp": "quick_gelu"}, 0),
        ({"mlp": "swiglu"}, 2 * (48 + 1) * 96),  # as many again into two hidden layers
        ({"mlp": "swiglu", "pooling": "map", "class_token": True}, 2 * (48 + 1) * 96),
        ({"qk_norm": True}, 2 * 4 * 12),
        ({"qkv_bias": False}, -2 * 3 * 48),
        ({"qkv_bias": "qv"}, -2 * 48),
        ({"attention_sub_norm": True, "mlp_sub_norm": True}, 2 * 2 * (48 + 96)),
        ({"qkv_bias": False, "pooling": "map", "class_token": True}, -2 * 3 * 48),
        ({"pre_norm": True}, 2 * 48 - 48),  # the patches lose their bias
        ({"pre_norm": True, "patch_bias": True}, 2 * 48),
        ({"patch_bias": False}, -48),
        ({"fc_norm": True}, 0),
        ({"final_norm": False}, -2 * 48),
        ({"pooling": "map", "class_token": True, "pooling_num_heads": 8}, 0),
        ({"pooling": "map", "pooling_mlp_dim": 100}, 4 * (2 * 48 + 1)),
        ({"pooling": "gap", "class_token": True, "pooling_prefix": True}, 0),
        ({"num_prefix_positions": 0}, -48),
        ({"num_registers": 3, "num_prefix_positions": 4}, 3 * 48),
    ],
)
def test_parameter_counts(arguments, more):
    shared = ("pooling", "class_token", "num_registers")
    plain = tiny(**{key: arguments[key] for key in shared if key in arguments})
    assert tiny(**arguments).count_params() == plain.count_params() + more


@pytest.mark.one_backend
def test_each_weight_is_created_once(monkeypatch):
    created = []
    add_weight = keras.layers.Layer.add_weight

    def counting(layer, *args, **kwargs):
        created.append(add_weight(layer, *args, **kwargs))
        return created[-1]

    monkeypatch.setattr(keras.layers.Layer, "add_weight", counting)
    model = keras_vit.VisionTransformer(**TINY, classes=10, pooling="map", num_registers=2)
    assert len(created) == len(model.weights)


@pytest.mark.parametrize("pooling", ["token", "gap", "map"])
@pytest.mark.parametrize("num_registers", [0, 3])
def test_features_are_every_token_by_kind(pooling, num_registers):
    model = tiny(pooling=pooling, class_token=True, num_registers=num_registers, classes=0)
    x = images()
    features = model.features(x)
    every = tiny(pooling=None, class_token=True, num_registers=num_registers, classes=0)
    for weight in every.weights:
        weight.assign(next(w for w in model.weights if path_of(w) == path_of(weight)))
    tokens = array(every(x))
    assert_close(features["class_token"], tokens[:, 0])
    assert ("registers" in features) == bool(num_registers)
    if num_registers:
        assert_close(features["registers"], tokens[:, 1:4])
    assert_close(features["patch_tokens"], tokens[:, 1 + num_registers :])
    assert_close(features["pooled"], model(x))


@pytest.mark.parametrize("pooling", ["token", "gap", "map"])
def test_features_under_fc_norm_are_of_the_last_block(pooling):
    model = tiny(pooling=pooling, fc_norm=True, full_last_block=True, classes=0)
    features = model.features(images())
    last = keras.Model(model.input, model.get_layer("block_1").output)
    patches = array(last(images()))[:, int(pooling == "token") :]
    assert_close(features["patch_tokens"], patches)
    assert_close(features["pooled"], model(images()))


def test_fc_norm_of_the_class_token_is_its_encoder_norm():
    every, pooled = tiny(), tiny(fc_norm=True)
    pooled.set_weights(every.get_weights())
    names = {layer.name for layer in pooled.layers}
    assert "fc_norm" in names
    assert "encoder_norm" not in names
    assert_close(pooled(images()), every(images()), tolerance=2e-6)
    assert_close(pooled.features(images())["pooled"], every.features(images())["pooled"])


def test_avg_is_keras_applications_name_of_gap():
    model = tiny(pooling="avg")
    assert model.get_config()["pooling"] == "gap"
    assert type(model).from_config(model.get_config()).get_config() == model.get_config()


def test_fc_norm_comes_after_the_mean():
    model = tiny(pooling="gap", fc_norm=True, classes=0)
    mean = array(model.features(images())["patch_tokens"]).mean(1)
    assert_close(model(images()), model.get_layer("fc_norm")(mean))


def test_pre_norm_stands_between_dropout_and_the_blocks():
    model = tiny(pre_norm=True, dropout_rate=0.1)
    norm = model.get_layer("pre_norm")
    assert norm.input is model.get_layer("embedding_dropout").output
    assert norm.output is model.get_layer("block_0").input


@pytest.mark.parametrize("own", [0, 1, 2, 4])
def test_the_first_tokens_of_the_prefix_own_positions(own):
    model = tiny(num_registers=3, num_prefix_positions=own)
    tokens = array(
        keras.Model(model.input, model.get_layer("position_embedding").output)(images())
    )
    values = weights(model)
    expected = np.concatenate([values["class_token/tokens"], values["registers/tokens"]])
    if own:
        expected[:own] += values["position_embedding/prefix"]
    np.testing.assert_allclose(tokens[0, :4], expected, atol=1e-6)


@pytest.mark.one_backend
def test_features_leave_the_model_as_it_was():
    model = tiny()
    nodes = {layer.name: len(layer._inbound_nodes) for layer in model.layers}
    model.features(images())
    assert {layer.name: len(layer._inbound_nodes) for layer in model.layers} == nodes


@pytest.mark.parametrize("fields", [{}, MODERN], ids=["plain", "modern"])
def test_the_last_block_computes_the_class_token_alone_unless_told(fields):
    cut, full = tiny(**fields), tiny(**fields, full_last_block=True)
    full.set_weights(cut.get_weights())
    tokens = 17 + fields.get("num_registers", 0)
    assert cut.get_layer("block_1").output.shape == (None, 1, 48)
    assert full.get_layer("block_1").output.shape == (None, tokens, 48)
    assert_close(cut(images()), full(images()), tolerance=2e-6)


@pytest.mark.parametrize("position", ["learned", "learned2d", "sincos", "sincos2d", "none"])
def test_any_size_equals_the_model_of_that_size(position):
    any_size = tiny(input_shape=(None, None, 3), position=position)
    for height, width in [(32, 32), (64, 48), (16, 40)]:
        fixed = keras_vit.from_pretrained(any_size, input_shape=(height, width, 3))
        x = images(height, width)
        assert_close(any_size(x), fixed(x))
        assert_close(any_size.predict(x, verbose=0), fixed(x))


def test_any_size_trains():
    model = tiny(input_shape=(None, None, 3))
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = weights(model)
    model.fit(images(48, 64), np.array([1, 2]), verbose=0)
    model.fit(images(24, 24), np.array([1, 2]), verbose=0)
    grid = "position_embedding/grid"
    assert (weights(model)[grid] != before[grid]).any()


def test_any_size_still_means_whole_patches():
    model = tiny(input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="images of 36 x 32 pixels"):
        model(images(36, 32))


def test_channels_first_equals_channels_last():
    last = tiny()
    first = tiny(data_format="channels_first")
    first.set_weights(last.get_weights())
    assert first.input_shape == (None, 3, 32, 32)
    x = images()
    assert_close(first(np.transpose(x, (0, 3, 1, 2))), last(x), tolerance=2e-6)
    keras.config.set_image_data_format("channels_first")
    assert tiny().get_config()["data_format"] == "channels_first"
    # A saved model keeps its own data format, whatever the session's default is.
    assert keras_vit.VisionTransformer.from_config(last.get_config()).input_shape[-1] == 3


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("by", ["argument", "global policy"])
def test_mixed_precision_trains_with_float32_logits(precision, by):
    full = tiny(dropout_rate=0.0, classifier_activation=None)
    if by == "argument":
        model = tiny(classifier_activation=None, dtype=precision)
    else:
        keras.config.set_dtype_policy(precision)
        model = tiny(classifier_activation=None)
    model.set_weights(full.get_weights())
    outputs = model(images())
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert_close(outputs, full(images()), tolerance=0.05)
    assert model.get_layer("block_0").output.dtype == precision.removeprefix("mixed_")
    assert all(weight.dtype == "float32" for weight in model.weights)

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    history = model.fit(images(), np.array([3, 7]), epochs=12, verbose=0)
    losses = history.history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] / 2


PURE = {
    "plain": {"dropout_rate": 0.1, "attention_dropout_rate": 0.1, "drop_path_rate": 0.1},
    "modern": MODERN,
    "hybrid": HYBRID,
    "map": {"pooling": "map", "include_preprocessing": True},
    "merged": {"merged_tokens": 2, "mlp": "geglu", "position": "sincos2d"},
}


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "bfloat16") for name in PURE), ("plain", "float16"), ("hybrid", "float16")],
)
def test_weights_in_half_precision(name, precision):
    """Everything is half but the logits: a forward pass, and a step of training."""
    fields = {**PURE[name], "classifier_activation": None}
    full = tiny(**fields)
    model = tiny(**fields, dtype=precision)
    model.set_weights(full.get_weights())
    assert {weight.dtype for weight in model.weights} >= {precision}
    x = images() * 127 + 128 if "include_preprocessing" in fields else images()
    assert_close(model.predict(x, verbose=0), full(x), tolerance=0.1)
    before = model.get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    assert np.isfinite(model.fit(x, np.array([3, 7]), verbose=0).history["loss"]).all()
    after = model.get_weights()
    assert all(np.isfinite(w.astype("float32")).all() for w in after)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("fields", [MODERN, HYBRID], ids=["modern", "hybrid"])
def test_other_models_in_mixed_precision(fields):
    full = tiny(**fields, classifier_activation=None)
    model = tiny(**fields, classifier_activation=None, dtype="mixed_bfloat16")
    model.set_weights(full.get_weights())
    outputs = model(images())
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert model.get_layer("block_0").compute_dtype == "bfloat16"
    assert all(weight.dtype == "float32" for weight in model.weights)
    assert_close(outputs, full(images()), tolerance=0.05)


def test_precision_is_saved(tmp_path):
    tiny(dtype="mixed_bfloat16").save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.dtype_policy.name == "mixed_bfloat16"
    assert loaded.get_layer("block_0").compute_dtype == "bfloat16"
    assert loaded.get_layer("head").compute_dtype == "float32"


def test_compiled_and_eager_agree():
    model = tiny(num_layers=1)
    x = images()
    eager = array(model(x))
    model.compile(jit_compile=True)
    assert_close(model.predict(x, verbose=0), eager)
    model.compile(run_eagerly=True)
    assert_close(model.predict(x, verbose=0), eager)


def test_compiled_and_eager_training_agree():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    fields = {"num_layers": 1, "classifier_activation": None}
    compiled, eager = tiny(**fields), tiny(**fields)
    eager.set_weights(compiled.get_weights())
    compiled.compile(keras.optimizers.SGD(0.1, 0.9), loss, jit_compile=True)
    eager.compile(keras.optimizers.SGD(0.1, 0.9), loss, run_eagerly=True)
    x, labels = images(), np.arange(2)
    for _ in range(3):
        assert_close(compiled.train_on_batch(x, labels), eager.train_on_batch(x, labels))
    for one, other in zip(compiled.weights, eager.weights, strict=True):
        assert_close(one, other)


def test_preprocessing_inside_the_model_equals_preprocess_input():
    inside, outside = tiny(include_preprocessing=True), tiny()
    inside.set_weights(outside.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype="uint8")
    assert_close(inside(pixels), outside(keras_vit.preprocess_input(pixels)))
    assert_close(inside.predict(pixels, verbose=0), inside(pixels))


def test_build_on_an_input_tensor():
    inputs = keras.Input((32, 32, 3), name="picture")
    model = tiny(input_tensor=inputs)
    assert model.input is inputs
    assert model(images()).shape == (2, 10)


def test_options_reach_the_layers():
    options = {
        "mlp": "quick_gelu",
        "gelu_approximate": False,
        "qkv_bias": False,
        "qk_norm": True,
        "layer_norm_epsilon": 1e-3,
        "layer_scale": 0.3,
        "dropout_rate": 0.1,
        "attention_dropout_rate": 0.2,
    }
    model = tiny(
        **options,
        pooling="map",
        position_interpolation="bicubic",
        pre_norm=True,
    )
    block = model.get_layer("block_1").get_config()
    assert {key: block[key] for key in options} == options
    pooling = model.get_layer("pooling").get_config()
    assert pooling["activation"] == "quick_gelu"
    assert pooling["gelu_approximate"] is False
    assert pooling["layer_norm_epsilon"] == 1e-3
    for attention_norm in ("query_norm", "key_norm"):
        attention = model.get_layer("block_1").attention
        assert getattr(attention, attention_norm).epsilon == 1e-3
    assert model.get_layer("pre_norm").epsilon == 1e-3
    assert model.get_layer("encoder_norm").epsilon == 1e-3
    assert tiny(fc_norm=True, **options).get_layer("fc_norm").epsilon == 1e-3
    assert model.get_layer("position_embedding").interpolation == "bicubic"
    assert model.get_layer("embedding_dropout").rate == 0.1


def test_drop_path_grows_linearly_with_depth():
    model = tiny(num_layers=3, drop_path_rate=0.2)
    rates = [model.get_layer(f"block_{i}").drop_path_rate for i in range(3)]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2])


@pytest.mark.parametrize("fields", [{}, HYBRID], ids=["plain", "hybrid"])
def test_an_exported_model_computes_the_same(fields, tmp_path):
    model = tiny(**fields)
    if keras.backend.backend() == "torch":
        import torch

        if keras.__version__.startswith("3.14"):
            pytest.skip("Keras exports to torch from 3.15 on")
        model.export(tmp_path / "model.pt2", format="torch", verbose=False)
        exported = torch.export.load(tmp_path / "model.pt2").module()
        output = exported(torch.from_numpy(images(batch=1)))
        assert_close(output, model(images(batch=1)))
    else:
        import tensorflow as tf

        if keras.backend.backend() == "jax":
            import jax

            if jax.__version_info__ >= (0, 11):
                pytest.skip("Keras writes StableHLO that TensorFlow 2.21 does not read yet")
        model.export(tmp_path / "model", verbose=False)
        exported = tf.saved_model.load(tmp_path / "model")
        assert_close(exported.serve(images()).numpy(), model(images()))


@pytest.mark.parametrize("fields", [{}, MODERN], ids=["plain", "modern"])
def test_quantized_model_stays_close(fields):
    model = tiny(classifier_activation=None, **fields)
    expected = array(model(images()))
    with pytest.warns(UserWarning, match="does not have a `quantize` method"):
        model.quantize("int8")
    assert model.get_layer("block_0").attention.qkv.kernel.dtype == "int8"
    assert_close(model(images()), expected, tolerance=0.1)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"image_size": 30},
            r"image_size=\(30, 30\) \(height, width\), patch_size=\(8, 8\)",
        ),
        ({"patch_size": 5}, r"divisible by `patch_size`.*patch_size=\(5, 5\)"),
        ({"num_heads": 5}, "hidden_dim=48, num_heads=5"),
        ({"pooling": "mean"}, "'token', 'gap', 'map', .*None. Received: pooling='mean'"),
        ({"pooling": "max"}, "Max pooling is not offered.*'token', 'gap', 'map'"),
        (
            {"pooling": None},
            "classes=10, pooling=None. Use pooling='token', 'gap', 'map'",
        ),
        ({"class_token": False}, "class_token=False. Use pooling='gap' or 'map'"),
        ({"class_token": False, "pooling": "token_gap"}, "'token_gap'` reads the class"),
        ({"pooling_num_heads": 2}, "argument of pooling='map' or 'query'.*pooling='token'"),
        ({"pooling_mlp_dim": 9, "pooling": "query"}, "argument of pooling='map'. Received"),
        ({"pooling_prefix": True}, "argument of pooling='gap' or 'map' or 'query'"),
        ({"pooling": "map", "pooling_num_heads": 5}, "pooling_num_heads=5, hidden_dim=48"),
        ({"final_norm": False, "fc_norm": True}, "fc_norm=True, final_norm=False"),
        (
            {"position": "rotary"},
            "'learned2d', 'sincos', 'sincos2d', 'none', 'relative', 'relative_key'. Received",
        ),
        ({"position_interpolation": "area"}, "position_interpolation='area'"),
        ({"mlp": "reglu"}, "'swiglu', 'geglu'. Received: mlp='reglu'"),
        (
            {"fc_norm": True, "pooling": None, "classes": 0},
            "fc_norm=True, pooling=None. Use pooling='token', 'gap' or 'map', or fc_norm",
        ),
        (
            {"num_prefix_positions": 4, "num_registers": 2},
            r"num_prefix_positions=4, class_token=True, num_registers=2 \(3 tokens\)",
        ),
        ({"num_prefix_positions": -1}, "num_prefix_positions=-1"),
        ({"num_prefix_positions": 0.5}, "num_prefix_positions=0.5"),
        ({"num_prefix_positions": 1, "pooling": "gap"}, "class_token=False"),
        (
            {"num_prefix_positions": 1, "position": "sincos2d"},
            "num_prefix_positions=1.*position='sincos2d'",
        ),
        ({"drop_path_rate": 1.5}, "drop_path_rate=1.5"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"classes": -1}, "classes=-1"),
        ({"input_shape": (32, 32)}, r"\(height, width, channels\).*input_shape=\(32, 32\)"),
        ({"input_shape": (64, 32, 3)}, r"input_shape=\(64, 32, 3\), image_size=\(32, 32\)"),
        ({"data_format": "NCHW"}, "data_format='NCHW'"),
        (
            {"input_tensor": keras.Input((64, 64, 3))},
            r"tensor of shape \(None, 64, 64, 3\)",
        ),
        ({"input_tensor": keras.Input((32, 32, 3)) * 2}, "must be a `keras.Input`"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_a_misspelt_argument_is_refused():
    with pytest.raises(TypeError, match="drop_rate"):
        tiny(drop_rate=0.1)


def test_images_with_another_number_of_channels_are_refused():
    with pytest.raises(ValueError, match=r"expected shape=\(None, 32, 32, 3\)"):
        tiny()(images(channels=4))


def test_models_that_wait_for_values_draw_none():
    fields = {
        **TINY,
        "classes": 10,
        "num_registers": 2,
        "pooling": "map",
        "class_token": True,
    }
    with waiting_for_values():
        waiting = keras_vit.VisionTransformer(**fields)
    for path, value in weights(waiting).items():
        assert value.min() == value.max(), path
    drawn = weights(keras_vit.VisionTransformer(**fields))
    assert drawn["block_0/mlp/dense_1/kernel"].std() > 0
    # Copies of its layers are initialized as ever.
    clone = weights(keras.models.clone_model(waiting))
    assert clone["block_0/mlp/dense_1/kernel"].std() > 0


@pytest.mark.parametrize(
    "overrides",
    [
        {"drop_path_rate": 0.1, "layer_scale": 1e-5, "num_registers": 2},
        {"pooling": "map", "mlp": "swiglu", "qk_norm": True, "pre_norm": True},
        {"patch_size": 1, "stem": {"num_units": (1, 1)}, "pooling": "gap", "fc_norm": True},
    ],
)
def test_a_new_model_is_built(overrides):
    """Else Keras' `predict` first calls it op by op, for minutes on JAX."""
    layers = tiny(**overrides)._flatten_layers()
    assert [layer.name for layer in layers if not layer.built] == []
