"""Attention maps: those that the model applies, of every kind of model, in bounded memory."""

import tracemalloc

import by_hand
import keras
import numpy as np
import pytest
from helpers import REFERENCE, array, assert_close, images, reference, tiny

import keras_vit
from keras_vit import analysis
from keras_vit.layers import kernels, observation
from keras_vit.layers.observation import Observer, observed_by

VARIANTS = {
    "class token": {},
    "mean": {"pooling": "gap"},
    "registers and norms": {"num_registers": 3, "qk_norm": True, "pre_norm": True},
    "distilled": {"distilled": True},
    "rotary": {"rope": "axial", "position": "none", "hidden_dim": 32},
    "relative": {"position": "relative", "qkv_bias": "qv", "pooling": "gap"},
    "no biases": {"qkv_bias": False, "projection_bias": False, "attention_sub_norm": True},
    "norms after": {"norm_after": True, "layer_scale": 0.5},
    "not square": {"image_size": (16, 40), "patch_size": (8, 10), "rope": "axial"},
    "hybrid": {"patch_size": 1, "stem": {"num_units": (1, 1), "width_factor": 0.5}},
    "channels first": {"data_format": "channels_first"},
    "any size": {"input_shape": (None, None, 3)},
    "every token": {"pooling": None, "classes": 0},
}
each_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


def batch_for(model, batch=2):
    height, width = model.arguments["image_size"]
    found = images(height, width, batch=batch)
    is_last = model.arguments["data_format"] == "channels_last"
    return found if is_last else found.transpose(0, 3, 1, 2)


def inputs_of_blocks(model, batch):
    """Inputs of each of two blocks, every token, in float64."""
    first = "pre_norm" if model.arguments["pre_norm"] else "position_embedding"
    return by_hand.outputs_of(model, first, "block_0")(batch)


@pytest.fixture(scope="module")
def original():
    """(a model of transformers' layout, what transformers computes from it)."""
    model = keras_vit.from_pretrained(REFERENCE / "hf_vit")
    return model, reference("hf_vit_attentions")


def test_maps_of_transformers(original):
    model, expected = original
    maps = analysis.attention_maps(model, expected["input"])
    assert maps.dtype == "float32"
    assert_close(maps, expected["attentions"])
    for blocks in ([1], -1, [-2], range(2)):
        some = analysis.attention_maps(model, expected["input"], blocks, batch_size=1)
        places = [blocks] if isinstance(blocks, int) else list(blocks)
        assert_close(some, expected["attentions"][places])


@each_variant
def test_maps_are_the_formula(variant):
    """On the inputs of the model's own blocks; the last block computes the class token alone
    in some of these models."""
    model = tiny(**variant)
    batch = batch_for(model)
    grid = analysis.token_grid(model, batch)
    maps = analysis.attention_maps(model, batch)
    assert maps.shape == (2, 2, 4, grid.num_tokens, grid.num_tokens)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
    for i, tokens in enumerate(inputs_of_blocks(model, batch)):
        block, size = model.get_layer(f"block_{i}"), (grid.rows, grid.columns)
        assert_close(maps[i], by_hand.attention_weights(block, tokens, size))


def test_grid_of_the_tokens():
    """Patches in pixels of the image, also behind a ResNet and in images of another size."""

    def grid(shape=(2, 32, 32, 3), **fields):
        return analysis.token_grid(tiny(**fields), np.zeros(shape))

    assert grid() == analysis.TokenGrid(4, 4, (8, 8), 1)
    assert grid(**VARIANTS["registers and norms"]).num_prefix == 4
    assert grid(distilled=True, num_registers=2).num_prefix == 4
    assert grid(pooling="gap").num_prefix == 0
    wide = grid((1, 16, 40, 3), **VARIANTS["not square"])
    assert wide == analysis.TokenGrid(2, 4, (8, 10), 1)
    assert grid(**VARIANTS["hybrid"]) == analysis.TokenGrid(4, 4, (8, 8), 1)
    assert grid((1, 3, 32, 32), data_format="channels_first").rows == 4
    other = grid((1, 16, 64, 3), **VARIANTS["any size"])
    assert (other.rows, other.columns, other.num_tokens) == (2, 8, 17)
    tokens = np.arange(17)[None]
    np.testing.assert_array_equal(other.maps(tokens), tokens[:, 1:].reshape(1, 2, 8))


# Merged tokens


def merged_groups(keys, groups, number, prefix):
    """Groups of places after a merging: of the tokens at even places those that are most
    like one at an odd place join it. In NumPy, one token after the other."""
    keys = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    first = [i for i in range(prefix, len(groups)) if i % 2 == 0]
    second = [i for i in range(prefix, len(groups)) if i % 2 == 1]
    edges = [max((keys[i] @ keys[j], i, j) for j in second) for i in first]
    joined = {j: list(groups[j]) for j in second}
    gone = set()
    for _, i, j in sorted(edges, reverse=True)[:number]:
        joined[j] += groups[i]
        gone.add(i)
    left = [groups[i] for i in (*range(prefix), *first) if i not in gone]
    return left + list(joined.values())


@pytest.mark.parametrize("fields", [{}, {"num_registers": 2}, {"pooling": "gap"}])
def test_maps_of_merged_tokens_are_between_places(fields):
    """Rows of a merged token are its row, its column is shared: by loops over places."""
    model = tiny(num_layers=3, merged_tokens=(3, 2, 0), full_last_block=True, **fields)
    batch = batch_for(model)
    grid = analysis.token_grid(model, batch)
    maps = analysis.attention_maps(model, batch)
    assert maps.shape == (3, 2, 4, grid.num_tokens, grid.num_tokens)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
    names = ("position_embedding", "block_0", "block_1")
    inner = keras.Model(model.input, [model.get_layer(name).output for name in names])
    outputs = [np.float64(array(each)) for each in keras.tree.flatten(inner(batch))]
    tokens = outputs[0], outputs[1], outputs[3]
    sizes = None, outputs[2], outputs[4]
    for image in range(2):
        groups = [[i] for i in range(grid.num_tokens)]
        for i in range(3):
            block = model.get_layer(f"block_{i}")
            own = tokens[i][image : image + 1]
            number = None if sizes[i] is None else sizes[i][image : image + 1]
            weights = by_hand.attention_weights(block, own, sizes=number)[0]
            expected = np.zeros(maps.shape[2:])
            for q, queries in enumerate(groups):
                for k, keys in enumerate(groups):
                    share = weights[:, q, k] / len(keys)
                    for place in queries:
                        expected[:, place, keys] = share[:, None]
            assert_close(maps[i, image], expected)
            _, keys, _ = by_hand.projected(
                block.attention, by_hand.norm(own, block.attention_norm)
            )
            merged, prefix = block.merged_tokens, grid.num_prefix
            groups = merged_groups(keys[0].mean(0), groups, merged, prefix)
            if merged:
                assert [len(group) for group in groups] == list(sizes[i + 1][image])


# Reading them changes nothing, and holds little.


def test_watching_changes_no_output():
    model = tiny(merged_tokens=2, pooling="map", pooling_num_heads=2)
    batch = batch_for(model)
    seen = []

    class Watcher(Observer):
        def see_weights(self, weights):
            seen.append(tuple(weights.shape))
            return weights

    with observed_by(Watcher()):
        watched = model(batch)
    assert seen == [(2, 4, 16, 16), (2, 4, 14, 14), (2, 2, 1, 12)]
    assert_close(watched, model(batch))
    assert len(seen) == 3


def test_an_observer_changes_what_the_layer_applies():
    """Every query reads the first key alone."""
    layer = keras_vit.layers.SelfAttention(2)
    tokens = np.random.default_rng(0).normal(size=(1, 5, 8)).astype("float32")
    layer(tokens)

    class First(Observer):
        def see_weights(self, weights):
            only = np.zeros(weights.shape, "float32")
            only[..., 0] = 1
            return keras.ops.convert_to_tensor(only)

    with observed_by(First()):
        outputs = array(layer(tokens))
    value = by_hand.projected(layer, np.float64(tokens))[2][:, :, 0]
    expected = np.einsum("bhk,hkd->bd", value, array(layer.projection.kernel))
    assert_close(outputs, np.broadcast_to(expected[:, None], (1, 5, 8)))


def test_maps_of_a_model_in_half_precision():
    exact, model = tiny(), tiny(dtype="mixed_bfloat16")
    model.set_weights(exact.get_weights())
    batch = batch_for(model)
    maps = analysis.attention_maps(model, batch)
    assert maps.dtype == "float32"
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
    assert_close(maps, analysis.attention_maps(exact, batch), 5e-2)


def test_iterating_gives_blocks_of_batches():
    model = tiny(num_layers=3)
    batch = batch_for(model, batch=5)
    found = analysis.iterate_attention(model, batch, [0, -1], batch_size=2)
    order = [(one.block, one.images.start, one.images.stop) for one in found]
    assert order == [(b, *s) for s in ((0, 2), (2, 4), (4, 5)) for b in (0, 2)]
    expected = analysis.attention_maps(model, batch)
    for block, places, maps in found:
        assert_close(maps, expected[block, places])


@pytest.mark.one_backend
def test_iterating_holds_the_maps_of_a_block_and_batch():
    """All maps would be 48 times as much."""
    model = tiny(image_size=64, patch_size=4, num_layers=6)
    batch = batch_for(model, batch=16)
    found = analysis.iterate_attention(model, batch, batch_size=2)
    one = next(iter(found)).maps.nbytes
    tracemalloc.start()
    for _, _, maps in found:
        assert maps.nbytes == one
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * one


# Errors


def test_models_without_attention_are_refused():
    bit = keras_vit.BiTResNet(32, num_units=(1, 1), width_factor=0.5, classes=3)
    with pytest.raises(ValueError, match=r"Received: model=BiTResNet. It has no attention"):
        analysis.attention_maps(bit, images())
    with pytest.raises(ValueError, match="model=Sequential. It is not built yet"):
        analysis.attention_maps(keras.Sequential([keras.layers.Dense(2)]), images())
    inner = tiny(name="vit")
    outer = keras.Sequential([keras.Input((32, 32, 3)), inner])
    with pytest.raises(ValueError, match=r"model.get_layer\('vit'\)"):
        analysis.attention_maps(outer, images())
    with pytest.raises(ValueError, match="Received: model=str. Pass the model itself"):
        analysis.attention_maps("ViTB16", images())


def test_weights_of_a_compiled_function_are_not_known(monkeypatch):
    """It has been traced without an observer, and asks for none as it runs."""
    monkeypatch.setattr(observation, "attend", kernels.attend)
    with pytest.raises(RuntimeError, match="A function that was compiled before"):
        analysis.attention_maps(tiny(), images())


@pytest.mark.parametrize("blocks", [2, -3, [0, 2], [1, 0], [0, 0], [], "last", [0.0]])
def test_numbers_of_blocks_are_checked(blocks):
    rule = "numbers of blocks from -2 to 1|at least one number, in rising order"
    with pytest.raises(ValueError, match=rule) as error:
        analysis.attention_maps(tiny(), images(), blocks)
    assert f"Received: blocks={blocks!r}" in str(error.value)


def test_a_number_of_numpy_is_a_number():
    model = tiny()
    found = analysis.attention_maps(model, images(), np.int64(-1))
    np.testing.assert_array_equal(found, analysis.attention_maps(model, images(), [1]))


@pytest.mark.parametrize("shape", [(32, 32, 3), (0, 32, 32, 3)])
def test_images_are_a_batch(shape):
    with pytest.raises(ValueError, match=r"A single image is images\[None\]"):
        analysis.attention_maps(tiny(), np.zeros(shape))


@pytest.mark.one_backend
@pytest.mark.parametrize("function", [analysis.attention_maps, analysis.relevance])
def test_images_are_an_array(function):
    with pytest.raises(ValueError, match="Received: a list"):
        function(tiny(), list(images()))
