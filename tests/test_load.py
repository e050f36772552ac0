"""Strict loading: everything fits or is dropped for a reason, or nothing changes."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from helpers import (
    REFERENCE,
    array,
    assert_close,
    assert_same_weights,
    images,
    reference,
    tiny,
    weights,
)

import keras_vit
from keras_vit.resize import resize_grid
from keras_vit.weights.files.npz import NpzFile
from keras_vit.weights.keras_tensors import KerasFile

TOKEN = REFERENCE / "vit_token_linen_names" / "checkpoint.npz"
REPRESENTATION = REFERENCE / "vit_representation" / "checkpoint.npz"
GAP = REFERENCE / "vit_gap" / "checkpoint.npz"
GRID = "position_embedding/grid"


@pytest.fixture
def checkpoint():
    """The tensors of a checkpoint by name, to change before they are written."""
    return reference("vit_token_linen_names", "checkpoint")


@pytest.fixture
def write(tmp_path):
    def write(tensors, name="checkpoint.npz"):
        np.savez(tmp_path / name, **tensors)
        return tmp_path / name

    return write


def test_every_tensor_arrives_where_it_belongs(checkpoint):
    model = tiny()
    report = keras_vit.load_weights(model, TOKEN)
    values = weights(model)
    assert set(report.loaded) == set(values)
    assert not report.resized
    assert not report.dropped
    assert not report.fresh
    attention = "Transformer/encoderblock_1/MultiHeadDotProductAttention_0"
    expected = {
        "class_token/tokens": checkpoint["cls"][0],
        "position_embedding/prefix": checkpoint["Transformer/posembed_input/pos_embedding"][
            0, :1
        ],
        "block_1/attention/projection/kernel": checkpoint[f"{attention}/out/kernel"],
        "head/kernel": checkpoint["head/kernel"],
    }
    for path, value in expected.items():
        np.testing.assert_array_equal(values[path], value)
    for i, part in enumerate(("query", "key", "value")):
        np.testing.assert_array_equal(
            values["block_1/attention/qkv/kernel"][:, i],
            checkpoint[f"{attention}/{part}/kernel"],
        )
        np.testing.assert_array_equal(
            values["block_1/attention/qkv/bias"][i], checkpoint[f"{attention}/{part}/bias"]
        )


@pytest.mark.one_backend
def test_the_architecture_is_inferred():
    config = keras_vit.from_pretrained(REPRESENTATION).get_config()
    expected = {
        "image_size": (32, 32),
        "patch_size": (8, 8),
        "hidden_dim": 48,
        "num_layers": 2,
        "num_heads": 4,
        "mlp_dim": 96,
        "classes": 21,
        "representation_size": 48,
        "pooling": "token",
        "class_token": True,
        "gelu_approximate": True,
    }
    assert {key: config[key] for key in expected} == expected
    gap = keras_vit.from_pretrained(GAP).get_config()
    assert (gap["pooling"], gap["class_token"]) == ("gap", False)


def test_overrides_come_on_top():
    model = keras_vit.from_pretrained(
        TOKEN,
        classifier_activation=None,
        dropout_rate=0.1,
        name="mine",
    )
    assert model.name == "mine"
    assert model.get_config()["dropout_rate"] == 0.1
    expected = reference("vit_token_linen_names")
    assert_close(model(expected["input"]), expected["logits"])
    softmax = keras_vit.from_pretrained(TOKEN)
    assert_close(softmax(expected["input"]), keras.ops.softmax(expected["logits"]))


@pytest.mark.one_backend
def test_channels_come_from_the_file(checkpoint, write):
    kernel = checkpoint["embedding/kernel"]
    path = write({**checkpoint, "embedding/kernel": kernel[:, :, :1]})
    model = keras_vit.from_pretrained(path)
    assert model.input_shape == (None, 32, 32, 1)
    assert keras_vit.from_pretrained(path, image_size=48).input_shape == (None, 48, 48, 1)


def test_channels_first():
    expected = reference("vit_token_linen_names")
    model = keras_vit.from_pretrained(
        TOKEN, data_format="channels_first", classifier_activation=None
    )
    x = np.transpose(expected["input"], (0, 3, 1, 2))
    assert_close(model(x), expected["logits"])


def test_a_copy_of_channels_first_has_the_size_that_is_asked_for():
    """Whose `input_shape` begins with the channels, without `data_format` beside it."""
    model = keras_vit.from_pretrained(TOKEN, data_format="channels_first")
    larger = keras_vit.from_pretrained(model, input_shape=(3, 48, 24))
    assert larger.input_shape == (None, 3, 48, 24)
    varying = keras_vit.from_pretrained(model, input_shape=(3, 48, None))
    assert varying.input_shape == (None, 3, 48, None)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, None, None)])
def test_a_copy_in_the_other_data_format(shape):
    expected = reference("vit_token_linen_names")
    model = keras_vit.from_pretrained(
        TOKEN, data_format="channels_first", input_shape=shape, classifier_activation=None
    )
    other = keras_vit.from_pretrained(model, data_format="channels_last")
    assert other.input_shape == (None, *shape[1:], 3)
    assert_close(other(expected["input"]), expected["logits"])
    again = keras_vit.from_pretrained(other, data_format="channels_first")
    assert again.input_shape == (None, *shape)


@pytest.mark.parametrize("size", [(48, 48), (24, 16), (32, 64), (16, 64)])
def test_load_at_another_size_equals_load_then_resize(size, checkpoint, tmp_path):
    """By every way of loading; (16, 64) has as many patches as the checkpoint."""
    grid = checkpoint["Transformer/posembed_input/pos_embedding"][0, 1:].reshape(4, 4, 48)
    expected = resize_grid(grid, (size[0] // 8, size[1] // 8))
    native = keras_vit.from_pretrained(TOKEN)
    native.save(tmp_path / "native.keras")
    native.save_weights(tmp_path / "native.weights.h5")
    shape = (*size, 3)

    by_load_weights = tiny(image_size=size)
    report = keras_vit.load_weights(by_load_weights, TOKEN)
    assert report.resized == {GRID: ((4, 4, 48), expected.shape)}
    by_h5 = tiny(image_size=size)
    report = keras_vit.load_weights(by_h5, tmp_path / "native.weights.h5")
    assert report.resized == {GRID: ((4, 4, 48), expected.shape)}
    by_keras = tiny(image_size=size)
    keras_vit.load_weights(by_keras, tmp_path / "native.keras")
    by_model_load_weights = tiny(image_size=size)
    by_model_load_weights.load_weights(tmp_path / "native.weights.h5")
    reopened = keras.models.load_model(tmp_path / "native.keras")
    models = [
        by_load_weights,
        by_h5,
        by_keras,
        by_model_load_weights,
        keras_vit.from_pretrained(TOKEN, input_shape=shape),
        keras_vit.from_pretrained(TOKEN, image_size=size),
        keras_vit.from_pretrained(tmp_path / "native.keras", input_shape=shape),
        keras_vit.from_pretrained(reopened, input_shape=shape),
    ]
    for model in models:
        assert model.input_shape == (None, *shape)
        values = weights(model)
        np.testing.assert_allclose(values.pop(GRID), expected, atol=1e-7)
        native_values = weights(native)
        del native_values[GRID]
        assert_same_weights(values, native_values)


def test_the_interpolation_is_the_models(checkpoint):
    model = keras_vit.from_pretrained(
        TOKEN, image_size=48, position_interpolation="bicubic"
    )
    grid = checkpoint["Transformer/posembed_input/pos_embedding"][0, 1:].reshape(4, 4, 48)
    expected = resize_grid(grid, (6, 6), "bicubic")
    np.testing.assert_allclose(weights(model)[GRID], expected, atol=1e-7)


@pytest.mark.one_backend
def test_a_grid_that_is_no_square(checkpoint, write):
    positions = checkpoint["Transformer/posembed_input/pos_embedding"]
    path = write(
        {**checkpoint, "Transformer/posembed_input/pos_embedding": positions[:, :13]}
    )
    for shape in (None, (None, None, 3)):
        with pytest.raises(
            ValueError, match=r"12 patches, whose \(rows, columns\) the file does not tell"
        ):
            keras_vit.from_pretrained(path, input_shape=shape)
    for model in (
        keras_vit.from_pretrained(path, input_shape=(24, 32, 3)),
        keras_vit.from_pretrained(path, position_grid=(3, 4)),
    ):
        assert model.input_shape == (None, 24, 32, 3)
        expected = positions[0, 1:13].reshape(3, 4, 48)
        np.testing.assert_array_equal(weights(model)[GRID], expected)
    larger = keras_vit.from_pretrained(path, position_grid=(3, 4), input_shape=(48, 64, 3))
    expected = resize_grid(positions[0, 1:13].reshape(3, 4, 48), (6, 8))
    np.testing.assert_allclose(weights(larger)[GRID], expected, atol=1e-7)
    with pytest.raises(
        ValueError, match=r"12 patches.*Give `position_grid=\(rows, columns\)`"
    ):
        keras_vit.from_pretrained(path, input_shape=(48, 48, 3))
    with pytest.raises(ValueError, match=r"position_grid=\(5, 5\)"):
        keras_vit.from_pretrained(path, position_grid=(5, 5))


def test_a_head_of_another_size_is_new_and_said_so(caplog):
    model = keras_vit.from_pretrained(REPRESENTATION, classes=5)
    values = weights(model)
    assert values["head/kernel"].shape == (48, 5)
    assert not values["head/kernel"].any()
    assert "pre_logits/kernel" not in values  # the paper replaces the whole head
    assert len(caplog.records) == 1
    assert "head of 5 classes is not in the checkpoint" in caplog.text
    kept = keras_vit.from_pretrained(REPRESENTATION, classes=5, representation_size=48)
    assert weights(kept)["pre_logits/kernel"].any()


def test_the_report_says_what_was_dropped():
    model = tiny(classes=5)
    before = weights(model)
    report = keras_vit.load_weights(model, REPRESENTATION)
    assert report.fresh == ("head/bias", "head/kernel")
    assert set(report.dropped) == {
        *("head/kernel", "head/bias", "pre_logits/kernel", "pre_logits/bias")
    }
    assert set(report.dropped.values()) == {"the model's head has another size"}
    np.testing.assert_array_equal(weights(model)["head/kernel"], before["head/kernel"])
    assert "dropped pre_logits/kernel: the model's head" in str(report)
    report = keras_vit.load_weights(tiny(classes=0), REPRESENTATION)
    assert set(report.dropped.values()) == {"the model has no head"}


def test_features_of_a_checkpoint_with_a_head():
    expected = reference("vit_representation")
    features = keras_vit.from_pretrained(REPRESENTATION, classes=0)
    assert_close(features(expected["input"]), expected["encoder_norm"][:, 0])
    represented = keras_vit.from_pretrained(
        REPRESENTATION, classes=0, representation_size=48
    )
    assert_close(represented(expected["input"]), expected["pre_logits"])
    tokens = keras_vit.from_pretrained(REPRESENTATION, classes=0, pooling=None)
    assert_close(tokens(expected["input"]), expected["encoder_norm"])
    mean = keras_vit.from_pretrained(REPRESENTATION, classes=0, pooling="gap")
    assert_close(mean(expected["input"]), expected["encoder_norm"][:, 1:].mean(1))


def test_a_functional_clone_can_be_loaded():
    clone = keras.models.clone_model(tiny())
    keras_vit.load_weights(clone, TOKEN)
    assert_same_weights(weights(clone), weights(keras_vit.from_pretrained(TOKEN)))


def test_half_precision_files_fill_float32_models(checkpoint, write):
    halves = {name: tensor.astype("float16") for name, tensor in checkpoint.items()}
    model = keras_vit.from_pretrained(write(halves))
    assert all(weight.dtype == "float32" for weight in model.weights)
    kernel = halves["embedding/kernel"].astype("float32")
    np.testing.assert_array_equal(weights(model)["patch_embedding/kernel"], kernel)


def renamed(tensors):
    tensors["embedding/kernels"] = tensors.pop("embedding/kernel")


def without_a_query(tensors):
    del tensors["Transformer/encoderblock_1/MultiHeadDotProductAttention_0/query/kernel"]


def with_another_tensor(tensors):
    tensors["Transformer/extra"] = np.zeros(3, "float32")


def doubled(tensors):
    name = "Transformer/encoderblock_1/{}/scale"
    tensors[name.format("LayerNorm_2")] = tensors[name.format("LayerNorm_1")]


def with_another_width(tensors):
    tensors["Transformer/encoder_norm/scale"] = np.ones(47, "float32")


def with_integers(tensors):
    tensors["head/bias"] = np.zeros(10, "int64")


def with_nan(tensors):
    tensors["head/kernel"][3, 4] = np.nan


def with_objects(tensors):
    tensors["cls"] = np.array([{}], dtype=object)


BLOCK_QKV = "block_1/attention/qkv/kernel"
BAD_TENSORS = [
    (renamed, "In the file, but not in the model: embedding/kernels"),
    (renamed, "In the model, but not in the file: patch_embedding/kernel"),
    (without_a_query, f"In the model, but not in the file: {BLOCK_QKV}"),
    (without_a_query, "In the file, but not in the model: .*/key/kernel, .*/value/kernel"),
    (with_another_tensor, "In the file, but not in the model: Transformer/extra"),
    (doubled, "'.*LayerNorm_2/scale' and '.*LayerNorm_1/scale' are the same tensor"),
    (with_another_width, r"encoder_norm/gamma \(47,\), expected \(48,\)"),
    (with_integers, "'head/bias' of '.*' holds int64 where floating-point numbers"),
    (with_nan, "'head/kernel' of '.*' holds NaN or infinity"),
    (with_objects, "'cls' holds pickled objects, which are never opened"),
]


@pytest.mark.one_backend
@pytest.mark.parametrize(("change", "message"), BAD_TENSORS)
def test_bad_tensors_are_named_and_nothing_changes(change, message, checkpoint, write):
    change(checkpoint)
    path = write(checkpoint)
    assert_refused(path, message)


def assert_refused(path, message, error=ValueError, **overrides):
    model = tiny(**overrides)
    before = weights(model)
    with pytest.raises(error, match=message):
        keras_vit.load_weights(model, path)
    assert_same_weights(weights(model), before)


@pytest.mark.one_backend
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_truncated_npz(kept, tmp_path):
    data = TOKEN.read_bytes()
    path = tmp_path / "cut.npz"
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    assert_refused(
        path, r"cut.npz' \([\d,]+ bytes\) is not a complete .npz .*download it again"
    )


@pytest.mark.one_backend
def test_damaged_npz(tmp_path):
    data = bytearray(TOKEN.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "damaged.npz"
    path.write_bytes(data)
    assert_refused(path, "is not a complete .npz archive of arrays.*CRC")


@pytest.mark.one_backend
@pytest.mark.parametrize("ending", [".npz", ".keras", ".weights.h5"])
def test_missing_and_foreign_files(ending, tmp_path):
    missing = tmp_path / f"missing{ending}"
    assert_refused(missing, "There is no checkpoint at '.*missing", FileNotFoundError)
    foreign = tmp_path / f"foreign{ending}"
    foreign.write_text("<html>404: Not Found</html>")
    assert_refused(
        foreign, f"foreign{ending}' .*is (not a complete|no) {re.escape(ending)}"
    )


@pytest.mark.one_backend
def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    assert_refused(tmp_path / "folder.npz", "There is no checkpoint", FileNotFoundError)


@pytest.mark.one_backend
def test_an_npz_of_something_else(write):
    path = write({"a": np.zeros(3), "b": np.zeros(4)})
    message = "is not a ViT checkpoint in a layout known here.* It holds 2 tensors: a, b."
    with pytest.raises(ValueError, match=message):
        keras_vit.from_pretrained(path)
    assert_refused(path, message)


@pytest.mark.one_backend
def test_unknown_endings(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    message = r"ends in .npz, .safetensors, .*, .keras, or is a folder. Received: '.*onnx'"
    assert_refused(path, message)
    with pytest.raises(ValueError, match=message):
        keras_vit.from_pretrained(path)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_layers": 3}, "In the model, but not in the file: block_2/attention/proj"),
        ({"num_layers": 1}, "In the file, but not in the model: block_1/attention/proj"),
        (
            {"hidden_dim": 32},
            r"patch_embedding/kernel \(8, 8, 3, 48\), expected \(8, 8, 3, 32\)",
        ),
        ({"num_heads": 2}, r"qkv/kernel \(48, 3, 4, 12\), expected \(48, 3, 2, 24\)"),
        ({"pooling": "gap"}, "In the file, but not in the model: class_token/tokens"),
        (
            {"representation_size": 48},
            "not in the file: pre_logits/bias, pre_logits/kernel",
        ),
    ],
)
def test_a_checkpoint_of_another_architecture(overrides, message, tmp_path):
    assert_refused(TOKEN, message, **overrides)
    assert_refused(
        TOKEN, "`keras_vit.from_pretrained` builds the model that fits", **overrides
    )
    native = keras_vit.from_pretrained(TOKEN)
    native.save(tmp_path / "native.keras")
    assert_refused(tmp_path / "native.keras", message, **overrides)
    native.save_weights(tmp_path / "native.weights.h5")
    assert_refused(
        tmp_path / "native.weights.h5", "does not fit the model .*unchanged", **overrides
    )


@pytest.mark.one_backend
def test_a_head_over_another_layer_is_an_error():
    # The sizes fit, but the head was trained on what `pre_logits` computes.
    assert_refused(REPRESENTATION, "not in the model: pre_logits/bias", classes=21)


@pytest.mark.parametrize("ending", ["npz", "keras", "weights.h5"])
def test_mismatched_heads_can_be_errors(ending, tmp_path):
    native = keras_vit.from_pretrained(TOKEN)
    path = TOKEN if ending == "npz" else tmp_path / f"native.{ending}"
    if ending == "keras":
        native.save(path)
    elif ending == "weights.h5":
        native.save_weights(path)
    model = tiny(classes=5)
    before = weights(model)
    with pytest.raises(ValueError, match="head|Dense"):
        keras_vit.load_weights(model, path, skip_mismatched_head=False)
    assert_same_weights(weights(model), before)
    report = keras_vit.load_weights(model, path)
    assert set(report.fresh) == {"head/kernel", "head/bias"}
    np.testing.assert_array_equal(weights(model)["head/kernel"], before["head/kernel"])
    np.testing.assert_array_equal(weights(model)[BLOCK_QKV], weights(native)[BLOCK_QKV])


def test_a_saved_model_that_was_trained_opens_at_another_size(tmp_path):
    model = tiny()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images(), np.array([1, 2]), verbose=0)
    model.save(tmp_path / "trained.keras")
    larger = keras_vit.from_pretrained(
        tmp_path / "trained.keras", input_shape=(64, 48, 3), classes=7
    )
    assert larger.output_shape == (None, 7)
    assert larger.get_layer("position_embedding").grid.shape == (8, 6, 48)
    assert np.isfinite(array(larger(images(64, 48)))).all()


@pytest.mark.one_backend
def test_only_vision_transformers_are_copied(tmp_path):
    inputs = keras.Input((4,))
    dense = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="other")
    with pytest.raises(ValueError, match="Received: Functional 'other'"):
        keras_vit.from_pretrained(dense)
    dense.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="Use `keras.models.load_model`"):
        keras_vit.from_pretrained(tmp_path / "other.keras")


@pytest.mark.one_backend
def test_layers_resize_only_grids_of_their_own_width(tmp_path):
    tiny(hidden_dim=32).save_weights(tmp_path / "narrow.weights.h5")
    with pytest.raises(ValueError, match="could not be loaded"):
        tiny().load_weights(tmp_path / "narrow.weights.h5")


@pytest.mark.one_backend
def test_threads_read_the_members_of_an_archive_at_once(tmp_path):
    """In some versions of Python `ZipFile.open` is not for several threads."""
    rng = np.random.default_rng(0)
    arrays = {f"array_{i:02d}": rng.normal(size=(50, 40)) for i in range(40)}
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(10):
            with (
                NpzFile(str(tmp_path / "packed.npz")) as file,
                ThreadPoolExecutor(8) as pool,
            ):
                for name, read in zip(arrays, pool.map(file.read, arrays), strict=True):
                    np.testing.assert_array_equal(read, arrays[name])
    finally:
        sys.setswitchinterval(interval)


# Arguments of `keras.applications`, and the global dtype policy.


def test_keras_files_of_bfloat16_are_read(tmp_path):
    """HDF5 has no such numbers: they lie there as two bytes of anything."""
    first = tiny(dtype="bfloat16")
    first.save(tmp_path / "half.keras")
    first.save_weights(tmp_path / "half.weights.h5")
    again = keras_vit.from_pretrained(tmp_path / "half.keras")
    assert again.dtype_policy.name == "bfloat16"
    full = keras_vit.from_pretrained(tmp_path / "half.keras", dtype="float32")
    filled = tiny(dtype="bfloat16", image_size=32)
    for weight in filled.weights:
        weight.assign(np.zeros(weight.shape))
    keras_vit.load_weights(filled, tmp_path / "half.weights.h5")
    for model in (again, full, filled):
        for weight, other in zip(model.weights, first.weights, strict=True):
            assert bool(keras.ops.all(keras.ops.cast(other, weight.dtype) == weight))
    dtypes = set(KerasFile(str(tmp_path / "half.keras")).dtypes.values())
    assert "bfloat16" in dtypes
    assert dtypes <= {"bfloat16", "float32"}
    first.weights[3].assign(np.full(first.weights[3].shape, np.nan))
    first.save(tmp_path / "nan.keras")
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        keras_vit.from_pretrained(tmp_path / "nan.keras")


@pytest.mark.one_backend
def test_a_keras_file_follows_the_global_policy(tmp_path):
    first = tiny()
    first.save(tmp_path / "full.keras")
    tiny(dtype="mixed_bfloat16").save(tmp_path / "half.keras")
    load = keras_vit.from_pretrained
    assert load(tmp_path / "full.keras").dtype_policy.name == "float32"
    assert load(tmp_path / "half.keras").dtype_policy.name == "mixed_bfloat16"
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = load(tmp_path / "full.keras")
    assert model.dtype_policy.name == "mixed_bfloat16"
    assert model.get_layer("block_0").compute_dtype == "bfloat16"
    assert_same_weights(weights(model), weights(first))
    assert load(TOKEN).dtype_policy.name == "mixed_bfloat16"
    full = load(tmp_path / "full.keras", dtype="float32")
    assert full.dtype_policy.name == "float32"
    assert load(full).dtype_policy.name == "float32"  # a copy of a model in memory


@pytest.mark.one_backend
@pytest.mark.parametrize("kind", ["npz", "keras"])
def test_without_a_head_as_in_keras_applications(kind, tmp_path):
    path = REPRESENTATION
    if kind == "keras":
        keras_vit.from_pretrained(path).save(path := tmp_path / "m.keras")
    model = keras_vit.from_pretrained(path, include_top=False, pooling="token")
    config = model.get_config()
    assert (config["classes"], config["representation_size"]) == (0, None)
    assert model.output_shape == (None, 48)
    assert keras_vit.from_pretrained(path, include_top=False).output_shape[1:] == (17, 48)
    whole = keras_vit.from_pretrained(path, include_top=True)
    assert whole.output_shape == (None, 21)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"weights": None}, r"new weights|constructors, such as `keras_vit\.ViTB16"),
        ({"include_top": False, "classes": 3}, "leaves out the head, .*Received: also"),
        ({"pooling": "max"}, "not available here"),
        ({"num_head": 4}, "no argument 'num_head'. Near it: .*num_heads"),
        ({"foo_zzz": 4}, "no argument 'foo_zzz'. Known: image_size, "),
    ],
)
def test_arguments_that_are_of_others(overrides, message, tmp_path):
    tiny().save(tmp_path / "m.keras")
    for source in (TOKEN, tmp_path / "m.keras", tiny()):
        with pytest.raises(ValueError, match=message):
            keras_vit.from_pretrained(source, **overrides)
    if not overrides.keys() & {"weights", "include_top"}:
        with pytest.raises(ValueError, match=message):
            keras_vit.ViTTi16(weights=None, **overrides)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["m.safetensors", "m.npz", "m.keras", "m.weights.h5"])
def test_a_folder_where_a_file_is_to_be(name, tmp_path):
    from keras_vit.conversion.convert import convert

    (tmp_path / name).mkdir()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is a folder, and a file is to be written"):
            convert(TOKEN, tmp_path / name, overwrite=overwrite)
    layout = {"m.safetensors": "timm", "m.npz": "google"}.get(name)
    if layout:
        with pytest.raises(ValueError, match="is a folder, and a file is to be written"):
            keras_vit.save_weights(tiny(), tmp_path / name, layout=layout)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file, and a folder is to be written"):
        convert(TOKEN, tmp_path / "file", layout="huggingface", overwrite=True)
    assert list((tmp_path / name).iterdir()) == []
