"""Token merging: what the paper says, in every place of the model, and never unasked."""

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
    randomize,
    tiny,
    weights,
)
from keras import ops

import keras_vit
from keras_vit.layers import EncoderBlock, SelfAttention
from keras_vit.layers.merging import merge_tokens

RNG = np.random.default_rng(0)
COPIES = (1, 4, 6)  # pairs of patches that are made equal
VARIANTS = {
    "token": {},
    "every token in the last block": {"full_last_block": True},
    "gap": {"pooling": "gap"},
    "map": {"pooling": "map", "mlp": "swiglu", "num_registers": 2},
    "map of every token": {"pooling": "map", "pooling_prefix": True, "class_token": True},
    "mean of every token": {"pooling": "gap", "pooling_prefix": True, "num_registers": 3},
    "distilled": {"distilled": True},
    "class token and mean": {"pooling": "token_gap"},
    "query": {"pooling": "query", "pooling_num_heads": 2},
    "registers": {
        "num_registers": 4,
        "class_token": True,
        "pooling": "gap",
        "qk_norm": True,
    },
}
each_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


# The algorithm, in NumPy, one image and one token after the other.


def merged_by_hand(tokens, keys, sizes, number, prefix):
    first = [i for i in range(prefix, len(tokens)) if i % 2 == 0]
    second = [i for i in range(prefix, len(tokens)) if i % 2 == 1]
    edges = []
    for i in first:
        alike = [
            keys[i] @ keys[j] / np.linalg.norm(keys[i]) / np.linalg.norm(keys[j])
            for j in second
        ]
        edges.append((max(alike), i, second[int(np.argmax(alike))]))
    strongest = sorted(edges, reverse=True)[:number]
    groups = {j: [j] for j in second}
    for _, i, j in strongest:
        groups[j].append(i)
    gone = {i for _, i, _ in strongest}
    left = [[i] for i in (*range(prefix), *first) if i not in gone] + list(groups.values())
    total = [sum(sizes[i] for i in group) for group in left]
    averages = [
        sum(sizes[i] * tokens[i] for i in group) / size
        for group, size in zip(left, total, strict=True)
    ]
    return np.array(averages), np.array(total)


def normed(x, layer):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.epsilon)
    return x * array(layer.gamma) + array(layer.beta)


def block_by_hand(block, tokens, sizes):
    """A block on one image: attention, merging, MLP."""
    attention = block.attention
    inputs = normed(tokens, block.attention_norm)
    qkv = np.einsum("td,dshk->sthk", inputs, array(attention.qkv.kernel))
    query, key, value = qkv + array(attention.qkv.bias)[:, None]
    scores = np.einsum("qhk,thk->hqt", query, key) / np.sqrt(key.shape[-1])
    shares = np.exp(scores + np.log(sizes))
    shares /= shares.sum(-1, keepdims=True)
    attended = np.einsum("hqt,thk->qhk", shares, value)
    branch = np.einsum("qhk,hkd->qd", attended, array(attention.projection.kernel))
    tokens = tokens + branch + array(attention.projection.bias)
    if block.merged_tokens:
        number = min(block.merged_tokens, (len(tokens) - block.num_prefix) // 2)
        tokens, sizes = merged_by_hand(tokens, key.mean(1), sizes, number, block.num_prefix)
    hidden = normed(tokens, block.mlp_norm) @ array(block.mlp.dense_1.kernel)
    hidden = hidden + array(block.mlp.dense_1.bias)
    hidden *= (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3))) / 2
    mlp = hidden @ array(block.mlp.dense_2.kernel) + array(block.mlp.dense_2.bias)
    return tokens + mlp, sizes


@pytest.mark.parametrize(
    ("tokens", "prefix", "merged"),
    [
        (17, 1, (4, 9, 0)),  # half of them at most
        (15, 0, (7, 0)),
        (20, 5, (3, 3)),
    ],
)
def test_blocks_compute_what_the_paper_says(tokens, prefix, merged):
    blocks = [
        EncoderBlock(4, 96, merged_tokens=number, num_prefix=prefix) for number in merged
    ]
    x = np.random.default_rng(tokens).normal(size=(3, tokens, 48)).astype("float32")
    states = [(keras.Input((tokens, 48)), None)]
    for block in blocks:
        last, sizes = states[-1]
        outputs = block(last, sizes=sizes)
        states.append(outputs if block.merged_tokens else (outputs, sizes))
        randomize(block)
    model = keras.Model(states[0][0], states[1:])
    outputs = model.predict(x, verbose=0)
    expected = [(image.astype("float64"), np.ones(tokens)) for image in x]
    for block, (actual, sizes) in zip(blocks, outputs, strict=True):
        expected = [block_by_hand(block, *image) for image in expected]
        np.testing.assert_array_equal(sizes, [each for _, each in expected])
        assert_close(actual, np.array([image for image, _ in expected]))
    assert sizes.max() > 2


def test_prefix_and_kept_tokens_stay_to_the_last_bit():
    """Though the class token is the very same as every patch."""
    tokens = np.repeat(RNG.normal(size=(2, 1, 48)), 17, axis=1).astype("float32")
    tokens[:, :, 0] = np.arange(17)
    outputs, sizes = merge_tokens(
        ops.convert_to_tensor(tokens),
        ops.ones((2, 17, 8)),
        3,
        num_prefix=1,
        sizes=ops.convert_to_tensor(np.full((2, 17), 300, "int32")),
    )
    assert array(sizes).tolist() == [[300] * 6 + [1200] + [300] * 7] * 2
    kept = [0, 8, 10, 12, 14, 16]  # the edges are alike: of the first are the sources
    np.testing.assert_array_equal(array(outputs)[:, :6], tokens[:, kept])
    np.testing.assert_array_equal(array(outputs)[:, 7:], tokens[:, 3::2])
    np.testing.assert_allclose(array(outputs)[:, 6, 0], (1 + 2 + 4 + 6) / 4)


@pytest.mark.parametrize("written_out", [False, True])
def test_attention_counts_a_token_as_often_as_its_size(written_out):
    """Also in the attention that is written out for its dropout."""
    layer = SelfAttention(4, dropout_rate=0.5)
    x = RNG.normal(size=(2, 5, 48)).astype("float32")
    layer.build(x.shape)
    randomize(layer)
    layer.dropout.rate = 0.0
    sizes = np.array([[1, 3, 2, 1, 1], [2, 1, 1, 1, 3]], "int32")
    outputs = layer(x, sizes=sizes, training=written_out)
    for image, size, output in zip(x, sizes, array(outputs), strict=True):
        copies = layer(image.repeat(size, axis=0)[None])[0]
        assert_close(output, array(copies)[np.cumsum(size) - 1])


# In the model.


def with_copies():
    """Images in which some patches are the same as those at their left."""
    patches = images().reshape(2, 4, 8, 4, 8, 3).transpose(0, 1, 3, 2, 4, 5)
    patches = patches.reshape(2, 16, 8, 8, 3)
    for i in COPIES:
        patches[:, 2 * i + 1] = patches[:, 2 * i]
    patches = patches.reshape(2, 4, 4, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5)
    return patches.reshape(2, 32, 32, 3)


def pair(**fields):
    """A model that merges as many tokens as there are copies, and one of the same weights
    that merges none.
    """
    fields |= {"position": "none"}
    merging, plain = tiny(**fields, merged_tokens=(len(COPIES), 0)), tiny(**fields)
    plain.set_weights(merging.get_weights())
    return merging, plain


@each_variant
def test_merging_copies_changes_nothing(variant):
    merging, plain = pair(**variant)
    prefix = merging.get_layer("block_0").num_prefix
    between = merging.get_layer("block_0").output[0]
    assert between.shape == (None, prefix + 16 - len(COPIES), 48)
    assert_close(*(model.predict(with_copies(), verbose=0) for model in (merging, plain)))


@pytest.mark.parametrize("variant", ["token", "registers"])
def test_sizes_are_those_of_all_patches(variant):
    model = tiny(**VARIANTS[variant], num_layers=4, merged_tokens=(5, 0, 5, 5))
    prefix = model.get_layer("block_0").num_prefix
    blocks = [model.get_layer(f"block_{i}").output for i in range(3)]
    assert blocks[1].shape == (None, prefix + 11, 48)
    outputs = keras.Model(model.input, [blocks[0], blocks[2]]).predict(images(), verbose=0)
    left = []
    for tokens, sizes in outputs:
        assert tokens.shape[:2] == sizes.shape
        assert (sizes[:, :prefix] == 1).all()
        np.testing.assert_array_equal(sizes.sum(1), prefix + 16)
        left.append(tokens.shape[1] - prefix)
    features = model.features(images())
    left.append(features["patch_tokens"].shape[1])
    assert left == [11, 6, 3]  # 5, 5, and of 6 half
    np.testing.assert_array_equal(array(features["patch_sizes"]).sum(1), [16, 16])
    assert features["pooled"].shape == (2, 48)


def test_every_token_as_output():
    model = tiny(pooling=None, classes=0, merged_tokens=4)
    features = model.features(images())
    expected = [features["class_token"][:, None], features["patch_tokens"]]
    assert_close(model(images()), ops.concatenate(expected, axis=1))
    assert model.output_shape == (None, 1 + 16 - 8, 48)


def test_a_hybrid_of_a_non_square_image_merges():
    stem = {"num_units": (1, 1), "width_factor": 0.5}
    model = tiny(image_size=(32, 48), patch_size=1, stem=stem, merged_tokens=(8, 8))
    assert model.get_layer("block_0").output[0].shape == (None, 1 + 24 - 8, 48)
    assert model(images(32, 48)).shape == (2, 10)


def test_off_is_the_model_without():
    """Also for older configs; a number without effect becomes 0."""
    model = tiny()
    config = model.get_config()
    assert config.pop("merged_tokens") == 0
    for fields in (config, {**config, "merged_tokens": (0, 0)}):
        other = keras_vit.VisionTransformer.from_config(fields)
        other.set_weights(model.get_weights())
        np.testing.assert_array_equal(array(other(images())), array(model(images())))
        assert other.get_layer("block_0").output.shape == (None, 17, 48)
        assert "patch_sizes" not in other.features(images())
    whole = keras_vit.VisionTransformer(**{**TINY, "patch_size": 32}, merged_tokens=3)
    assert whole.get_layer("block_0").output.shape == (None, 2, 48)


def test_merging_is_an_override_and_is_saved(tmp_path):
    plain = tiny(num_layers=3)
    plain.save(tmp_path / "plain.keras")
    keras_vit.save_weights(plain, tmp_path / "plain.safetensors", layout="timm")
    model = keras_vit.from_pretrained(plain, merged_tokens=[4, 2, 0])
    expected = array(model(images()))
    assert np.abs(expected - array(plain(images()))).max() > 1e-4
    for name in ("plain.keras", "plain.safetensors"):
        other = keras_vit.from_pretrained(tmp_path / name, merged_tokens=(4, 2, 0))
        assert_close(other(images()), expected)
    model.save(tmp_path / "merging.keras")
    loaded = keras.models.load_model(tmp_path / "merging.keras")
    revived = type(model).from_config(json.loads(json.dumps(model.get_config())))
    revived.set_weights(model.get_weights())
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert loaded.get_config() == model.get_config()
    for other in (loaded, revived, clone):
        np.testing.assert_array_equal(array(other(images())), expected)
    assert_same_weights(weights(loaded), weights(plain))
    larger = keras_vit.from_pretrained(loaded, input_shape=(64, 64, 3))
    assert larger.get_layer("block_1").output[0].shape == (None, 65 - 6, 48)
    off = keras_vit.from_pretrained(loaded, merged_tokens=0)
    np.testing.assert_array_equal(array(off(images())), array(plain(images())))


def test_half_precision_is_that_of_the_model_without():
    merging, plain = pair(**VARIANTS["map"], dtype="mixed_bfloat16")
    tokens, sizes = merging.get_layer("block_0").output
    assert (tokens.dtype, sizes.dtype) == ("bfloat16", "int32")
    actual, expected = (
        model.predict(with_copies(), verbose=0) for model in (merging, plain)
    )
    assert_close(actual, expected, tolerance=0.05)


def test_training_moves_every_weight_also_where_blocks_are_computed_once_more():
    fields = {"merged_tokens": (5, 4), "num_registers": 1, "pooling": "map"}
    fields |= {"attention_dropout_rate": 0.1, "drop_path_rate": 0.2}
    trained = []
    for rematerialize in (False, True):
        keras.utils.set_random_seed(0)
        model = tiny(**fields, rematerialize=rematerialize)
        before = weights(model)
        model.compile(keras.optimizers.SGD(0.5), "mse")
        model.fit(images(), np.eye(10)[[1, 2]], epochs=2, verbose=0)
        trained.append(weights(model))
    for path, value in trained[0].items():
        assert np.isfinite(value).all(), path
        assert (value != before[path]).any(), path
        np.testing.assert_allclose(trained[1][path], value, atol=1e-5, err_msg=path)


def test_keys_that_are_zero_have_finite_gradients():
    model = tiny(merged_tokens=4, pooling="gap")
    kernel = model.get_layer("block_0").attention.qkv
    kernel.kernel.assign(array(kernel.kernel) * [[[1]], [[0]], [[1]]])
    kernel.bias.assign(array(kernel.bias) * [[[1]], [[0]], [[1]]])
    model.compile("sgd", "mse")
    model.fit(images(), np.eye(10)[[1, 2]], verbose=0)
    assert all(np.isfinite(value).all() for value in weights(model).values())


# What Keras' backend has no part in.


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"merged_tokens": -1}, "integer of at least 0, or one for each.*merged_tokens=-1"),
        ({"merged_tokens": True}, "integer of at least 0.*merged_tokens=True"),
        ({"merged_tokens": 2.0}, r"integer of at least 0.*merged_tokens=2\.0"),
        ({"merged_tokens": (2, 2, 2)}, r"each of the 2 blocks.*\(2, 2, 2\)"),
        ({"merged_tokens": "many"}, "each of the 2 blocks.*'many'"),
        (
            {"merged_tokens": 2, "input_shape": (None, None, 3)},
            r"must know their number.*\(None, None, 3\).*Give an `input_shape` with height and width",
        ),
    ],
)
def test_what_cannot_be_merged(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)


@pytest.mark.one_backend
def test_a_model_of_any_size_merges_once_it_has_one():
    model = tiny(input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="must know their number"):
        keras_vit.from_pretrained(model, merged_tokens=2)
    fixed = keras_vit.from_pretrained(model, input_shape=(64, 32, 3), merged_tokens=2)
    assert fixed.get_layer("block_0").output[0].shape == (None, 33 - 2, 48)
    with pytest.raises(ValueError, match=r"tokens_shape=\(None, None, 48\)"):
        EncoderBlock(4, 96, merged_tokens=2)(keras.KerasTensor((None, None, 48)))


@pytest.mark.one_backend
def test_symbolic_outputs_are_the_computed_ones():
    x = RNG.normal(size=(2, 9, 48)).astype("float32")
    for fields, options in [
        ({}, {}),
        ({"merged_tokens": 3}, {}),
        ({"merged_tokens": 9, "num_prefix": 8}, {}),
        ({"merged_tokens": 3}, {"context": x[:, :5]}),
    ]:
        block = EncoderBlock(4, 96, **fields)
        symbols = {key: keras.KerasTensor(value.shape) for key, value in options.items()}
        expected = keras.tree.flatten(block(keras.KerasTensor(x.shape), **symbols))
        actual = keras.tree.flatten(block(x, **options))
        for one, other in zip(actual, expected, strict=True):
            assert tuple(one.shape) == other.shape
            assert keras.backend.standardize_dtype(one.dtype) == other.dtype
    keys = SelfAttention(4)(keras.KerasTensor(x.shape), return_keys=True)[1]
    assert keys.shape == SelfAttention(4)(x, return_keys=True)[1].shape


@pytest.mark.one_backend
def test_on_the_command_line(tmp_path, capsys):
    from PIL import Image

    from keras_vit.cli import main
    from keras_vit.runs import load_classifier

    def run(*arguments):
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    source, image = tmp_path / "plain.keras", tmp_path / "image.png"
    model = tiny()
    model.save(source)
    Image.fromarray(RNG.integers(0, 256, (32, 32, 3), "uint8")).save(image)
    merging = keras_vit.from_pretrained(model, merged_tokens=5)
    pixels = keras_vit.data.load_images([image], load_classifier(source).pipeline)
    for options, expected in [
        ((), model),
        (("--merged-tokens", 5), merging),
        (("--merged-tokens", "5,5"), merging),
    ]:
        shown = json.loads(run("predict", source, image, "--json", *options))
        top = shown["predictions"][0]["probability"]
        assert top == pytest.approx(array(expected(pixels)).max(), abs=1e-5)
    target = tmp_path / "merging.safetensors"
    text = run("convert", source, target, "--set", "merged_tokens=5")
    assert "to read it, give merged_tokens=5" in text
    merging.save(tmp_path / "merging.keras")
    options = ("--set", "merged_tokens=5")
    assert "The same" in run("verify", tmp_path / "merging.keras", target, *options)
