"""EfficientNet: the network of `keras.applications`, and timm's files in and out."""

import json
import math
import shutil

import keras
import numpy as np
import pytest
from helpers import (
    REFERENCE,
    array,
    assert_close,
    assert_same_weights,
    images,
    randomize,
    reference,
    weights,
)
from safetensors.numpy import load_file

import keras_vit
from keras_vit import training
from keras_vit.conversion.inspect import inspect
from keras_vit.conversion.verify import compare_stages

CASE = "timm_efficientnet"
TINY = {"image_size": 32, "num_blocks": (1, 2, 1, 1, 1, 1, 1), "width_factor": 0.25}
B0 = {"num_blocks": (1, 2, 2, 3, 3, 4, 1), "width_factor": 1}
one_backend = pytest.mark.one_backend


def tiny(**overrides):
    """A tiny `EfficientNet` whose every weight is random, and variances positive."""
    model = randomize(keras_vit.EfficientNet(**{**TINY, "classes": 10, **overrides}))
    for weight in model.non_trainable_weights:
        weight.assign(np.abs(array(weight)))
    return model


def load(source=REFERENCE / CASE, **overrides):
    overrides = {"image_size": 64, "classifier_activation": None, **overrides}
    return keras_vit.from_pretrained(source, **overrides)


def num_parameters(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def test_every_stage_of_the_original():
    comparison = compare_stages(load(), reference(CASE), 1e-5)
    assert {row.name for row in comparison.rows} == {"stem", "features", "pooled", "logits"}
    assert comparison.ok, f"\n{comparison}"


def test_odd_sides_and_dropout_as_keras_has_them():
    """Against EfficientNet-B0 of `keras.applications`, which takes pixels up to 255."""
    theirs = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(75, 50, 3), pooling="avg"
    )
    ours = keras_vit.EfficientNet((75, 50), **B0)
    drops = [
        [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        for model in (ours, theirs)
    ]
    assert drops[0] == [*drops[1], 0.5]
    own = [w for w in theirs.weights if not w.path.startswith("normalization")]
    rng = np.random.default_rng(0)
    for weight in own:
        noise = rng.uniform(0.9, 1.1, weight.shape)
        weight.assign(np.where(array(weight) == 0, noise - 1, noise * array(weight)))
    ours.set_weights([array(weight) for weight in own])
    x = images(75, 50)
    assert_close(ours(x), theirs(255 * x))


def test_channels_first_equals_channels_last():
    last = tiny()
    first = keras_vit.from_pretrained(last, data_format="channels_first", input_shape=None)
    assert keras.config.image_data_format() == "channels_last"
    keras.config.set_image_data_format("channels_first")
    usual = tiny()
    usual.set_weights(last.get_weights())
    assert keras.config.image_data_format() == "channels_first"
    x = images()
    for model in (first, usual):
        assert_close(model(np.transpose(x, (0, 3, 1, 2))), last(x))


def test_it_trains():
    model = tiny()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    before = weights(model)
    model.fit(images(), np.array([1, 2]), epochs=1, verbose=0)
    moved = [
        path for path, value in weights(model).items() if (value != before[path]).any()
    ]
    # A kernel before a batch norm of one pixel has no gradient; all averages move.
    assert {"stem_conv/kernel", "head/kernel", "stem_bn/moving_mean"} <= set(moved)


def test_half_precision():
    model = tiny()
    half = keras_vit.from_pretrained(model, dtype="mixed_bfloat16")
    assert half.get_layer("stage_1_unit_1_dwconv").compute_dtype == "bfloat16"
    outputs = half(images())
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert_close(outputs, model(images()), 0.1)


@one_backend
def test_config_and_files_revive_the_model(tmp_path):
    model = tiny(include_preprocessing=True, image_mean=(0.1, 0.2, 0.3))
    config = model.get_config()
    assert keras_vit.EfficientNet.from_config(config).get_config() == config
    x = images()
    expected = array(model(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is keras_vit.EfficientNet
    np.testing.assert_array_equal(array(loaded(x)), expected)
    assert_same_weights(
        weights(keras_vit.from_pretrained(tmp_path / "model.keras")), weights(model)
    )
    assert inspect(tmp_path / "model.keras").problem is None

    model.save_weights(tmp_path / "model.weights.h5")
    other = keras_vit.EfficientNet.from_config(config)
    keras_vit.load_weights(other, tmp_path / "model.weights.h5")
    assert_same_weights(weights(other), weights(model))
    architecture = inspect(tmp_path / "model.weights.h5").architecture
    assert architecture["num_blocks"] == TINY["num_blocks"]


@one_backend
def test_timm_and_back_are_the_same_bits(tmp_path):
    model = load(classifier_activation="softmax")
    keras_vit.save_weights(model, tmp_path / "m.safetensors", layout="timm")
    written = load_file(tmp_path / "m.safetensors")
    original = load_file(REFERENCE / CASE / "model.safetensors")
    assert set(written) == set(original)
    for name, tensor in original.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)
    again = keras_vit.from_pretrained(tmp_path / "m.safetensors")
    assert again.get_config() | {"name": ""} == model.get_config() | {"name": ""}
    for layout, file in (("google", "m.npz"), ("huggingface", "m"), ("meta", "m.pth")):
        with pytest.raises(ValueError, match="no place for a `EfficientNet` here.*'timm'"):
            keras_vit.save_weights(model, tmp_path / file, layout=layout)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


@one_backend
def test_what_a_file_tells():
    config = load().get_config()
    assert config["num_blocks"] == (1, 1, 1, 2, 2, 2, 1)
    assert config["width_factor"] == 0.25
    assert config["image_mean"] == (0.485, 0.456, 0.406)
    assert config["image_std"] == (0.229, 0.224, 0.225)


@one_backend
def test_a_new_head_and_no_head(caplog):
    model = load(classes=3)
    assert "the head of 3 classes" in caplog.text
    np.testing.assert_array_equal(array(model.get_layer("head").kernel), 0)
    assert load(classes=0).output_shape == (None, 320)
    assert load(classes=0, pooling=None).output_shape == (None, 2, 2, 320)


@one_backend
def test_look_alikes_are_refused(tmp_path):
    """timm's own EfficientNets pad elsewhere, and have another epsilon."""
    path = shutil.copy(REFERENCE / CASE / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match="another padding and epsilon.*config.json"):
        load(path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "efficientnet_b0"}))
    with pytest.raises(ValueError, match="'efficientnet_b0', and it is not known"):
        load(path)
    load(path, plain_vit=True)


@one_backend
@pytest.mark.parametrize("channels", [1, 6])
def test_other_channels(channels):
    x = images(64, 64, min(channels, 3))
    rgb, repeated = (x.repeat(3, -1), x) if channels == 1 else (x, np.tile(x, (1, 1, 1, 2)))
    model = load(input_shape=(64, 64, channels))
    assert_close(model(repeated), load()(rgb))


# EfficientNet-L2.


@one_backend
def test_parameters_of_l2():
    """As the paper's code and timm count them, in a model whose weights take no memory."""
    assert keras_vit.describe("EfficientNetL2").parameters == 480_309_308
    with keras.StatelessScope(initialize_variables=False):
        model = keras_vit.EfficientNetL2(weights=None)
        assert num_parameters(model) == 480_309_308
        assert model.output_shape == (None, 1000)
        assert model.get_layer("top_dropout").rate == 0.5
        assert model.get_layer("top_conv").filters == 5504
    keras.utils.clear_session()


@one_backend
def test_presets():
    assert [p.tag for p in keras_vit.list_presets("Noisy Student")] == [
        *("noisy_student", "noisy_student-475")
    ]
    small = keras_vit.describe("EfficientNetL2.noisy_student-475")
    assert small.image_size == (475, 475)
    # timm counts 172.1 GMACs at 475 pixels, with batch norms.
    assert small.multiply_accumulates / 1e9 == pytest.approx(172.1, rel=0.01)
    pixels = np.full((1, 2, 2, 3), 255.0)
    expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    scaled = keras_vit.preprocess_input(pixels, "EfficientNetL2.noisy_student")
    np.testing.assert_allclose(scaled[0, 0, 0], expected, rtol=1e-6)


@one_backend
def test_a_file_of_another_architecture_is_refused():
    with pytest.raises(
        ValueError, match="not a checkpoint of EfficientNetL2. Expected num"
    ):
        keras_vit.EfficientNetL2(weights=REFERENCE / CASE)
    with pytest.raises(ValueError, match="not a checkpoint of BiTR50x1"):
        keras_vit.BiTR50x1(weights=REFERENCE / CASE)


@one_backend
@pytest.mark.parametrize("fields", [{}, {"image_size": (75, 50)}, {"classes": 0}, B0])
def test_multiply_accumulates_are_torchs(fields):
    from torch.utils.flop_counter import FlopCounterMode

    fields = {**TINY, "classes": 10, **fields}
    model = keras_vit.EfficientNet(**fields)
    description = keras_vit.describe(model)
    assert description.parameters == num_parameters(model)
    with FlopCounterMode(display=False) as counter:
        model(np.zeros((1, *model.input_shape[1:]), "float32"))
    assert counter.get_total_flops() == 2 * description.multiply_accumulates


# Training.


@one_backend
def test_blocks_and_norms_are_known_to_training():
    model = tiny()
    multipliers = training.learning_rate_multipliers(model, 0.5)
    values = {path.split("/", 1)[1]: value for path, value in multipliers.items()}
    assert values["head/kernel"] == values["top_conv/kernel"] == 1
    assert (
        values["stage_6_unit_0_bn/gamma"] == values["stage_6_unit_0_dwconv/kernel"] == 0.5
    )
    assert values["stage_1_unit_1_expand_conv/kernel"] == 0.5**6
    assert values["stem_conv/kernel"] == 0.5**9
    trained = {
        what: {w.path.split("/")[1] for w in training.freeze(model, what).trainable_weights}
        for what in ("linear", "norms", 1)
    }
    assert trained["linear"] == {"head"}
    assert all(name == "head" or name.endswith("bn") for name in trained["norms"])
    assert {"head", "top_conv", "stage_6_unit_0_dwconv"} <= trained[1]
    assert not any(name.startswith("stage_5") for name in trained[1])


@one_backend
def test_finetune_takes_it():
    data = keras_vit.data.load((np.zeros((20, 40, 40, 3), "uint8"), np.arange(20) % 2))
    model = tiny(classes=2, classifier_activation=None)
    recipe = training.SmallData.for_examples(16).replace(
        steps=1, batch_size=4, warmup_steps=0, image_size=32
    )
    history = training.finetune(model, data, recipe, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@one_backend
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_blocks": (1, 2)}, r"each of the 7 stages. Received: num_blocks=\(1, 2\)"),
        ({"num_blocks": (1,) * 6 + (0,)}, "`num_blocks` must be a positive integer"),
        ({"width_factor": 0}, "`width_factor` must be positive"),
        ({"image_size": 16}, "of 32 pixels or more"),
        ({"input_shape": (None, None, 3)}, "for one image size"),
        ({"pooling": "token"}, "`pooling` must be one of 'gap', None"),
        ({"drop_path_rate": 1.0}, "`drop_path_rate` must be in"),
    ],
)
def test_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)
