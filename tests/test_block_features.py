"""Features of the blocks of a `VisionTransformer`, as tokens and as maps."""

import keras
import numpy as np
import pytest
from helpers import array, assert_close, gradient_of, images, tiny
from keras import ops

from keras_vit.models.fields import num_prefix
from keras_vit.models.token_features import block_numbers

STEM = {"num_units": (1, 1), "width_factor": 0.5}
CASES = {
    "registers, not square": (
        {"image_size": (32, 48), "patch_size": (8, 16), "num_registers": 2},
        (32, 48),
        (4, 3),
    ),
    "hybrid of any size": (
        {"stem": STEM, "patch_size": 1, "pooling": "gap", "input_shape": (None, None, 3)},
        (16, 40),
        (2, 5),
    ),
    "distilled, rotary, in half precision": (
        {"distilled": True, "rope": "dinov3", "dtype": "mixed_bfloat16"},
        (32, 32),
        (4, 4),
    ),
    "channels first": (
        {"data_format": "channels_first", "pooling": "map"},
        (32, 32),
        (4, 4),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_blocks_are_those_of_the_graph_and_maps_lie_as_the_image(case):
    fields, size, (rows, columns) = CASES[case]
    fields = {"num_layers": 3, **fields}
    model, full = tiny(**fields), tiny(**fields, full_last_block=True)
    full.set_weights(model.get_weights())
    batch = images(*size)
    if "data_format" in fields:
        batch = batch.transpose(0, 3, 1, 2)
    stages = {f"block_{i}": full.get_layer(f"block_{i}").output for i in range(3)}
    expected = keras.Model(full.input, stages)(batch)
    tolerance = 2e-2 if "dtype" in fields else 1e-5

    plain = model.features(batch)
    assert not any(name.startswith("block") for name in plain)
    found = model.features(batch, layers="all")
    assert {*found} == {*plain, "block_0", "block_1", "block_2"}
    for name in stages:
        assert found[name].dtype == expected[name].dtype
        assert_close(
            ops.cast(found[name], "float32"), ops.cast(expected[name], "float32"), tolerance
        )
    for name in plain:
        np.testing.assert_array_equal(array(found[name]), array(plain[name]))

    maps = model.features(batch, layers=(-1, 0), as_maps=True)
    assert {*maps} == {*plain, "block_0", "block_2"}
    prefix = array(found["block_0"]).shape[1] - rows * columns
    assert prefix == num_prefix(model.fields)
    for name in ("block_0", "block_2", "patch_tokens"):
        tokens = array(found[name])[:, 0 if name == "patch_tokens" else prefix :]
        assert tokens.shape == (2, rows * columns, 48)
        by_hand = [
            [[tokens[b, r * columns + c] for c in range(columns)] for r in range(rows)]
            for b in range(2)
        ]
        np.testing.assert_array_equal(array(maps[name]), np.array(by_hand))
    for name in plain:
        if name != "patch_tokens":
            np.testing.assert_array_equal(array(maps[name]), array(plain[name]))


def test_a_pixel_moves_its_own_place_of_the_first_map_most():
    model = tiny(image_size=(32, 48), position="none", qkv_bias=False)
    before, changed = images(32, 48), images(32, 48)
    changed[:, 8:16, 40:48] += 1  # the patch in row 1 and column 5
    first, second = (
        array(model.features(x, layers=0, as_maps=True)["block_0"])
        for x in (before, changed)
    )
    moved = np.abs(second - first).sum(-1)
    assert [np.unravel_index(m.argmax(), m.shape) for m in moved] == [(1, 5)] * 2


@pytest.mark.one_backend
def test_merged_tokens_come_as_they_are_and_make_no_map():
    fields = {"num_layers": 3, "merged_tokens": (2, 0, 3), "pooling": "gap"}
    model = tiny(**fields)
    stages = {f"block_{i}": model.get_layer(f"block_{i}").output for i in range(3)}
    stages = {k: t[0] if isinstance(t, list | tuple) else t for k, t in stages.items()}
    expected = keras.Model(model.input, stages)(images())
    found = model.features(images(), layers="all")
    for name, count in zip(stages, (14, 14, 11), strict=True):
        assert found[name].shape == (2, count, 48)
        assert_close(found[name], expected[name])
    with pytest.raises(ValueError, match=r"make no map.*merged_tokens=\(2, 0, 3\)"):
        model.features(images(), layers=0, as_maps=True)


def test_gradients_flow_from_every_block_to_the_pixels():
    model, weights = tiny(num_layers=3), np.random.default_rng(0).normal(size=(4, 4, 48))

    def loss(x):
        found = model.features(x, layers=[0, -1], as_maps=True)
        both = found["block_0"] + found["block_2"]
        return ops.sum(both * ops.convert_to_tensor(weights, "float32"))

    x = images(batch=1)
    gradient = gradient_of(loss, x)
    assert gradient.shape == x.shape
    # Along the gradient the loss grows as its norm says.
    step = 1e-3 * gradient / np.linalg.norm(gradient)
    slope = (array(loss(x + step)) - array(loss(x - step))) / 2e-3
    assert slope == pytest.approx(np.linalg.norm(gradient), rel=1e-2)


@pytest.mark.one_backend
def test_one_pass_computes_each_block_once(monkeypatch):
    model, called = tiny(num_layers=3), []
    original = type(model.get_layer("block_0")).call

    def call(self, *args, **named):
        called.append(self.name)
        return original(self, *args, **named)

    monkeypatch.setattr(type(model.get_layer("block_0")), "call", call)
    model.features(images(), layers="all", as_maps=True)
    assert called == ["block_0", "block_1", "block_2"]


@pytest.mark.one_backend
def test_numbers_of_blocks():
    assert block_numbers(None, 12) == []
    assert block_numbers("all", 3) == [0, 1, 2]
    assert block_numbers((-1, 0, 11), 12) == [0, 11]
    assert block_numbers(np.int64(-2), 12) == [10]
    assert block_numbers(np.array([3, 1]), 12) == [1, 3]
    for wrong in (12, -13, (0, 12), "last", ["all"], 1.0, (0.5,), True, [[1]]):
        with pytest.raises(
            ValueError, match=r"from -12 to 11, or 'all'\. Received: layers="
        ):
            block_numbers(wrong, 12)
    with pytest.raises(ValueError, match="from -2 to 1"):
        tiny().features(images(), layers=[2])
