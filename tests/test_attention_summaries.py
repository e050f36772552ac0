"""Summaries of attention maps: rollout, distances, and maps over the image."""

import by_hand
import numpy as np
import pytest
from helpers import REFERENCE, array, assert_close, images, reference, tiny

import keras_vit
from keras_vit import analysis


@pytest.fixture(scope="module")
def original():
    """(a model of transformers' layout, arrays computed from transformers' maps)."""
    model = keras_vit.from_pretrained(REFERENCE / "hf_vit")
    return model, reference("hf_vit_attentions")


def random_maps(blocks, batch, heads, tokens):
    scores = np.random.default_rng(0).normal(
        scale=2, size=(blocks, batch, heads, tokens, tokens)
    )
    return by_hand.softmax(scores).astype("float32")


# Rollout


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_rollout_of_the_reference(original, batch_size):
    """From an array, and from the model block by block."""
    model, expected = original
    maps = expected["attentions"]
    if batch_size:
        maps = analysis.iterate_attention(model, expected["input"], batch_size=batch_size)
    rollout = analysis.attention_rollout(maps)
    assert_close(rollout, expected["rollout"])
    last = analysis.attention_rollout(maps, last_only=True)
    np.testing.assert_array_equal(last, rollout[-1])
    np.testing.assert_allclose(rollout.sum(-1), 1, atol=1e-5)


def test_rollout_map_of_the_reference(original):
    model, expected = original
    found = analysis.rollout_map(model, expected["input"], batch_size=1)
    assert_close(found, expected["class_map"])


@pytest.mark.one_backend
def test_rollout_is_the_product_of_means():
    maps = random_maps(3, 2, 4, 6)
    rollout = analysis.attention_rollout(maps)
    for image in range(2):
        product = np.eye(6)
        for block in range(3):
            mean = sum(np.float64(maps[block, image, head]) for head in range(4)) / 4
            product = (mean + np.eye(6)) / 2 @ product  # rows of both sum to 1
            assert_close(rollout[block, image], product)


POOLINGS = {
    "mean": {"pooling": "gap", "num_registers": 2},
    "mean of every token": {"pooling": "gap", "num_registers": 2, "pooling_prefix": True},
    "class token and mean": {"pooling": "token_gap"},
    "distilled": {"distilled": True, "num_registers": 1},
    "every token": {"pooling": None, "classes": 0},
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_rollout_map_pools_rows_as_the_model_pools_tokens(pooling):
    model = tiny(**POOLINGS[pooling], merged_tokens=(0, 2))
    batch = images(batch=4)
    maps = analysis.attention_maps(model, batch, batch_size=2)
    rollout = analysis.attention_rollout(maps)[-1]
    rows = {
        "mean": rollout[:, 2:].mean(1),
        "mean of every token": rollout.mean(1),
        "class token and mean": (rollout[:, 0] + rollout[:, 1:].mean(1)) / 2,
        "distilled": (rollout[:, 0] + rollout[:, 1]) / 2,
        "every token": rollout[:, 0],
    }[pooling]
    found = analysis.rollout_map(model, batch, batch_size=2)
    assert_close(found, rows[:, -16:].reshape(4, 4, 4))


# Distances


@pytest.mark.parametrize("renormalize", [True, False])
def test_distances_of_the_reference(original, renormalize):
    model, expected = original
    name = "mean_attention_distance" + "_without_renormalising" * (not renormalize)
    options = {"renormalize": renormalize}
    found = analysis.attention_distance(expected["attentions"], 4, 8, 1, **options)
    assert_close(found, expected[name])
    found = analysis.attention_distance(expected["attentions"], (4, 4), (8, 8), **options)
    assert_close(found, expected[name])
    maps = analysis.iterate_attention(model, expected["input"], batch_size=1)
    assert_close(analysis.attention_distance(maps, **options), expected[name])


@pytest.mark.one_backend
def test_distances_are_between_patches_one_by_one():
    """A grid that is not square, patches that are not, two tokens before them."""
    maps = random_maps(2, 3, 4, 2 + 2 * 3)
    found = analysis.attention_distance(maps, (2, 3), (5, 7), 2)
    places = [(5 * r, 7 * c) for r in range(2) for c in range(3)]
    for block in range(2):
        for head in range(4):
            means = []
            for image in range(3):
                for q, query in enumerate(places):
                    row = np.float64(maps[block, image, head, 2 + q, 2:])
                    distances = [np.hypot(*np.subtract(query, key)) for key in places]
                    means.append((row * distances).sum() / row.sum())
            np.testing.assert_allclose(found[block, head], np.mean(means), rtol=1e-5)


@pytest.mark.one_backend
def test_distances_of_known_maps():
    """A head that looks at each patch itself, one that looks at the class token alone, one
    that looks at the first patch."""
    maps = np.zeros((1, 1, 3, 5, 5), "float32")
    maps[0, 0, 0] = np.eye(5)
    maps[0, 0, 1, :, 0] = maps[0, 0, 2, :, 1] = 1
    found = analysis.attention_distance(maps, 2, 10)
    expected = (10 + 10 + 10 * 2**0.5) / 4
    np.testing.assert_allclose(found, [[0, 0, expected]], rtol=1e-6)


@pytest.mark.one_backend
def test_sizes_that_do_not_fit_are_refused(original):
    model, expected = original
    maps = expected["attentions"]
    with pytest.raises(ValueError, match=r"grid_size=\(4, 5\), num_prefix=1 for 17 tokens"):
        analysis.attention_distance(maps, (4, 5), 8)
    with pytest.raises(ValueError, match="`grid_size` must be a positive integer"):
        analysis.attention_distance(maps)
    found = analysis.iterate_attention(model, expected["input"])
    with pytest.raises(ValueError, match=r"Received: \(4, None, None\). Leave them out"):
        analysis.attention_distance(found, 4)
    with pytest.raises(ValueError, match=r"Received: maps of shape \(2, 4, 17, 17\)"):
        analysis.attention_distance(maps[0], 4, 8)
    with pytest.raises(ValueError, match=r"Received: maps of shape \(2, 4, 17, 17\)"):
        analysis.attention_rollout(maps[:, 0])


# Over the image


@pytest.mark.parametrize("fields", [{}, {"num_registers": 2, "merged_tokens": 3}])
def test_class_attention_is_a_row_of_the_maps(fields):
    model = tiny(**fields, image_size=(16, 40))
    batch = images(16, 40, batch=4)
    grid = analysis.token_grid(model, batch)
    maps = analysis.attention_maps(model, batch, batch_size=2)
    found = analysis.class_attention(model, batch, batch_size=2)
    assert found.shape == (2, 4, 4, 2, 5)
    expected = maps[:, :, :, 0, grid.num_prefix :].reshape(found.shape)
    assert_close(found, expected)
    last = analysis.class_attention(model, batch, blocks=-1, batch_size=2)
    assert_close(last, expected[1:])


def pooling_by_hand(model, tokens):
    """(batch, heads, keys), of the pooling's probe to the tokens that it reads."""
    layer = model.get_layer("pooling")
    tokens, probe = tokens[:, layer.num_prefix :], np.float64(array(layer.probe))
    if model.arguments["pooling"] == "map":
        query = by_hand.projected(layer.attention, probe[None])[
            0
        ]  # (1, heads, 1, head_dim)
        key = by_hand.projected(layer.attention, tokens)[1]
    else:
        key = by_hand.stacked(tokens, layer.key_value)[0]
        query = probe.reshape(1, layer.num_heads, 1, -1)
    scores = query @ key.swapaxes(2, 3) / np.sqrt(key.shape[-1])
    return by_hand.softmax(scores)[:, :, 0]


@pytest.mark.parametrize("pooling", ["map", "query"])
@pytest.mark.parametrize("fields", [{}, {"num_registers": 2}, {"pooling_prefix": True}])
def test_attention_of_a_pooling_is_the_formula(pooling, fields):
    prefix = {"class_token": True} if "pooling_prefix" in fields else {}
    model = tiny(pooling=pooling, pooling_num_heads=2, **fields, **prefix)
    batch = images(batch=4)
    (tokens,) = by_hand.outputs_of(model, "encoder_norm")(batch)
    expected = pooling_by_hand(model, tokens)
    found = analysis.pooling_attention(model, batch, batch_size=2)
    assert_close(found, expected[:, :, -16:].reshape(4, 2, 4, 4))
    # The rows of the rollout, weighted by the heads' mean.
    grid = analysis.token_grid(model, batch)
    shares = np.zeros((4, grid.num_tokens))
    shares[:, grid.num_tokens - expected.shape[2] :] = expected.mean(1)
    maps = analysis.iterate_attention(model, batch, batch_size=2)
    rollout = analysis.attention_rollout(maps, last_only=True)
    pooled = np.einsum("bq,bqk->bk", shares, rollout)[:, -16:].reshape(4, 4, 4)
    assert_close(analysis.rollout_map(model, batch, batch_size=2), pooled)


def test_attention_of_a_pooling_of_merged_tokens():
    """A merged token's weight is shared by its places."""
    model = tiny(pooling="map", merged_tokens=(4, 0))
    batch = images()
    merged = array(model.features(batch)["patch_sizes"])
    found = analysis.pooling_attention(model, batch).reshape(2, 4, 16)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    for image in range(2):
        # Places of one token have equal weights in every head.
        groups = np.unique(found[image], axis=1, return_counts=True)[1]
        assert sorted(groups) == sorted(merged[image])


def test_a_model_without_the_token_or_pooling_is_refused():
    batch = images()
    with pytest.raises(ValueError, match="without a class token, with pooling='gap'"):
        analysis.class_attention(tiny(pooling="gap"), batch)
    with pytest.raises(ValueError, match="a model with pooling='token'. `class_attention`"):
        analysis.pooling_attention(tiny(), batch)
    bare = tiny(pooling=None, class_token=False, classes=0)
    with pytest.raises(ValueError, match="without a class token, with pooling=None"):
        analysis.rollout_map(bare, batch)
    bit = keras_vit.BiTResNet(32, num_units=(1, 1), width_factor=0.5, classes=3)
    for function in (analysis.rollout_map, analysis.class_attention, analysis.token_grid):
        with pytest.raises(ValueError, match="It has no attention"):
            function(bit, batch)
