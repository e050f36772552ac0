"""Exported files compute what the model does, in their own runtimes."""

import json
import logging
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from helpers import array, assert_close, images, randomize, tiny
from PIL import Image

import keras_vit
from keras_vit.cli import main
from keras_vit.exporting import FORMATS, export, load_exported, read_metadata, writers
from keras_vit.exporting.telemetry import kept_offline

BACKEND = keras.backend.backend()
WRITTEN = [name for name, row in FORMATS.items() if BACKEND in row.backends]
MODELS = {
    "plain": {},
    "hybrid": {"patch_size": 1, "stem": {"num_units": (1, 1), "width_factor": 0.5}},
    "map": {"pooling": "map", "mlp": "swiglu", "qk_norm": True, "position": "sincos2d"},
    "tokens": {"pooling": None, "classes": 0, "num_registers": 2},
    "pixels": {"include_preprocessing": True, "gelu_approximate": False},
    "channels first": {"data_format": "channels_first"},
}
only_on_torch = pytest.mark.skipif(BACKEND != "torch", reason="written on torch alone")
on_torch = pytest.mark.one_backend  # of which none has a part in what is tested


def is_newer_than_tensorflow():
    """True if JAX writes programs that the last release of TensorFlow does not read."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.__version_info__ >= (0, 11)


def path_of(folder, name):
    return folder / f"model{FORMATS[name].ending}"


def bit():
    return randomize(
        keras_vit.BiTResNet(32, num_units=(1, 1), width_factor=0.5, classes=10)
    )


@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_computes_the_same(name, tmp_path):
    model, path = tiny(), path_of(tmp_path, name)
    report = export(model, path, images=images())
    assert report.difference <= 1e-5
    assert (report.format, report.agreement, report.num_images) == (name, 1, 2)
    assert {each.name for each in tmp_path.iterdir()} <= {path.name, "model.bin"}
    run = load_exported(path)
    for batch in (1, 2, 5):
        given = images(batch=batch)
        assert_close(run(given), model(given))


# Every model in the format that has the most of its own: see the table of the README.
OF_THE_MODELS = {"torch": ["onnx"], "tensorflow": ["litert"], "jax": ["saved_model"]}


@pytest.mark.parametrize("name", OF_THE_MODELS[BACKEND])
@pytest.mark.parametrize("kind", [*list(MODELS)[1:], "bit"])
def test_every_model_computes_the_same(kind, name, tmp_path):
    model = bit() if kind == "bit" else tiny(**MODELS[kind])
    if kind == "pixels" and name == "saved_model" and is_newer_than_tensorflow():
        # Its exact GELU is a composite operation, which TensorFlow 2.21 does not refine.
        with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow keras-vit export"):
            export(model, path_of(tmp_path, name))
        return
    report = export(model, path_of(tmp_path, name))
    assert report.difference <= 1e-5
    assert report.generated
    assert report.agreement == (None if kind == "tokens" else 1)


@only_on_torch
def test_a_file_of_torch_has_every_weight_once(tmp_path):
    import torch

    model, path = tiny(), tmp_path / "model.pt2"
    export(model, path)
    program = torch.export.load(path)
    held = (*program.state_dict.values(), *program.constants.values())
    assert sum(tensor.numel() for tensor in held) == model.count_params()


@only_on_torch
@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_merged_tokens_where_a_format_has_what_they_take(name, tmp_path):
    report = export(tiny(merged_tokens=3), path_of(tmp_path, name))
    assert report.difference <= 1e-5


@only_on_torch
def test_onnx_cannot_merge_tokens(tmp_path):
    with pytest.raises(ValueError, match="cannot be exported as onnx.*merged_tokens=0"):
        export(tiny(merged_tokens=3), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@only_on_torch
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8(name, tmp_path):
    model, path = tiny(classifier_activation=None), path_of(tmp_path, name)
    calibration = np.random.default_rng(2).uniform(-1, 1, (20, 32, 32, 3))
    report = export(model, path, images=images(), calibration=calibration)
    assert report.int8
    assert 1e-4 < report.difference < 0.1
    # Of both blocks qkv (in two parts in the last), projection and MLP; patches, head.
    assert len(integer_weights(path)) == 11
    assert "int8" in str(report)


# What a file says of images and classes.

NOTED = {
    "classes": 3,
    "classifier_activation": None,
    "class_names": ("cat", "dog \u90c1", "a\nb"),
    "probabilities": "sigmoid",
    "preprocessing": {"evaluation_crop": "center", "resize_factor": 1.25},
    "image_mean": (0.5, 0.4, 0.3),
    "image_std": 0.25,
}
TOLD = {
    "class_names": ["cat", "dog \u90c1", "a\nb"],
    "probabilities": "sigmoid",
    "image_size": [32, 32],
    "data_format": "channels_last",
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": 0.25,
    "evaluation_crop": "center",
    "resize_factor": 1.25,
    "interpolation": "bilinear",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_tells_of_images_and_classes(name, tmp_path):
    path = path_of(tmp_path, name)
    model = tiny(**NOTED)
    assert export(model, path, images=images()).difference <= 1e-5
    assert read_metadata(path) == TOLD
    assert in_its_own_way(name, path) == TOLD["class_names"]


def in_its_own_way(name, path):
    """The class names as the format's own readers give them."""
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    if name == "openvino":
        import openvino

        model = openvino.Core().read_model(path)
        return json.loads(model.get_rt_info(["keras_vit", "class_names"]).astype(str))
    if name == "torch":
        import torch

        files = {"keras_vit.json": ""}
        torch.export.load(path, extra_files=files)
        return json.loads(files["keras_vit.json"])["class_names"]
    if name == "litert":
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt").decode() == "cat\ndog \u90c1\na b\n"
            return json.loads(archive.read("keras_vit.json"))["class_names"]
    return json.loads((path / "assets.extra/keras_vit.json").read_text())["class_names"]


@only_on_torch
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8_tells_of_images_and_classes(name, tmp_path):
    path = path_of(tmp_path, name)
    calibration = np.random.default_rng(2).uniform(-1, 1, (20, 32, 32, 3))
    export(tiny(**NOTED), path, images=images(), calibration=calibration)
    assert read_metadata(path) == TOLD
    assert len(integer_weights(path)) == 11


@only_on_torch
def test_models_that_know_little_tell_little(tmp_path):
    """Pixel values from 0 to 255 are not to be standardised; others are Keras' models."""
    export(tiny(include_preprocessing=True), tmp_path / "a.onnx")
    assert read_metadata(tmp_path / "a.onnx") == {
        "probabilities": "none",
        "image_size": [32, 32],
        "data_format": "channels_last",
    }
    inner = tiny(classes=0)
    outer = keras.Sequential([keras.Input((32, 32, 3)), inner, keras.layers.Dense(2)])
    export(outer, tmp_path / "b.onnx")
    assert read_metadata(tmp_path / "b.onnx") == {}
    with pytest.raises(FileNotFoundError, match="no exported model"):
        read_metadata(tmp_path / "c.onnx")


def integer_weights(path):
    """Matrices of 8 bits in a file."""
    if path.suffix == ".onnx":
        import onnx

        tensors = onnx.load(path).graph.initializer
        return [t.name for t in tensors if t.data_type == 3 and len(t.dims) > 1]
    import openvino

    constants = openvino.Core().read_model(path).get_ops()
    return [
        one.get_friendly_name()
        for one in constants
        if one.get_type_name() == "Constant"
        and one.get_element_type().get_type_name() in ("i8", "u8")
        and len(one.get_output_shape(0)) > 1
    ]


@only_on_torch
def test_a_calibration_sets_the_ranges(tmp_path):
    """Images far beyond those that it is calibrated with are clipped."""
    model, path = tiny(classifier_activation=None), tmp_path / "model.onnx"
    wide = images(batch=8)
    errors = []
    for calibration in (wide, 0.01 * wide):
        report = export(model, path, images=wide, calibration=calibration, overwrite=True)
        errors.append(report.difference)
    assert errors[1] > 3 * errors[0]


@only_on_torch
def test_large_models_have_their_weights_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "MOST_BYTES", 10_000)
    model, path = tiny(), tmp_path / "model.onnx"
    export(model, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert_close(load_exported(path)(images()), model(images()))
    with pytest.raises(ValueError, match="something at .*model.onnx"):
        export(model, path)
    calibrated = tmp_path / "int8.onnx"
    export(model, calibrated, calibration=images(batch=8))
    assert_close(load_exported(calibrated)(images()), model(images()), tolerance=0.3)
    assert (tmp_path / "int8.onnx.data").is_file()


@pytest.mark.skipif(BACKEND == "jax", reason="SavedModel of JAX has no bfloat16 here")
def test_half_precision_where_the_format_has_it(tmp_path):
    name = {"torch": "torch", "tensorflow": "saved_model"}[BACKEND]
    model = tiny(dtype="mixed_bfloat16")
    report = export(model, path_of(tmp_path, name))
    assert report.difference <= 5e-2


def test_half_precision_is_refused_elsewhere(tmp_path):
    name = {"torch": "onnx", "tensorflow": "litert"}.get(BACKEND)
    if name is None:
        pytest.skip("JAX writes SavedModels alone, which have it")
    with pytest.raises(ValueError, match="float32. Received: .*'mixed_bfloat16'"):
        export(tiny(dtype="mixed_bfloat16"), path_of(tmp_path, name))


def test_another_backend_is_named(tmp_path):
    name = {"torch": "litert", "tensorflow": "onnx", "jax": "openvino"}[BACKEND]
    with pytest.raises(ValueError, match=rf"and this is {BACKEND}.*keras-vit export"):
        export(tiny(), path_of(tmp_path, name))


@only_on_torch
@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ({}, {"path": "model.bin"}, "does not tell the format. Expected none .saved_model"),
        ({}, {"format": "tflite"}, "must be one of saved_model, onnx.*'tflite'"),
        ({}, {"format": "torch"}, r"ends in .pt2. Received: '.*model.onnx'"),
        ({"input_shape": (None, None, 3)}, {}, "images of one size.*None, None, 3"),
        ({}, {"images": np.zeros((2, 16, 16, 3))}, r"\(n, 32, 32, 3\).*\(2, 16, 16, 3\)"),
        ({}, {"images": np.zeros((0, 32, 32, 3))}, "Received: no image"),
        ({}, {"calibration": np.full((1, 32, 32, 3), np.nan)}, "NaN or infinity"),
        (
            {},
            {"path": "model.pt2", "calibration": images()},
            "for the formats onnx and openvino. Received: format='torch'",
        ),
        ({}, {"tolerance": 1e-12}, "computes something else.*1e-12 is allowed"),
    ],
)
def test_refuses(fields, arguments, message, tmp_path):
    path = tmp_path / arguments.pop("path", "model.onnx")
    with pytest.raises(ValueError, match=message):
        export(tiny(**fields), path, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize("name", WRITTEN)
def test_a_model_that_keras_quantized(name, tmp_path):
    """It is written as it is, or an error says what to do, in no compiler's words."""
    model = tiny()
    model.quantize("int8")
    model.predict(images(), verbose=0)
    if name in ("saved_model", "torch", "onnx"):
        assert export(model, path_of(tmp_path, name)).difference < 1e-5
        return
    message = (
        r"(quantized by Keras \(int8\)|computes something else).*Export the model from "
        "before `quantize`"
    )
    root = logging.getLogger()
    before = root.level, root.handlers[:], root.filters[:]
    with pytest.raises(ValueError, match=message):
        export(model, path_of(tmp_path, name))
    assert list(tmp_path.iterdir()) == []
    assert (root.level, root.handlers, root.filters) == before


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of its own")
def test_a_model_within_a_strategy(tmp_path):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = tiny()
        report = export(model, tmp_path / "model", images=images())
    assert report.difference < 1e-5


@only_on_torch
def test_few_images_to_calibrate_with_are_warned_of(tmp_path, caplog):
    model = tiny(classifier_activation=None)
    with caplog.at_level("WARNING", "keras_vit"):
        report = export(model, tmp_path / "m.onnx", calibration=images(batch=1))
        assert "measured on only 1 images" in caplog.text
        assert (report.num_images, report.generated) == (1, False)
        caplog.clear()
        report = export(
            model, tmp_path / "m.onnx", calibration=images(batch=40), overwrite=True
        )
    assert not caplog.text
    assert (report.num_images, report.generated) == (40, False)


@only_on_torch
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_a_model_is_quantized_once(tmp_path):
    model = tiny()
    model.quantize("int8")
    with pytest.raises(ValueError, match="already quantized by Keras"):
        export(model, tmp_path / "model.onnx", calibration=images())


@only_on_torch
def test_two_inputs_are_refused(tmp_path):
    inputs = [keras.Input((2,)), keras.Input((2,))]
    model = keras.Model(inputs, keras.layers.Add()(inputs))
    with pytest.raises(ValueError, match="one input and one output. Received: 2 and 1"):
        export(model, tmp_path / "model.onnx")


@only_on_torch
def test_what_is_there_stays_where_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    export(tiny(), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="something at .*model.pt2.*`overwrite`"):
        export(tiny(), path)

    def fail(model, path):
        raise RuntimeError("no such operation\nand much more")

    monkeypatch.setitem(sys.modules[export.__module__].__dict__, "writer", lambda _: fail)
    with pytest.raises(ValueError, match="as torch: no such operation. Nothing was"):
        export(tiny(), path, overwrite=True)
    with pytest.raises(FileNotFoundError, match="no folder .*Make it first"):
        export(tiny(), tmp_path / "missing" / "model.pt2")
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model.pt2"]


@pytest.mark.skipif(BACKEND == "torch", reason="torch writes no folder")
def test_folders_of_other_things_are_not_replaced(tmp_path):
    home, model = tmp_path / "home", tiny(num_layers=1)
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="a folder and no SavedModel"):
        export(model, home, overwrite=True)
    assert (home / "letter.txt").read_text() == "dear"
    export(model, tmp_path / "saved")
    export(model, tmp_path / "saved", overwrite=True)


@on_torch
def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no exported model"):
        load_exported(tmp_path / "model.onnx")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 256, (40, 50, 3)).astype("uint8")
        name = f"below/{i}.png" if i % 2 else f"{i}.png"
        Image.fromarray(pixels).save(folder / name)
    return folder


@only_on_torch
def test_the_command_line(tmp_path, pictures, capsys):
    tiny(classifier_activation=None).save(tmp_path / "model.keras")
    target = tmp_path / "model.onnx"
    arguments = ["export", tmp_path / "model.keras", target, "--images", pictures]
    arguments += ["--set", "classifier_activation=softmax", "--image-size", "24", "40"]
    assert main([str(each) for each in arguments]) == 0
    out = capsys.readouterr().out
    assert "(onnx, 0.3 MB)" in out
    assert "with the model on 4 images" in out
    given = images(24, 40)
    actual = load_exported(target)(given)
    np.testing.assert_allclose(actual.sum(axis=1), 1, atol=1e-5)
    model = keras_vit.from_pretrained(
        tmp_path / "model.keras", image_size=(24, 40), classifier_activation="softmax"
    )
    assert_close(actual, array(model(given)))
    int8 = [*arguments, "--overwrite", "--calibration", pictures / "0.png", pictures]
    assert main([str(each) for each in int8]) == 0
    assert "(onnx, int8, 0." in capsys.readouterr().out
    assert main([str(each) for each in arguments]) == 2
    assert "something at" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    arguments[-1:] = ["40", "--overwrite", "--calibration", tmp_path / "empty"]
    assert main([str(each) for each in arguments]) == 2
    assert "no image in the folder" in capsys.readouterr().err


@only_on_torch
def test_the_command_line_looks_at_the_target_first(tmp_path, capsys):
    for name in ("model.onnx", "model.tflite"):  # the second is another backend's
        (tmp_path / name).write_text("of value")
        assert main(["export", "no such model.keras", str(tmp_path / name)]) == 2
        assert "something at" in capsys.readouterr().err
        assert (tmp_path / name).read_text() == "of value"


@only_on_torch
def test_the_command_line_takes_the_backend_that_it_needs(tmp_path):
    model = tiny(num_layers=1)
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-m", "keras_vit", "export", "model.keras", "model.tflite"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "litert is written with KERAS_BACKEND=tensorflow" in done.stderr
    assert_close(load_exported(tmp_path / "model.tflite")(images()), model(images()))


@pytest.mark.one_backend
def test_nothing_is_reported_offline(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with kept_offline():
        assert "CI" not in os.environ
    monkeypatch.setenv("KERAS_VIT_OFFLINE", "1")
    with kept_offline():
        assert (os.environ["CI"], os.environ["NNCF_CI"]) == ("true", "1")
    assert "CI" not in os.environ


@only_on_torch
def test_openvino_need_not_ask_for_tensorflow(tmp_path, monkeypatch):
    """It cannot on Python 3.13, where TensorFlow is imported."""
    utils = pytest.importorskip("openvino.frontend.tensorflow.utils")

    def as_on_python_3_13(framework):
        raise NameError("name 'tensorflow' is not defined")

    monkeypatch.setattr(utils, "get_environment_setup", as_on_python_3_13)
    assert export(tiny(), tmp_path / "m.xml").difference <= 1e-5
    assert utils.get_environment_setup is as_on_python_3_13
