"""Relevance for a class: Grad-CAM, and attention weighted by its gradient."""

import by_hand
import keras
import numpy as np
import pytest
from helpers import array, assert_close, images, tiny

import keras_vit
from keras_vit import analysis
from keras_vit.analysis.backend import gradients

SMALL = {"image_size": 16, "hidden_dim": 16, "mlp_dim": 24, "num_heads": 2, "classes": 3}
# As many tokens in most, whose gradients JAX then compiles once.
POOLINGS = {
    "class token": {},
    "mean": {"pooling": "gap", "class_token": True},
    "class token and mean": {"pooling": "token_gap"},
    "representation": {"representation_size": 12},
    "norm of the mean": {"pooling": "gap", "fc_norm": True, "class_token": True},
    "distilled": {"distilled": True},
    "map": {"pooling": "map", "num_registers": 1},
    "query": {"pooling": "query", "pooling_num_heads": 4, "num_registers": 1},
    "map of every token": {"pooling": "map", "pooling_prefix": True, "num_registers": 1},
}


def variants(*on_every_backend):
    """A parameter for each pooling; the others run on one backend."""
    return pytest.mark.parametrize(
        "pooling",
        [
            pytest.param(
                name, marks=() if name in on_every_backend else pytest.mark.one_backend
            )
            for name in POOLINGS
        ],
    )


def score_by_hand(model, tokens, image_class, first=0, weights=None):
    """The logit of a class, from the tokens before block `first` of one image."""
    fields, layers = model.arguments, {layer.name: layer for layer in model.layers}
    for i in range(first, fields["num_layers"]):
        given = None if weights is None else weights[i]
        tokens = by_hand.run_block(layers[f"block_{i}"], tokens, given)
    if "encoder_norm" in layers:
        tokens = by_hand.norm(tokens, layers["encoder_norm"])
    return head_by_hand(model, tokens[0])[image_class]


def head_by_hand(model, tokens, weights=None):
    """The logits; with the weights of an attention pooling if they are given."""
    layers, fields = {layer.name: layer for layer in model.layers}, model.arguments
    mean = tokens[len(tokens) - 4 :].mean(0)
    if fields["distilled"]:
        return (
            by_hand.dense(tokens[0], layers["head"])
            + by_hand.dense(tokens[1], layers["distillation_head"])
        ) / 2
    if fields["pooling"] in ("map", "query"):
        layer = layers["pooling"]
        weights = pooling_weights_by_hand(model, tokens) if weights is None else weights
        pooled = pooling_by_hand(layer, tokens[layer.num_prefix :], weights)
    else:
        parts = {"token": [tokens[0]], "gap": [mean], "token_gap": [tokens[0], mean]}
        pooled = np.concatenate(parts[fields["pooling"]])
    if "fc_norm" in layers:
        pooled = by_hand.norm(pooled, layers["fc_norm"])
    if "pre_logits" in layers:
        pooled = np.tanh(by_hand.dense(pooled, layers["pre_logits"]))
    return by_hand.dense(pooled, layers["head"])


def pooling_weights_by_hand(model, tokens):
    """(heads, keys), of the pooling's probe."""
    layer = model.get_layer("pooling")
    keys, probe = tokens[None, layer.num_prefix :], np.float64(array(layer.probe))
    if model.arguments["pooling"] == "map":
        query = by_hand.projected(layer.attention, probe[None])[0]
        key = by_hand.projected(layer.attention, keys)[1]
    else:
        query = probe.reshape(1, layer.num_heads, 1, -1)
        key = by_hand.stacked(keys, layer.key_value)[0]
    scores = query @ key.swapaxes(2, 3) / np.sqrt(key.shape[-1])
    return by_hand.softmax(scores)[0, :, 0]


def pooling_by_hand(layer, keys, weights):
    """The pooled vector, of the weights (heads, keys)."""
    is_query = not hasattr(layer, "mlp")
    attention = layer if is_query else layer.attention
    if is_query:
        value = by_hand.stacked(keys[None], layer.key_value)[1]
    else:
        value = by_hand.projected(attention, keys[None])[2]
    heads = np.einsum("hk,hkd->hd", weights, value[0])
    pooled = np.einsum("hk,hkd->d", heads, array(attention.projection.kernel))
    pooled = pooled + array(attention.projection.bias)
    if is_query:
        return pooled
    hidden = by_hand.dense(by_hand.norm(pooled, layer.mlp_norm), layer.mlp.dense_1)
    return pooled + by_hand.dense(by_hand.gelu(hidden), layer.mlp.dense_2)


def slope(function, step=1e-5):
    """The derivative of a function of one number, at 0."""
    return (function(step) - function(-step)) / (2 * step)


# Grad-CAM


@variants("class token", "mean")
@pytest.mark.parametrize("block", [-1, 0])
def test_grad_cam_is_the_formula(pooling, block):
    """The gradients by differences, in float64."""
    model, batch = tiny(**SMALL, **POOLINGS[pooling]), images(16, 16)
    names = ("position_embedding", "block_0")
    before = by_hand.outputs_of(model, *names)(batch)[block]
    found = analysis.grad_cam(model, batch, [2, 0], block=block, batch_size=1)
    assert found.shape == (2, 2, 2)
    for image, wanted in enumerate((2, 0)):
        tokens = before[image : image + 1]
        prefix, total = tokens.shape[1] - 4, 0
        for channel in range(16):

            def moved(by, tokens=tokens, prefix=prefix, channel=channel, wanted=wanted):
                changed = tokens.copy()
                changed[:, prefix:, channel] += by
                return score_by_hand(model, changed, wanted, first=block % 2)

            total = total + slope(moved) / 4 * tokens[0, prefix:, channel]
        expected = np.maximum(total, 0).reshape(2, 2)
        np.testing.assert_allclose(found[image], expected, atol=1e-5, rtol=1e-4)


# Attention times gradient


def relevance_by_hand(model, batch, classes):
    """(batch, rows, columns), one weight of one head after the other."""
    (embedded,) = by_hand.outputs_of(model, "position_embedding")(batch)
    layers = {layer.name: layer for layer in model.layers}
    result = []
    for image, wanted in enumerate(classes):
        tokens = start = embedded[image : image + 1]
        weights = []
        for i in range(2):
            weights.append(by_hand.attention_weights(layers[f"block_{i}"], tokens))
            tokens = by_hand.run_block(layers[f"block_{i}"], tokens)
        number = tokens.shape[1]
        flow = np.eye(number)
        for i in range(2):
            step = np.zeros((number, number))
            for head, q, k in np.ndindex(2, number, number):
                own, place = weights[i].copy(), (0, head, q, k)

                def moved(by, i=i, place=place, own=own, start=start, wanted=wanted):
                    changed = [None, None]  # later weights follow from it
                    changed[i] = own.copy()
                    changed[i][place] += by
                    return score_by_hand(model, start, wanted, weights=changed)

                step[q, k] += max(weights[i][0, head, q, k] * slope(moved), 0) / 2
            flow = flow + step @ flow
        if "encoder_norm" in layers:
            tokens = by_hand.norm(tokens, layers["encoder_norm"])
        if model.arguments["pooling"] != "token":  # equations 8 and 9
            flow = np.eye(number) + (flow - np.eye(number)) / (
                (flow - np.eye(number)).sum(1, keepdims=True)
            )
        result.append(rows_by_hand(model, tokens[0], wanted) @ flow)
    return np.array(result)[:, -4:].reshape(len(batch), 2, 2)


def rows_by_hand(model, tokens, wanted):
    """The share of each row of the flow."""
    shares, pooling = np.zeros(len(tokens)), model.arguments["pooling"]
    if pooling == "token":
        count = 1 + model.arguments["distilled"]
        shares[:count] = 1 / count
        return shares
    if pooling in ("map", "query"):
        weights = pooling_weights_by_hand(model, tokens)
        heads, keys = weights.shape
        for head, key in np.ndindex(heads, keys):

            def moved(by, place=(head, key)):
                changed = weights.copy()
                changed[place] += by
                return head_by_hand(model, tokens, changed)[wanted]

            gain = max(weights[head, key] * slope(moved), 0) / heads
            shares[len(tokens) - keys + key] += gain
        return shares
    for token in range(len(tokens)):

        def moved(by, token=token):
            """Equal weights, of which one is changed."""
            changed = tokens.copy()
            changed[token] *= 1 + by
            return head_by_hand(model, changed)[wanted]

        shares[token] = max(slope(moved), 0)
    return shares


@variants("class token", "mean", "distilled", "map", "query")
def test_relevance_is_the_formula(pooling):
    model, batch = tiny(**SMALL, **POOLINGS[pooling]), images(16, 16)
    found = analysis.relevance(model, batch, [2, 0], batch_size=1)
    assert found.shape == (2, 2, 2)
    expected = relevance_by_hand(model, batch, (2, 0))
    assert_close(found, expected, 1e-4)


def test_score_of_relevance_is_the_logit():
    """Under any activation of the head; without `classes` that of the best class."""
    model = tiny(**SMALL)
    plain = tiny(**SMALL, classifier_activation=None)
    plain.set_weights(model.get_weights())
    batch = images(16, 16, batch=3)
    best = array(plain(batch)).argmax(-1)
    for function in (analysis.relevance, analysis.grad_cam):
        found = function(model, batch, batch_size=1)
        assert_close(function(plain, batch, list(best), batch_size=1), found)
        one = function(model, batch, int(best[1]), batch_size=1)
        assert_close(one[1], found[1])
        other = function(model, batch, (best + 1) % 3, batch_size=1)
        assert np.abs(other - found).max() > 1e-4


def with_pairs(batch):
    """Images whose first three pairs of patches in a row of four are equal."""
    batch = batch.copy()
    for row, column in ((0, 0), (0, 16), (8, 0)):
        batch[:, row : row + 8, column + 8 : column + 16] = batch[
            :, row : row + 8, column : column + 8
        ]
    return batch


ON_ONE = pytest.mark.one_backend
MERGING = [
    {"pooling": "gap", "num_layers": 2},
    pytest.param({"num_layers": 3}, marks=ON_ONE),
    pytest.param({"pooling": "map", "num_layers": 3, "num_registers": 1}, marks=ON_ONE),
]


@pytest.mark.parametrize("fields", MERGING)
def test_merging_equal_tokens_changes_no_relevance(fields):
    """Without positions equal patches are equal tokens, and stay so."""
    fields = {**fields, "position": "none"}
    merged = (3, *[0] * (fields["num_layers"] - 1))
    whole, merging = tiny(**fields), tiny(**fields, merged_tokens=merged)
    merging.set_weights(whole.get_weights())
    batch = with_pairs(images())
    assert_close(merging(batch), whole(batch), 1e-4)
    for function in (analysis.relevance, analysis.grad_cam, analysis.rollout_map):
        assert_close(function(merging, batch), function(whole, batch), 1e-4)


@pytest.mark.one_backend
def test_relevance_of_a_model_in_half_precision():
    exact, model = tiny(), tiny(dtype="mixed_bfloat16")
    model.set_weights(exact.get_weights())
    for function in (analysis.relevance, analysis.grad_cam):
        found, expected = function(model, images(), 3), function(exact, images(), 3)
        assert found.dtype == "float32"
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


def test_gradients_are_of_the_first_result():
    x = keras.ops.convert_to_tensor(np.array([1.0, 2.0], "float32"))
    unused = keras.ops.zeros((3,))
    slopes, others = gradients(
        lambda inputs: (keras.ops.sum(inputs[0] ** 3), [inputs[0] * 2]), [x, unused]
    )
    np.testing.assert_allclose(array(slopes[0]), [3, 12])
    np.testing.assert_array_equal(array(slopes[1]), np.zeros(3))
    np.testing.assert_allclose(array(others[0]), [2, 4])


# On the object


@pytest.mark.one_backend
def test_relevance_lies_on_the_square_that_makes_the_class():
    """A square of one patch in noise, whose colour is the class: a model trained in
    seconds. A fourth of the images have no square, and each class has a sigmoid of its own:
    no class is known by the absence of the others."""
    rng = np.random.default_rng(0)
    colors = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]])

    def draw(number, most):
        pixels = rng.normal(size=(number, 32, 32, 3)).astype("float32")
        labels, places = rng.integers(0, most, number), rng.integers(0, 4, (number, 2))
        for image, label, (row, column) in zip(pixels, labels, places, strict=True):
            if label < 3:
                image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = colors[label]
        return pixels, labels, places

    keras.utils.set_random_seed(1)
    model = keras_vit.VisionTransformer(
        32, 8, 32, 2, 4, 64, classes=3, classifier_activation="sigmoid"
    )
    model.compile(keras.optimizers.Adam(2e-3), "binary_crossentropy")
    pixels, labels, _ = draw(2048, most=4)
    model.fit(pixels, np.eye(4)[labels][:, :3], batch_size=64, epochs=8, verbose=0)
    pixels, labels, places = draw(100, most=3)
    assert (array(model(pixels)).argmax(-1) == labels).all()
    found = analysis.relevance(model, pixels, labels)
    on_square = found[np.arange(100), places[:, 0], places[:, 1]] / found.sum((1, 2))
    assert on_square.mean() >= 0.9


# Errors


@pytest.mark.parametrize("function", [analysis.relevance, analysis.grad_cam])
def test_models_and_classes_are_checked(function):
    batch = images()
    bit = keras_vit.BiTResNet(32, num_units=(1, 1), width_factor=0.5, classes=3)
    with pytest.raises(ValueError, match="Received: model=BiTResNet"):
        function(bit, batch)
    with pytest.raises(ValueError, match="a model with classes=0"):
        function(tiny(classes=0), batch)
    for classes in (10, -1, [1], [1, 2, 3], [1, 10], 1.0, [[1, 2]]):
        with pytest.raises(
            ValueError, match="from 0 to 9, or one for each of the 2 images"
        ):
            function(tiny(), batch, classes)
    quantized = tiny()
    quantized.quantize("int8")
    with pytest.raises(ValueError, match="a model quantized in 'int8'"):
        function(quantized, batch)


def test_the_block_of_grad_cam_is_checked():
    with pytest.raises(ValueError, match="Received: blocks=2"):
        analysis.grad_cam(tiny(), images(), block=2)
    for block in (None, [0, 1], "all"):
        with pytest.raises(ValueError, match="`block` must be the number of one block"):
            analysis.grad_cam(tiny(), images(), block=block)
