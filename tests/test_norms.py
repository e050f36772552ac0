"""RMS norm, norms after the branches, and blocks without biases."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import (
    REFERENCE,
    array,
    assert_close,
    assert_same_weights,
    gradient_of,
    images,
    randomize,
    tiny,
    weights,
)
from safetensors.numpy import load_file, save_file

import keras_vit
from keras_vit.layers import MLP, EncoderBlock, RMSNormalization, SelfAttention

TOKENS = np.random.default_rng(0).normal(2, 3, (2, 5, 8)).astype("float32")
WAYS = {
    "rms": {"norm": "rms", "patch_norm": True, "qk_norm": True, "pre_norm": True},
    "rms of the pooled": {"norm": "rms", "fc_norm": True, "mlp_sub_norm": True},
    "after": {"norm_after": True},
    "after, rms": {"norm_after": True, "norm": "rms", "layer_scale": 0.1},
    "no biases": {"mlp_bias": False, "projection_bias": False, "mlp": "swiglu"},
}
each_way = pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("mixed_bfloat16", 0.03)])
def test_rms_norm_is_its_formula(dtype, bound):
    layer = RMSNormalization(epsilon=1e-2, dtype=dtype)
    layer.build(TOKENS.shape)
    randomize(layer)
    (gamma,) = layer.weights
    assert gamma.path.endswith("gamma")
    size = np.sqrt(np.mean(TOKENS**2, axis=-1, keepdims=True) + 1e-2)
    outputs = layer(TOKENS)
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
    outputs = keras.ops.cast(outputs, "float32")
    np.testing.assert_allclose(array(outputs), TOKENS / size * array(gamma), atol=4 * bound)


@pytest.mark.parametrize(
    ("dtype", "bound"), [("float32", 1e-5), ("mixed_bfloat16", 0.02), ("bfloat16", 0.02)]
)
@pytest.mark.parametrize("scale", [1, 1e-4, 100])
def test_gradients_of_rms_norm_are_those_of_its_formula(dtype, bound, scale):
    layer = RMSNormalization(epsilon=1e-6, dtype=dtype)
    layer.build(TOKENS.shape)
    randomize(layer)
    along = np.random.default_rng(1).normal(size=TOKENS.shape).astype("float32")
    # What the layer computes with, in float64 from here.
    inputs = rounded(scale * TOKENS, layer.compute_dtype)
    gamma, weight = array(keras.ops.cast(layer.scale, "float32")), layer.scale

    def loss(x, gamma):
        with keras.StatelessScope([(weight, keras.ops.cast(gamma, weight.dtype))]):
            outputs = layer(keras.ops.cast(x, layer.compute_dtype))
        return keras.ops.sum(keras.ops.multiply(along, keras.ops.cast(outputs, "float32")))

    x, scales, along64 = (a.astype("float64") for a in (inputs, gamma, along))
    size = np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)
    upper = along64 * scales / size
    of_inputs = upper - x * np.mean(upper * x, axis=-1, keepdims=True) / size**2
    of_gamma = np.sum(along64 * x / size, axis=(0, 1))
    assert_close(gradient_of(lambda x: loss(x, gamma), inputs), of_inputs, bound)
    assert_close(gradient_of(lambda g: loss(inputs, g), gamma), of_gamma, bound)


def rounded(values, dtype):
    """Values of a dtype, as float32."""
    values = keras.ops.convert_to_tensor(values, "float32")
    return array(keras.ops.cast(keras.ops.cast(values, dtype), "float32"))


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norms_after_the_branches(norm):
    """x + norm(attention(x)), then x + norm(mlp(x))."""
    block = EncoderBlock(2, 16, norm=norm, norm_after=True)
    block.build(TOKENS.shape)
    randomize(block)
    middle = TOKENS + array(block.attention_norm(block.attention(TOKENS)))
    expected = middle + array(block.mlp_norm(block.mlp(middle)))
    assert_close(block(TOKENS), expected)
    assert_close(block(TOKENS[:, :2], context=TOKENS), expected[:, :2])


@pytest.mark.parametrize(
    "layer",
    [
        SelfAttention(2, projection_bias=False, qkv_bias=False),
        MLP(16, use_bias=False),
        MLP(16, use_bias=False, activation="geglu", sub_norm=True, norm="rms"),
        EncoderBlock(
            2, 16, mlp_bias=False, projection_bias=False, norm="rms", norm_after=True
        ),
    ],
)
def test_layers_without_biases(layer):
    layer = type(layer).from_config(layer.get_config())
    config = layer.get_config()
    layer.build(TOKENS.shape)
    assert not [w.path for w in layer.weights if w.path.endswith("dense_1/bias")]
    assert not [w.path for w in layer.weights if w.path.endswith("projection/bias")]
    assert type(layer).from_config(config).get_config() == config
    assert layer(TOKENS).shape == TOKENS.shape


@each_way
def test_models_are_saved_cloned_and_cut(options, tmp_path):
    model = tiny(image_size=(16, 24), **options)
    outputs = array(model(images(16, 24)))
    assert model.count_params() == keras_vit.describe(model).parameters
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(weights(loaded), weights(model))
    assert_close(loaded(images(16, 24)), outputs, 1e-7)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_close(clone(images(16, 24)), outputs, 1e-7)
    full = tiny(image_size=(16, 24), full_last_block=True, **options)
    full.set_weights(model.get_weights())
    assert_close(full(images(16, 24)), outputs)
    half = tiny(image_size=(16, 24), dtype="mixed_bfloat16", **options)
    half.set_weights(model.get_weights())
    assert np.abs(array(half(images(16, 24))) - outputs).max() < 0.05


@each_way
def test_every_weight_is_trained(options):
    model = tiny(image_size=16, rematerialize=True, **options)
    before = weights(model)
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    keras_vit.training.exclude_from_weight_decay(optimizer, model)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.train_on_batch(images(16, 16, batch=4), np.array([0, 1, 2, 0]))
    assert not [p for p, v in weights(model).items() if (v == before[p]).all()]
    gammas = [w for w in model.weights if w.path.endswith("gamma")]
    assert gammas
    assert not any(optimizer._use_weight_decay(gamma) for gamma in gammas)


@pytest.mark.one_backend
def test_patches_are_normed_before_their_positions():
    model = tiny(patch_norm=True, norm="rms")
    stages = [model.get_layer(n).output for n in ("patch_embedding", "patch_norm")]
    patches, normed = keras.Model(model.input, stages)(images())
    size = np.sqrt(np.mean(array(patches) ** 2, axis=-1, keepdims=True) + 1e-6)
    gamma = weights(model)["patch_norm/gamma"]
    assert_close(normed, array(patches) / size * gamma)
    depths = keras_vit.training.learning_rate_multipliers(model, 0.5)
    first = [f"{model.name}/{n}" for n in ("patch_norm/gamma", "patch_embedding/kernel")]
    assert [depths[path] for path in first] == [0.125, 0.125]


@pytest.mark.one_backend
@pytest.mark.parametrize("layout", ["google", "timm", "huggingface"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm", "rms"),
        ("norm_after", True),
        ("mlp_bias", False),
        ("projection_bias", False),
        ("patch_norm", True),
    ],
)
def test_layouts_refuse_by_name_what_they_cannot_say(layout, name, value, tmp_path):
    # transformers' AIMv2 has RMS norms, but one of the patches, too.
    is_near_aimv2 = (layout, name) == ("huggingface", "norm")
    options = {"pooling": "query", "classes": 0} if is_near_aimv2 else {}
    model = tiny(**{name: value}, **options)
    path = {"google": "a.npz", "timm": "a.safetensors", "huggingface": "a"}[layout]
    if (layout, name) == ("timm", "norm_after"):  # timm's vit_base_patch16_rpn_224
        keras_vit.save_weights(model, tmp_path / path, layout=layout)
        again = keras_vit.from_pretrained(tmp_path / path)
        assert again.get_config()["norm_after"]
        assert_close(again(images()), array(model(images())), 1e-7)
        other = tiny()
        with pytest.raises(ValueError, match="places of norms .* must be the same"):
            keras_vit.load_weights(other, tmp_path / path)
        return
    with pytest.raises(ValueError, match=name):
        keras_vit.save_weights(model, tmp_path / path, layout=layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.one_backend
def test_aimv2_is_written_as_transformers_writes_it(tmp_path):
    model = keras_vit.from_pretrained(REFERENCE / "hf_aimv2")
    keras_vit.save_weights(model, tmp_path / "ours", layout="huggingface")
    folders = (tmp_path / "ours", REFERENCE / "hf_aimv2")
    written, original = (load_file(folder / "model.safetensors") for folder in folders)
    assert_same_weights(written, original)
    written, original = (json.loads((f / "config.json").read_text()) for f in folders)
    for key in written.keys() & original.keys():
        assert written[key] == original[key], key


@pytest.mark.one_backend
@pytest.mark.parametrize(("width", "heads"), [(1024, 8), (768, 12)])
def test_heads_of_a_bare_file_of_aimv2(width, heads, tmp_path):
    """A head has 128 channels in its published sizes, and 64 otherwise."""
    model = keras_vit.VisionTransformer(
        **{"image_size": 28, "patch_size": 14, "hidden_dim": width, "num_layers": 1},
        **{"num_heads": heads, "mlp_dim": 32, "pooling": "gap", "norm": "rms"},
        **{"patch_norm": True, "mlp": "swiglu", "layer_norm_epsilon": 1e-5},
        **dict.fromkeys(("qkv_bias", "projection_bias", "mlp_bias"), False),
    )
    keras_vit.save_weights(model, tmp_path / "ours", layout="huggingface")
    path = tmp_path / "bare.safetensors"
    save_file(load_file(tmp_path / "ours" / "model.safetensors"), path)  # no metadata
    again = keras_vit.from_pretrained(path)
    assert again.get_config()["num_heads"] == heads
    assert again.get_config()["pooling"] == "gap"
    assert_same_weights(weights(again), weights(model))


@pytest.mark.one_backend
def test_fixed_positions_of_aimv2_are_refused(tmp_path):
    folder = shutil.copytree(REFERENCE / "hf_aimv2", tmp_path / "native")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "is_native": True}))
    with pytest.raises(ValueError, match="is_native=True"):
        keras_vit.from_pretrained(folder)


@pytest.mark.one_backend
def test_unknown_norms_are_refused():
    with pytest.raises(ValueError, match="`norm` must be one of 'layer', 'rms'.*'batch'"):
        tiny(norm="batch")
