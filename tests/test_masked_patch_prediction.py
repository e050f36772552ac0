"""`MaskedPatchPrediction` against NumPy, its training and its files."""

import copy
import math

import keras
import numpy as np
import pytest
from by_hand import dense, norm, run_block, softmax
from helpers import (
    array,
    assert_close,
    assert_same_weights,
    images,
    randomize,
    tiny,
    weights,
)

from keras_vit.pretraining import MaskedPatchPrediction
from keras_vit.pretraining.corruption import PatchCorruption
from keras_vit.training import ExactResume, exclude_from_weight_decay

SMALL = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "mlp_dim": 32, "classes": 0}
KEPT = np.float32([0, 0.95, 0])  # noise of a patch that is corrupted by keeping it


def predicting(**fields):
    """A small model whose every weight is random, the same at every call."""
    keras.utils.set_random_seed(0)
    own = {"mask_ratio", "target", "seed", "name", "dtype"} & {*fields}
    own = {name: fields.pop(name) for name in own}
    return randomize(MaskedPatchPrediction(tiny(**{**SMALL, **fields}), **own), seed=1)


def pixel_values(size, patch, batch=2, seed=0):
    """Images in [0, 1] whose patches are of many colours; the first two black and white."""
    rng = np.random.default_rng(seed)
    grid = [side // length for side, length in zip(size, patch, strict=True)]
    colors = rng.uniform(size=(batch, *grid, 3))
    values = colors.repeat(patch[0], axis=1).repeat(patch[1], axis=2)
    values = np.clip(values + rng.uniform(-0.2, 0.2, values.shape), 0, 1)
    values[:, : patch[0], : patch[1]] = 0
    values[:, : patch[0], patch[1] : 2 * patch[1]] = 1
    return values.astype("float32")


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype("float32")


# The formulas.


def color(pixels):
    """The number of the mean colour of (height, width, 3), of 8 levels a channel."""
    red, green, blue = (
        min(math.floor(8 * pixels[..., c].astype("float64").mean()), 7) for c in range(3)
    )
    return 64 * red + 8 * green + blue


def targets_by_hand(target, values, patch, places):
    found = []
    for image, corrupted in zip(values, places, strict=True):
        for place in corrupted:
            row, column = divmod(place, image.shape[1] // patch[1])
            pixels = image[row * patch[0] :, column * patch[1] :][: patch[0], : patch[1]]
            if target == "pixels":
                found.append(pixels.ravel())
            elif target == "mean_color":
                found.append(color(pixels))
            else:
                rows, columns = np.split(pixels, 4), []
                for cells in rows:
                    columns += [color(cell) for cell in np.split(cells, 4, axis=1)]
                found.append(columns)
    return np.array(found).reshape(*places.shape, *np.shape(found)[1:])


PATCH = (4, 8)  # of 12 in an image
SHAPE = {"image_size": (16, 24), "patch_size": PATCH}


@pytest.mark.parametrize("target", ["mean_color", "downsized", "pixels"])
def test_targets_are_the_colours_of_the_corrupted_patches(target):
    values = pixel_values((16, 24), PATCH)
    mean, std = np.float32([0.4, 0.5, 0.3]), np.float32([0.2, 0.3, 0.25])
    normal = {"image_mean": mean.tolist(), "image_std": std.tolist()}
    normed = (values - mean) / std
    whole = np.round(values * 255).astype("uint8")
    first = {"data_format": "channels_first", **SHAPE, "target": target}
    noise = uniform(2, 12, 3)
    noise[:, :2, 0] = 0  # the black and the white patch are corrupted
    for model, batch, shown in (
        (predicting(**SHAPE, **normal, target=target), normed, values),
        (predicting(**normal, **first), normed.transpose(0, 3, 1, 2), values),
        (predicting(**first, include_preprocessing=True), whole.transpose(0, 3, 1, 2), whole / 255),
    ):  # fmt: skip
        outputs = model(batch, noise=noise)
        places = array(outputs["corrupted"])
        expected = np.argsort(noise[..., 0], axis=1, kind="stable")[:, :6]
        np.testing.assert_array_equal(np.sort(places), np.sort(expected))
        targets = targets_by_hand(target, shown, PATCH, places)
        if target == "pixels":
            np.testing.assert_allclose(array(outputs["targets"]), targets, atol=1e-6)
        else:
            np.testing.assert_array_equal(array(outputs["targets"]), targets)
            assert {0, 511} < {*targets.ravel()}


def corrupted_by_hand(embeddings, noise, mask_token, number):
    """Embeddings after the corruption, one patch after the other."""
    result = embeddings.copy()
    for image, (own, draws) in enumerate(zip(embeddings, noise, strict=True)):
        for place in sorted(range(len(own)), key=lambda i: draws[i, 0])[:number]:
            _, kind, other = draws[place]
            if kind < 0.8:
                result[image, place] = mask_token
            elif kind < 0.9:
                step = 1 + int(other * (len(own) - 1))
                result[image, place] = own[(place + step) % len(own)]
    return result


@pytest.mark.parametrize("target", ["mean_color", "downsized", "pixels"])
def test_predictions_and_loss_by_hand(target):
    """Positions are added after the corruption, and the loss is on corrupted patches."""
    model = predicting(**SHAPE, target=target, image_mean=0.0, image_std=1.0)
    encoder, values = model.encoder, pixel_values((16, 24), PATCH)
    noise = uniform(2, 12, 3)
    noise[:, :, 1] = np.linspace(0.7, 0.99, 12)  # as often masked, replaced and kept
    outputs = model(values, noise=noise)
    places = array(outputs["corrupted"])

    layers = {layer.name: layer for layer in encoder.layers}
    cut = values.reshape(2, 4, 4, 3, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 12, 96)
    kernel = np.float64(array(layers["patch_embedding"].kernel)).reshape(96, 16)
    embeddings = cut @ kernel + array(layers["patch_embedding"].bias)
    token = array(model.corruption.mask_token)[0]
    patches = corrupted_by_hand(embeddings, noise, token, 6)
    is_own = (patches == embeddings).all(-1)
    assert (is_own.sum(1) > 6).any()  # one of the corrupted patches is kept
    assert (~is_own & (patches != token).any(-1)).any()  # and one replaced
    position = layers["position_embedding"]
    patches = patches + array(position.grid).reshape(12, 16)
    first = array(layers["class_token"].tokens) + array(position.prefix)
    tokens = np.concatenate([np.repeat(first[None], 2, axis=0), patches], axis=1)
    tokens = norm(run_block(layers["block_0"], tokens), layers["encoder_norm"])[:, 1:]
    tokens = np.take_along_axis(tokens, places[..., None], axis=1)
    targets = targets_by_hand(target, values, PATCH, places)

    predictions = dense(tokens, model.prediction)
    if target == "downsized":
        predictions = predictions.reshape(2, 6, 16, 512)
    assert_close(outputs["predictions"], predictions)
    if target == "pixels":
        loss = ((predictions - targets) ** 2).mean()
    else:
        right = np.take_along_axis(softmax(predictions), targets[..., None], axis=-1)
        loss = -np.log(right).mean()
    assert_close(outputs["loss"], loss)


def test_rates_of_the_corruption_are_the_papers(monkeypatch):
    """32,768 patches, each count within 5 deviations of its binomial."""
    seen, call = [], PatchCorruption.call

    def spy(self, patches, noise):
        outputs = call(self, patches, noise)
        seen.append([array(each) for each in (patches, *outputs)])
        return outputs

    monkeypatch.setattr(PatchCorruption, "call", spy)
    model = predicting(image_size=8, patch_size=2, seed=3)
    model(images(8, 8, batch=2048))
    before, after, places = seen[-1]
    assert places.shape == (2048, 8)
    assert all(len({*row}) == 8 for row in places)
    is_corrupted = np.zeros((2048, 16), bool)
    np.put_along_axis(is_corrupted, places, True, axis=1)
    is_masked = (after == array(model.corruption.mask_token)).all(-1)
    is_same = (after == before).all(-1)
    is_replaced = ~is_masked & ~is_same
    assert is_same[~is_corrupted].all()

    def check(count, number, rate):
        assert abs(count - number * rate) < 5 * math.sqrt(number * rate * (1 - rate))

    number = 2048 * 8
    check(is_masked.sum(), number, 0.8)
    check(is_replaced.sum(), number, 0.1)
    check((is_same & is_corrupted).sum(), number, 0.1)
    for place in range(16):
        check(is_corrupted[:, place].sum(), 2048, 0.5)
        check(is_masked[:, place].sum(), 2048, 0.4)
    # The embedding of another patch of the same image, each as often.
    rows, columns = np.nonzero(is_replaced)
    found = (after[rows, columns][:, None] == before[rows]).all(-1)  # (replaced, 16)
    assert (found.sum(1) == 1).all()
    steps = (found.argmax(1) - columns) % 16
    counts = np.bincount(steps, minlength=16)
    assert counts[0] == 0
    for count in counts[1:]:
        check(count, len(steps), 1 / 15)


@pytest.mark.parametrize(
    "fields",
    [
        {"distilled": True, "position": "relative"},
        {"num_registers": 2, "rope": "dinov3", "position": "none", "image_size": (16, 32)},
        {"class_token": False, "pooling": "gap", "pre_norm": True, "patch_norm": True},
    ],
    ids=["two tokens, relative", "rotary positions and registers", "norms, no class token"],
)
def test_an_encoder_of_which_nothing_is_replaced_computes_as_it_does_alone(fields):
    model = predicting(**fields, num_layers=2)
    batch = images(*model.encoder.input_shape[1:3])
    number = model.num_corrupted * 2
    outputs = model(batch, noise=np.tile(KEPT, (2, number, 1)))
    alone = np.float64(array(model.encoder.features(batch)["patch_tokens"]))
    alone = np.take_along_axis(alone, array(outputs["corrupted"])[..., None], axis=1)
    assert_close(outputs["predictions"], dense(alone, model.prediction))


# Training.


def test_fit_trains_encoder_corruption_and_prediction():
    model = predicting(seed=4, rematerialize=True)
    before = weights(model)
    others = {"corruption/mask_token", "prediction/kernel", "prediction/bias"}
    assert {*before} == {*weights(model.encoder)} | others
    assert len(model.trainable_variables) == len(before)
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(images(batch=8), epochs=1, batch_size=8, verbose=0)
    after = weights(model)
    assert not {path for path in before if np.array_equal(before[path], after[path])}


def test_a_mask_token_that_is_not_used_has_no_gradient():
    """Nor has any other weight than those between patches and loss."""
    model = predicting()
    model.call = lambda images, call=model.call: call(images, np.tile(KEPT, (2, 16, 1)))
    before = weights(model)
    model.compile(keras.optimizers.SGD(0.5))
    model.train_on_batch(images())
    after = weights(model)
    same = {path for path in before if np.array_equal(before[path], after[path])}
    assert same == {"corruption/mask_token"}


def test_fit_finds_more_colours_than_the_most_frequent_one():
    """Images of one colour each: the other patches tell that of a corrupted one."""
    rng = np.random.default_rng(0)
    colors = rng.choice([-0.6, 0.6], (64, 1, 1, 3))
    colors = colors + rng.uniform(-0.1, 0.1, (64, 32, 32, 3))
    keras.utils.set_random_seed(0)
    model = MaskedPatchPrediction(tiny(**SMALL), seed=0)
    model.compile(keras.optimizers.Adam(0.01))
    log = model.fit(colors.astype("float32"), epochs=12, batch_size=16, verbose=0).history
    assert {*log} == {"loss", "accuracy", "baseline_accuracy"}
    assert log["loss"][-1] < log["loss"][0] / 2
    assert log["baseline_accuracy"][-1] < 0.5
    assert log["accuracy"][-1] > log["baseline_accuracy"][-1] + 0.3


def test_metrics_by_hand():
    model = predicting()
    model.compile()
    values = pixel_values((32, 32), (16, 16), batch=5) * 2 - 1  # four patches of a colour
    model.seed_generator.state.assign([3, 0])
    log = model.evaluate(values, np.zeros(5), batch_size=3, verbose=0, return_dict=True)
    model.seed_generator.state.assign([3, 0])
    hits, frequent, losses = [], 0, []
    for batch in (values[:3], values[3:]):
        outputs = {name: array(each) for name, each in model(batch).items()}
        hits += (outputs["predictions"].argmax(-1) == outputs["targets"]).ravel().tolist()
        frequent += max(np.bincount(outputs["targets"].ravel()))
        losses += [outputs["loss"]] * len(batch)
    assert log["accuracy"] == pytest.approx(np.mean(hits))
    assert log["baseline_accuracy"] == pytest.approx(frequent / len(hits))
    assert log["baseline_accuracy"] > 0.1
    assert log["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_loss_of_pixels_falls_under_mixed_precision():
    """Neither images nor noise are rounded before they are compared."""
    noise = uniform(2, 16, 3)
    noise[..., 0] = 0.5 + np.arange(32).reshape(2, 16)[:, ::-1] * 1e-4
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = predicting(target="pixels")
    assert half.encoder.compute_dtype == half.corruption.compute_dtype == "bfloat16"
    outputs, batch = half(images(), noise=noise), images()
    np.testing.assert_array_equal(np.sort(array(outputs["corrupted"])), [range(8, 16)] * 2)
    for name in ("predictions", "targets", "loss"):
        assert keras.backend.standardize_dtype(outputs[name].dtype) == "float32"
    places = array(outputs["corrupted"])
    targets = targets_by_hand("pixels", batch / 2 + 0.5, (8, 8), places)
    np.testing.assert_allclose(array(outputs["targets"]), targets, atol=1e-6)
    half.compile(keras.optimizers.Adam(0.01))
    log = half.fit(batch, epochs=4, verbose=0).history
    assert {*log} == {"loss"}
    assert log["loss"][-1] < log["loss"][0]


def test_predict_gives_every_output_but_the_loss():
    model = predicting(target="downsized")
    outputs = model.predict(images(batch=4), batch_size=3, verbose=0)
    assert {name: each.shape for name, each in outputs.items()} == {
        "corrupted": (4, 8),
        "predictions": (4, 8, 16, 512),
        "targets": (4, 8, 16),
    }
    assert len({tuple(sorted(row)) for row in outputs["corrupted"]}) > 1


def test_a_resumed_training_corrupts_the_same_patches(tmp_path):
    def trained(folder, epochs):
        model = predicting(seed=2)
        model.compile(keras.optimizers.SGD(0.05))
        resume = [ExactResume(tmp_path / folder)] if folder else []
        options = {"batch_size": 2, "shuffle": False, "verbose": 0, "callbacks": resume}
        log = model.fit(images(batch=4), epochs=epochs, **options).history
        return weights(model), log["accuracy"][-1]

    trained("resume", 1)
    (resumed, accuracy), (expected, same) = trained("resume", 2), trained(None, 2)
    assert_same_weights(resumed, expected)
    assert accuracy == same


@pytest.mark.one_backend
def test_weight_decay_is_of_kernels_alone():
    model = predicting()
    optimizer = exclude_from_weight_decay(keras.optimizers.SGD(0.5, weight_decay=1), model)
    optimizer.build(model.trainable_variables)
    decayed = {path for path, v in zip(weights(model), model.weights, strict=True) if optimizer._use_weight_decay(v)}  # fmt: skip
    assert "prediction/kernel" in decayed
    assert all(path.endswith("/kernel") for path in decayed), decayed


# Keras' files.


def test_saved_and_loaded_is_the_same(tmp_path):
    model = predicting(target="downsized", mask_ratio=0.25, seed=6, name="mpp")
    model.encoder.get_layer("block_0").trainable = False
    model.prediction.trainable = False
    model.compile(keras.optimizers.Adam(0.01))
    model.train_on_batch(images())
    model.save(tmp_path / "model.keras")
    noise = uniform(2, 16, 3)
    outputs = model(images(), noise=noise)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for other in (loaded, copy.deepcopy(model)):
        assert other.get_config() == model.get_config()
        assert_same_weights(weights(other), weights(model))
        for name, output in other(images(), noise=noise).items():
            np.testing.assert_array_equal(array(output), array(outputs[name]), err_msg=name)
        assert [v.trainable for v in other.weights] == [v.trainable for v in model.weights]
    assert loaded.optimizer.iterations == 1
    again = MaskedPatchPrediction.from_config(model.get_config())
    again.load_weights(tmp_path / "model.keras")
    assert_same_weights(weights(again), weights(model))


# Refusals.


def test_noise_has_three_numbers_for_each_patch():
    model = predicting()
    patches = model.encoder.fields.image_size[0] // model.encoder.fields.patch_size[0]
    for shape in ((2, patches**2), (2, patches**2 + 1, 3), (2, patches**2, 2)):
        with pytest.raises(ValueError, match="`noise` must have the shape"):
            model(images(), noise=np.zeros(shape, "float32"))


@pytest.mark.one_backend
def test_arguments_that_are_wrong():
    for fields, message in (
        ({"classes": 3}, "`MaskedPatchPrediction` needs an encoder with no head"),
        ({"rope": "mixed"}, "the same in each block"),
        ({"input_shape": (None, None, 3)}, "must know the number of patches"),
        ({"input_shape": (32, 32, 4)}, r'4 channels. Use target="pixels"'),
        ({"target": "downsized", "patch_size": 2}, "divisible by 4"),
        ({"target": "color"}, "must be one of 'mean_color', 'downsized', 'pixels'"),
        ({"mask_ratio": 0.01}, "at least one patch"),
        ({"patch_size": 32, "mask_ratio": 0.9}, "of at least two"),
        ({"mask_ratio": 1.0}, r"must be in \[0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            predicting(**fields)
    with pytest.raises(ValueError, match="`MaskedPatchPrediction` has its own loss"):
        predicting().compile("adam", "mse")
