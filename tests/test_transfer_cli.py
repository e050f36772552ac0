"""`keras-vit finetune | evaluate | predict`, as a user would run them."""

import argparse
import csv
import dataclasses
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from inspect import signature
from pathlib import Path

import keras
import numpy as np
import pytest
from commands import end_twice, printed
from helpers import REFERENCE, array, tiny
from PIL import Image, ImageDraw

import keras_vit
from keras_vit.cli import finetune, main, predict
from keras_vit.cli.options import DEPRECATED
from keras_vit.data import Augmentation
from keras_vit.runs import (
    Checkpoints,
    RunFolder,
    choices,
    evaluate,
    find_run,
    fine_tune,
    given_images,
    load_classifier,
)
from keras_vit.runs import predict as predict_images
from keras_vit.runs.choices import choose_recipe
from keras_vit.runs.image_digests import image_digests
from keras_vit.runs.options import sort_options
from keras_vit.training import BiTHyperRule, SmallData, prepare_data
from keras_vit.zoo.constructors import CONSTRUCTORS

CHECKPOINT = str(REFERENCE / "vit_token" / "checkpoint.npz")
CLASSES = ("circle", "square", "triangle")
TRAINING = ("--image-size", 32, "--batch-size", 9, "--steps", 6, "--evaluations", 2)
TRAINING += ("--test-split", 0.25, "--label-smoothing", 0)


def shape(kind, rng):
    """A coloured shape on a coloured ground, 32 × 40 pixels."""
    image = Image.new("RGB", (40, 32), tuple(rng.integers(0, 120, 3).tolist()))
    draw, color = ImageDraw.Draw(image), tuple(rng.integers(130, 256, 3).tolist())
    x, y, r = rng.integers(12, 20), rng.integers(12, 20), rng.integers(6, 12)
    box = [int(v) for v in (x - r, y - r, x + r, y + r)]
    if kind == "circle":
        draw.ellipse(box, fill=color)
    elif kind == "square":
        draw.rectangle(box, fill=color)
    else:
        draw.polygon([(box[0], box[3]), (int(x), box[1]), (box[2], box[3])], fill=color)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of images: three classes of twelve."""
    root, rng = tmp_path_factory.mktemp("images") / "shapes", np.random.default_rng(0)
    for kind in CLASSES:
        (root / kind).mkdir(parents=True)
        for i in range(12):
            shape(kind, rng).save(root / kind / f"{i:02}.jpg")
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """The folder of a short training, and what it printed."""
    output = tmp_path_factory.mktemp("runs") / "shapes"
    weights = output.with_name("small.keras")
    tiny(num_layers=1, hidden_dim=16, num_heads=2, mlp_dim=16).save(weights)
    given = ("finetune", folder, "--output", output, "--weights", weights, *TRAINING)
    status, text = printed(*given)
    assert status == 0
    return output, text


def chosen_recipe(data, known_name, *options):
    """The recipe that `keras-vit finetune` chooses with these options."""
    parser = argparse.ArgumentParser()
    finetune.add_to(parser.add_subparsers())
    args = parser.parse_args(["finetune", "x", "--output", "y", *options])
    options = finetune._arguments(args)
    own = {n: options.pop(n) for n in signature(fine_tune).parameters if n in options}
    return choose_recipe(
        own["recipe"],
        data,
        sort_options(options),
        epochs=own.get("epochs"),
        known_name=known_name,
    )


# From a folder of images to predictions, on each backend.


def test_finetune_and_predict(trained, folder):
    output, text = trained
    assert "shapes: 3 classes (circle, square, triangle)" in text
    assert "21 train, 6 validation, 9 test" in text
    assert "SmallData: 6 steps of 9 images" in text
    assert "parameters, all trained" in text
    assert f"keras-vit predict {output}" in text
    written = {path.name for path in output.iterdir()}
    assert written == {
        *("config.json", "metrics.csv", "results.json", "best.keras", "last.keras"),
        *("examples.npz", "tensorboard", "report"),
    }

    results = json.loads((output / "results.json").read_text())
    assert (results.pop("split"), results["examples"]) == ("test", 9)
    status, text = printed("predict", output, folder / "circle", "--json", "--top", 2)
    lines = [json.loads(line) for line in text.splitlines()]
    assert (status, len(lines)) == (0, 12)
    model = keras_vit.from_pretrained(output / "best.keras")
    image = load_classifier(output).pipeline
    image = keras_vit.data.load_images([lines[3]["image"]], image)
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model(image)))[0]
    for row in lines[3]["predictions"]:
        assert row["class"] == CLASSES[row["index"]]
        assert row["probability"] == pytest.approx(expected[row["index"]], abs=1e-5)


def test_a_run_says_what_it_is(trained):
    output, _ = trained
    config = RunFolder(output).config()
    assert config["class_names"] == list(CLASSES)
    assert config["backend"] == keras.backend.backend()
    assert config["packages"]["keras"] == keras.__version__
    assert config["recipe"]["name"] == "SmallData"
    assert (config["recipe"]["steps"], config["seed"]) == (6, 0)
    assert config["data"]["examples"] == {"train": 21, "validation": 6, "test": 9}
    assert config["images"]["image_size"] == [32, 32]
    assert config["model"]["config"]["classes"] == 3
    with open(output / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6"]
    assert float(rows[1]["learning_rate"]) == pytest.approx(0, abs=1e-9)
    assert {"loss", "val_loss", "accuracy", "val_accuracy"} <= rows[0].keys()
    page = (output / "report" / "index.html").read_text()
    for text in (
        "shapes · ViT of depth 1 and width 16",
        "Learning curves",
        "circle",
        "small.keras",
    ):
        assert text in page
    best, last = (output / f"{name}.keras" for name in ("best", "last"))
    assert last.stat().st_size > 1.5 * best.stat().st_size  # it has the optimizer
    assert keras.saving.load_model(last).optimizer.iterations == 6


# The same from Python.


def same_training(folder, output, weights):
    """`TRAINING` from Python, in a folder of its own."""
    return fine_tune(
        folder,
        output,
        weights=weights,
        image_size=32,
        batch_size=9,
        steps=6,
        evaluations=2,
        test_split=0.25,
        label_smoothing=0.0,
        verbose=0,
    )


def test_fine_tune_writes_what_the_command_writes(trained, folder, tmp_path):
    by_command = trained[0]
    weights = by_command.with_name("small.keras")
    by_python = same_training(folder, tmp_path / "run", weights)
    assert {path.name for path in by_python.run.path.iterdir()} == {
        path.name for path in by_command.iterdir()
    }
    configs = [RunFolder(path).config() for path in (by_command, by_python.run.path)]
    for config in configs:
        del config["date"]
        config["model"]["config"].pop("name")  # numbered in the process
    assert configs[0] == configs[1]
    for name in ("metrics.csv", "results.json"):
        assert by_python.run.file(name).read_text() == (by_command / name).read_text()
    paths = (by_command / "best.keras", by_python.best_checkpoint)
    models = [keras_vit.from_pretrained(path) for path in paths]
    for expected, actual in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_array_equal(array(actual), array(expected))
    result = by_python.result
    assert result.summary() == json.loads((by_command / "results.json").read_text())
    assert by_python.report.read_text().count("<section") == 5
    with pytest.raises(ValueError, match=r"not empty.*`overwrite=True`"):
        same_training(folder, tmp_path / "run", weights)


def test_evaluate_and_predict_give_what_the_commands_print(trained, folder):
    output, _ = trained
    text = printed("evaluate", output, "--split", "validation", "--json")[1]
    result = evaluate(output, split="validation")
    assert result.summary() == json.loads(text)
    text = printed("predict", output, folder / "circle", "--json", "--top", 2)[1]
    lines = [json.loads(line) for line in text.splitlines()]
    found = list(predict_images(output, folder / "circle", top=2))
    assert [one.image for one in found] == [line["image"] for line in lines]
    for one, line in zip(found, lines, strict=True):
        classes = [(p["index"], p["class"], p["probability"]) for p in line["predictions"]]
        assert [(c.index, c.name, c.probability) for c in one.classes] == classes


def test_a_run_teaches_another(trained, folder, fails, tmp_path):
    output, size = tmp_path / "student", ("--image-size", 32, "--batch-size", 9)
    given = ["finetune", folder, "--output", output, "--model", "ViTTi16"]
    given += ["--weights", "none", "--set", "num_layers=1", "--set", "distilled=true"]
    given += ["--recipe", "deit", "--steps", 4, "--evaluations", 2, *size]
    given += ["--teacher", trained[0]]
    status, text = printed(*given, "--distillation", "soft")
    assert status == 0
    assert "DeiT: 4 steps of 9 images" in text
    config = RunFolder(output).config()
    assert config["arguments"]["teacher"] == str(trained[0])
    assert config["recipe"]["base_learning_rate"] == 5e-4 * 9 / 512
    with open(output / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert {"val_accuracy", "agreement", "val_agreement"} <= rows[0].keys()
    results = json.loads((output / "results.json").read_text())
    best = keras_vit.from_pretrained(output / "best.keras")
    assert best.get_config()["distilled"]
    assert best.get_config()["class_names"] == CLASSES
    assert 0 <= results["accuracy"] <= 1
    for name in ("best.keras", "last.keras"):
        assert isinstance(keras.saving.load_model(output / name), type(best))
    shutil.rmtree(output)
    others = tmp_path / "others" / "disc"
    shutil.copytree(folder, others.parent)
    shutil.move(others.with_name("circle"), others)
    message = fails(given[0], others.parent, *given[2:])
    assert "3 classes (circle, square, triangle, …)" in message
    assert not output.exists()
    message = fails(*given[:-2], "--distillation", "soft")
    assert "`--distillation` needs a teacher" in message


@pytest.mark.one_backend
def test_fine_tune_refuses_in_words_of_python(folder, tmp_path):
    given = {"data": folder, "output": tmp_path / "run", "weights": CHECKPOINT}
    for options, error, message in (
        ({"data": ([], [])}, ValueError, "Received: tuple. Train on data in memory"),
        ({"step": 3}, TypeError, "no argument 'step'. Near it: steps"),
        ({"model": "ViTB17"}, ValueError, "`model` must be one of 'ViTTi16'"),
        ({"freeze": "all"}, ValueError, "`freeze` must be one of linear, norms"),
        ({"recipe": "large"}, ValueError, "`recipe` must be one of 'auto'"),
        ({"steps": 3, "epochs": 2}, ValueError, "Give one of them"),
        ({"validation_split": 0.0}, ValueError, "Give splits={'validation': …}"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            fine_tune(**{**given, **options})
    assert not list(tmp_path.iterdir())


@pytest.mark.one_backend
def test_options_that_have_another_name_now(trained, folder, fails, tmp_path, capsys):
    """They work with a warning, and unfinished runs that were begun with them go on."""
    output, _ = trained
    weights = output.with_name("small.keras")
    given = ["finetune", folder, "--output", tmp_path / "run", "--weights", weights]
    given += ["--steps", 1]
    old = ["--resolution", 32, "--learning-rate=1e-4", "--ema", 0.9]
    capsys.readouterr()
    assert printed(*given, *old, "--precision", "float32")[0] == 0
    warnings = [
        line.split(". ")[0]
        for line in capsys.readouterr().err.splitlines()
        if "warning" in line
    ]
    assert warnings == [
        f"keras-vit: warning: {old} is now {new}"
        for old, new in DEPRECATED.items()
        if "_" not in old
    ]
    run = RunFolder(tmp_path / "run")
    run.file("results.json").unlink()
    config = run.config()
    assert (config["arguments"]["image_size"], config["recipe"]["image_size"]) == (32, 32)
    arguments = {"data": str(folder), "output": str(run.path), "weights": str(weights)}
    arguments |= {"resolution": [32], "learning_rate": 1e-4, "ema": 0.9, "steps": 1}
    arguments |= {"precision": "float32", "split": [], "set": [], "seed": 0}
    arguments |= {"recipe": "auto", "strategy": "auto"}
    run.file("config.json").write_text(json.dumps(config | {"arguments": arguments}))
    given += ["--image-size", 32, "--base-learning-rate", 1e-4, "--ema-momentum", 0.9]
    message = fails(*given, "--seed", 1)
    assert "with other arguments: --seed 0 before, --seed 1 now. Give" in message
    RunFolder.check(run.path, arguments=config["arguments"])


# What a training says when it cannot go on.


def cut_off(path):
    """Leaves the header of an image, and not all of its pixels."""
    path.write_bytes(path.read_bytes()[:-150])


def test_an_image_that_fails_in_the_training_is_named(folder, fails, tmp_path):
    images, output = shutil.copytree(folder, tmp_path / "shapes"), tmp_path / "run"
    weights = tmp_path / "small.keras"
    tiny(num_layers=1, hidden_dim=16, num_heads=2, mlp_dim=16).save(weights)
    broken = images / "square" / "03.jpg"
    cut_off(broken)
    command = ("finetune", images, "--output", output, "--weights", weights, *TRAINING)
    command += ("--save-freq", 1)  # so that there is a step to go on from
    error = fails(*command)
    assert str(broken) in error
    assert "--bad-images skip" in error
    assert "bad_images" not in error
    assert len(error) < 400

    broken.unlink()
    if keras.__version__.startswith("3.14.") and keras.backend.backend() == "jax":
        pytest.skip("Keras 3.14 fetches the next batch before the step is saved")
    error = fails(*command)
    assert "`--overwrite`" in error
    assert "21 train, 6 validation, 9 test before, 20 train, 6 validation, 9 test" in error
    assert "directory" not in error
    assert "`--bad-images` not given before, --bad-images skip now" in fails(
        *command, "--bad-images", "skip"
    )
    assert printed(*command, "--overwrite")[0] == 0


def test_an_image_that_fails_in_an_evaluation_is_named(folder, tmp_path, capsys):
    images = shutil.copytree(folder, tmp_path / "shapes")
    weights = tmp_path / "elsewhere.keras"
    tiny(num_layers=1, classes=3).save(weights)
    cut_off(images / "circle" / "07.jpg")
    capsys.readouterr()
    assert main(["evaluate", str(weights), str(images)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("keras-vit: error: ")
    assert str(images / "circle" / "07.jpg") in error
    assert "--bad-images skip" in error
    status, text = printed("evaluate", weights, images, "--bad-images", "skip")
    assert (status, "of 35)" in text) == (0, True)


@pytest.mark.one_backend
def test_no_letter_ends_a_command(trained, folder, tmp_path):
    """Commands work in the locale C, and on a pipe with the letters of another country."""
    images = shutil.copytree(folder, tmp_path / "снимки")
    output = tmp_path / "прогон"
    weights = trained[0] / "best.keras"
    options = ("--weights", weights, *TRAINING, "--overwrite")
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for command, environment in (
        (("evaluate", weights, folder, "--report", tmp_path / "page"), bare),
        (("finetune", images, "--output", output, *options), {"LC_ALL": "C"}),
        (("predict", output, images / "circle" / "00.jpg"), {"PYTHONIOENCODING": "cp437"}),
        (("describe", "ViTB16"), {"PYTHONIOENCODING": "ascii"}),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "keras_vit", *map(str, command)],
            env={**os.environ, **environment},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr.decode()
    page = (output / "report" / "index.html").read_text("utf-8")
    assert "снимки" in page


# Crops and mirroring.


@pytest.mark.one_backend
def test_mirroring_and_crops_are_options(folder):
    data = keras_vit.data.load(folder, image_size=32)
    model = tiny(classes=3, classifier_activation=None)

    def asked(*options):
        recipe = chosen_recipe(data, None, "--crop", "resize", *options)
        return prepare_data(data, model, recipe.replace(batch_size=21, image_size=32))

    def sums(images):
        """Sums of the upper left corner, by which the images are told apart."""
        return sorted(np.asarray(images)[:, :8, :16].sum((1, 2, 3)).round(2).tolist())

    # Whole and as they are, the images of an epoch are those of the evaluation.
    plain = asked("--no-flip", "--evaluation-crop", "resize")
    batch = next(iter(plain.train))[0]
    of_evaluation = np.concatenate([images for images, _ in plain.evaluation("train")])
    assert sums(batch)[:5] != sums(batch[:, :, ::-1])[:5]
    assert set(sums(batch)) <= set(sums(of_evaluation))
    assert not set(sums(next(iter(asked().train))[0])) <= set(sums(of_evaluation))
    assert plain.pipeline.augmentation == Augmentation(
        crop="resize", flip=False, evaluation_crop="resize", crop_area=(0.35, 1.0)
    )


@pytest.mark.one_backend
def test_a_run_records_how_images_are_cropped(folder, trained, tmp_path):
    output = tmp_path / "run"
    options = ("--no-flip", "--crop", "square", "--evaluation-crop", "resize")
    given = ("finetune", folder, "--output", output, "--weights", trained[0], *TRAINING)
    status, text = printed(*given, *options)
    assert status == 0
    assert "no mirroring" in text
    config = RunFolder(output).config()
    augmentation = config["recipe"]["augmentation"]
    assert (augmentation["flip"], augmentation["crop"]) == (False, "square")
    assert config["images"]["evaluation_crop"] == "resize"
    assert load_classifier(output).pipeline.augmentation.evaluation_crop == "resize"


# The run folder.


@pytest.mark.one_backend
def test_event_files_of_tensorboard(trained):
    import tensorflow as tf

    output, _ = trained
    tags = {}
    for run in ("train", "validation"):
        (path,) = (output / "tensorboard" / run).iterdir()
        assert path.name.startswith("events.out.tfevents.")
        events = [
            tf.compat.v1.Event.FromString(record.numpy())
            for record in tf.data.TFRecordDataset([str(path)])
        ]
        assert events[0].file_version == "brain.Event:2"
        points = [
            (e.step, v.tag, v.simple_value) for e in events[1:] for v in e.summary.value
        ]
        tags[run] = {tag for _, tag, _ in points}
        assert {step for step, _, _ in points} == {3, 6}
    assert {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"} <= tags["train"]
    assert tags["validation"] == {"epoch_loss", "epoch_accuracy"}


def test_the_same_command_goes_on(trained, folder, fails, tmp_path, monkeypatch):
    """Ended by SIGTERM before the first evaluation, and dead in the second."""
    output, _ = trained
    weights = output.with_name("small.keras")
    given = ("finetune", folder, "--output", tmp_path / "run", "--weights", weights)
    given += (*TRAINING, "--save-freq", 1)
    end_twice(monkeypatch, *given)
    assert "`--save-freq` must be" in fails(*given[:-2], "--save-freq", 0)
    message = fails(*given, "--seed", 3)
    assert "begun with other arguments: --seed 0 before, --seed 3 now" in message
    status, text = printed(*given)
    assert status == 0
    assert "resumes after step 6" in text
    assert not (tmp_path / "run" / "resume").exists()
    for name in ("metrics.csv", "results.json"):
        assert (tmp_path / "run" / name).read_text() == (output / name).read_text()
    for name in ("best.keras", "last.keras"):
        whole, torn = (
            keras_vit.from_pretrained(path / name) for path in (output, tmp_path / "run")
        )
        for expected, actual in zip(whole.weights, torn.weights, strict=True):
            np.testing.assert_array_equal(array(actual), array(expected))
    assert "is not empty" in fails(*given)


@pytest.mark.one_backend
def test_a_folder_without_a_step_is_nobodys(tmp_path):
    def begun(**arguments):
        run = RunFolder.check(tmp_path, arguments=arguments)
        goes_on = run.is_unfinished()
        run.create({"arguments": arguments})
        return run, goes_on

    run, _ = begun(seed=0)  # by a command that is refused after this
    run.file("resume").mkdir()
    run.file("resume/step-00000000.safetensors").touch()
    run, goes_on = begun(seed=1)
    assert not goes_on
    assert run.config()["arguments"] == {"seed": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    for name in ("best.keras", "resume/step-00000002.orbax"):
        run, _ = begun(seed=2)
        run.file(name).parent.mkdir(exist_ok=True)
        run.file(name).touch()
        with pytest.raises(ValueError, match="other arguments: seed=2 before, seed=3 now"):
            begun(seed=3)
        run.file(name).unlink()


@pytest.mark.one_backend
def test_a_folder_in_which_another_process_begins_is_not_taken(tmp_path):
    run = RunFolder.check(tmp_path, arguments={"seed": 0})
    run.create({"arguments": {"seed": 0}})
    program = (
        "import sys; from pathlib import Path; from keras_vit.runs import RunFolder\n"
        "RunFolder(Path(sys.argv[1])).lock(); print('taken', flush=True); input()"
    )
    command = [sys.executable, "-c", program, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline().strip() == b"taken"
        with pytest.raises(ValueError, match="Another process begins a training"):
            RunFolder.check(tmp_path, arguments={"seed": 1})
        process.communicate(b"\n")
    RunFolder.check(tmp_path, arguments={"seed": 1})


def test_a_refused_command_can_be_given_again(trained, folder, fails, tmp_path):
    """The recipe refuses it when the configuration has been written."""
    given = ("finetune", folder, "--output", tmp_path / "run", *TRAINING)
    given += ("--weights", trained[0].with_name("small.keras"))
    assert "block" in fails(*given, "--freeze", 99)
    assert "begun" not in fails(*given, "--freeze", 98)


@pytest.mark.one_backend
def test_a_run_folder_is_not_overwritten_unasked(tmp_path):
    run = RunFolder.check(tmp_path / "a" / "b")
    run.create({"class_names": ["x"]})
    assert find_run(tmp_path) is None
    with pytest.raises(ValueError, match="is not empty"):
        RunFolder.check(run.path)
    with pytest.raises(FileNotFoundError, match="before its first evaluation"):
        find_run(run.path)
    run.file("best.keras").touch()
    run.file("mine.txt").touch()
    assert find_run(run.path) == (run, str(run.file("best.keras")))
    RunFolder.check(run.path, overwrite=True).create({})
    assert {path.name for path in run.path.iterdir()} == {"config.json", "mine.txt"}
    run.file("config.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        run.config()
    with pytest.raises(ValueError, match="which is a file"):
        RunFolder.check(run.file("mine.txt"), overwrite=True)


@pytest.mark.one_backend
def test_checkpoints_keep_the_best(tmp_path, monkeypatch):
    model = tiny(classes=2)
    model.compile("sgd", "mse")
    callback = Checkpoints(tmp_path)
    callback.set_model(model)
    bias = model.get_layer("head").bias

    def best_after(accuracy, mark):
        bias.assign([mark, 0.0])
        callback.on_epoch_end(0, {"val_accuracy": accuracy})
        return [
            array(keras_vit.from_pretrained(tmp_path / name).get_layer("head").bias)[0]
            for name in ("best.keras", "last.keras")
        ]

    assert best_after(float("nan"), 1.0) == [1.0, 1.0]
    assert best_after(0.5, 2.0) == [2.0, 2.0]
    assert best_after(0.5, 3.0) == [2.0, 3.0]
    assert best_after(float("nan"), 4.0) == [2.0, 4.0]

    def full(self, path, *args, **kwargs):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OSError, match="No space left"):
        callback.on_epoch_end(0, {"val_accuracy": 1.0})
    assert model.optimizer is not None
    assert keras_vit.from_pretrained(tmp_path / "last.keras")


# What goes wrong before anything is built or written.


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Nothing says which model to train"),
        (["--weights", "none"], "Nothing says which model to train"),
        (["--model", "ViTB17"], "`--model` must be one of 'ViTTi16'"),
        (["--model", "VisionTransformer"], "`--model` must be one of"),
        (["--model", "ViTB16", "--weights", "imagnet21k"], "Expected one of the tags"),
        (
            ["--model", "ViTB16", "--weights", "ViTL16.imagenet21k"],
            "is a checkpoint of ViTL16",
        ),
        (["--weights", "ViTB16.imagnet21k"], "Near it: ViTB16.imagenet21k"),
        (["--weights", "nowhere/model.npz"], "There is no checkpoint at"),
        (["--model", "ViTB16", "--image-size", "230"], "divisible"),
        (["--model", "ViTB16", "--steps", "0"], "`--steps` must be a positive integer"),
        (["--model", "ViTB16", "--epochs", "-1"], "`--epochs` must be positive"),
        (
            ["--model", "ViTB16", "--micro-batch-size", "5"],
            "divisible by `--micro-batch-size`",
        ),
        (
            ["--model", "ViTB16", "--freeze", "all"],
            "`--freeze` must be one of linear, norms",
        ),
        (["--model", "ViTB16", "--dtype", "half"], "half"),
        (["--model", "ViTB16", "--set", "num_head=3"], "Near it: num_heads"),
        (["--model", "ViTB16", "--split", "training=a"], "`--split` takes NAME=PART"),
        (["--model", "ViTB16", "--validation-split", "0"], "Give --split validation"),
    ],
)
def test_finetune_refuses(arguments, message, folder, fails, tmp_path, monkeypatch):
    def build(*args, **kwargs):
        raise AssertionError("a model is built")

    monkeypatch.setitem(CONSTRUCTORS, "ViTB16", build)
    monkeypatch.setattr(choices, "from_pretrained", build)
    assert message in fails("finetune", folder, "--output", tmp_path / "run", *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.one_backend
def test_finetune_refuses_a_folder_in_use_and_data_that_is_none(folder, fails, tmp_path):
    given = ("--weights", CHECKPOINT, *TRAINING)
    assert "is not empty" in fails("finetune", folder, "--output", folder, *given)
    missing = tmp_path / "none"
    assert "none" in fails("finetune", missing, "--output", tmp_path / "run", *given)


# evaluate


@pytest.mark.one_backend
def test_evaluate_a_training(trained):
    output, _ = trained
    results = json.loads((output / "results.json").read_text())
    status, text = printed("evaluate", output, "--json")
    assert status == 0
    assert json.loads(text).pop("split") == results.pop("split") == "test"
    again = json.loads(text)
    assert {key: again[key] for key in results} == pytest.approx(results)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, ""),
        ({"label_smoothing": 0.1}, "includes a label smoothing of 0.1"),
        ({"loss": "sigmoid"}, "is the binary cross-entropy summed over the classes"),
    ],
)
def test_the_loss_says_how_it_differs_from_that_of_training(
    changes, note, trained, tmp_path
):
    run = shutil.copytree(trained[0], tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["recipe"] |= changes
    (run / "config.json").write_text(json.dumps(config))
    text = printed("evaluate", run)[1]
    result = json.loads(printed("evaluate", run, "--json")[1])
    assert f"loss {result['loss']:.4f}" in text
    assert "balanced accuracy" in text
    assert result.get("loss_note", "") == (
        f"cross-entropy; val_loss {note}" if note else ""
    )
    assert ("val_loss" in text, note in text) == (bool(note), True)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "options",
    [
        ("--ema-momentum", 0.5, "--base-learning-rate", 0.01),
        ("--lora-rank", 2, "--micro-batch-size", 3, "--base-learning-rate", 0.01),
        ("--freeze", "linear", "--set", "drop_path_rate=0.1", "--layerwise-decay", 1),
    ],
)
def test_the_best_checkpoint_is_what_was_validated(options, folder, tmp_path):
    run = tmp_path / "run"
    given = ("finetune", folder, "--output", run, "--weights", CHECKPOINT, *TRAINING)
    assert printed(*given, *options)[0] == 0
    history = RunFolder(run).history()
    assert history["step"] == [3, 6]
    best = int(np.argmax(history["val_accuracy"]))
    _, text = printed("evaluate", run, "--split", "validation", "--json")
    result = json.loads(text)
    assert result["accuracy"] == pytest.approx(history["val_accuracy"][best])
    assert result["loss"] == pytest.approx(history["val_loss"][best], rel=1e-4)


@pytest.mark.one_backend
def test_the_head_of_other_classes_goes(trained, folder, tmp_path):
    weights = trained[0].parent / "other.keras"  # three other classes
    tiny(classes=3, num_layers=1, representation_size=8).save(weights)
    given = ("--image-size", 32, "--steps", 1, "--freeze", 1, "--base-learning-rate", 1e-9)

    def first_model(weights):
        run = tmp_path / weights.stem
        assert (
            printed("finetune", folder, "--output", run, "--weights", weights, *given)[0]
            == 0
        )
        return keras_vit.from_pretrained(run / "best.keras")

    model = first_model(weights)
    assert model.get_config()["representation_size"] is None
    assert np.abs(array(model.get_layer("head").kernel)).max() < 1e-6
    source = keras_vit.from_pretrained(weights)
    name = "patch_embedding"
    np.testing.assert_array_equal(
        *(array(m.get_layer(name).kernel) for m in (model, source))
    )
    # One of the same classes is trained on.
    model = first_model(trained[0])
    assert np.abs(array(model.get_layer("head").kernel)).max() > 1e-6


@pytest.mark.one_backend
def test_interrupted(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "_predict", interrupted)
    assert main(["predict", "run", "image.jpg"]) == 130
    assert capsys.readouterr().err == "keras-vit: interrupted\n"


@pytest.mark.one_backend
def test_recipes_by_name_and_data(folder):
    data = keras_vit.data.load(folder)
    flowers = dataclasses.replace(data, name="oxford_flowers102/2.1.1")

    assert type(chosen_recipe(data, "BiTR50x1")) is BiTHyperRule
    assert chosen_recipe(data, "BiTR50x1").image_size == 128  # as the images are small
    assert type(chosen_recipe(data, "ViTB16.imagenet21k")) is SmallData
    assert type(chosen_recipe(data, None)) is SmallData
    assert chosen_recipe(flowers, "ViTB16", "--recipe", "vit").steps == 500
    assert chosen_recipe(data, "ViTB16", "--recipe", "vit").steps == 10_000
    small = chosen_recipe(data, "ViTB16", "--epochs", "10", "--batch-size", "4")
    assert (small.steps, small.warmup_steps) == (75, 7)
    changed = chosen_recipe(
        data, "ViTB16", "--freeze", "2", "--ema-momentum", "0.9", "--weight-decay", "0"
    )
    assert (changed.freeze, changed.ema_momentum, changed.weight_decay) == (2, 0.9, 0)


# Data that says more than it seems to


@pytest.mark.one_backend
def test_finetune_speaks_of_options(folder, fails, tmp_path):
    """Refused data, and the options by which the command line decides otherwise."""
    output = ("--output", tmp_path / "run", "--weights", CHECKPOINT)
    folds = tmp_path / "folds"
    shutil.copytree(folder, folds / "fold_1")
    shutil.copytree(folder, folds / "fold_2")
    assert "--split train=… --split validation=…" in fails("finetune", folds, *output)
    parts = ("--split", "train=fold_1", "--split", "validation=fold_2")
    error = fails("finetune", folds, *output, *parts)
    assert "36 of 36 images of 'train' are also in 'validation'" in error
    assert "--duplicates drop" in error
    assert "duplicates=" not in error
    masks = tmp_path / "masks"
    for i in range(4):
        path = masks / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(8, k=i, dtype=np.uint8)).save(path)
    assert "--value-range 0 1," in fails("finetune", masks, *output)
    rows = [("path", "label", "fold")]
    rows += [(folder / "circle" / "00.jpg", "a", 1), (folder / "square" / "00.jpg", "b", 2)]
    with open(tmp_path / "a.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    error = fails("finetune", tmp_path / "a.csv", *output)
    assert "the column 'fold'" in error
    assert "--split-column none" in error
    parts = ("--split", "train=1", "--split", "train=3")
    error = fails("finetune", tmp_path / "a.csv", *output, *parts)
    assert "`--split` must name values in the column 'fold'. Received: '3'" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.one_backend
def test_a_run_reads_images_as_its_training_did(fails, tmp_path, capsys):
    """Images of 12 bits in files of 16; `evaluate` and `predict` need not be told again."""
    rng, root = np.random.default_rng(0), tmp_path / "deep"
    for split, count in (("Training", 6), ("Testing", 2)):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                grey = rng.integers(0, 4096, (32, 32)).astype("uint16")
                Image.fromarray(grey).save(root / split / label / f"{i}.png")
    run = tmp_path / "run"
    given = ("finetune", root, "--output", run, "--weights", CHECKPOINT, "--image-size", 32)
    given += ("--batch-size", 5, "--steps", 1, "--evaluations", 1)
    assert "--value-range 0 4095" in fails(*given)
    assert printed(*given, "--value-range", 0, 4095)[0] == 0
    assert load_classifier(run).pipeline.value_range == (0, 4095)
    scored = json.loads(printed("evaluate", run, "--json")[1])
    assert (scored["split"], scored["examples"]) == ("test", 4)
    other = root.rename(tmp_path / "moved")
    other_scored = json.loads(printed("evaluate", run, other, "--json")[1])
    assert other_scored["loss"] == pytest.approx(scored["loss"], rel=1e-6)
    paths = sorted((other / "Testing").rglob("*.png"))
    lines = printed("predict", run, *paths, "--json", "--top", 2)[1].splitlines()
    right = [
        {row["class"]: row["probability"] for row in json.loads(line)["predictions"]}[label]
        for line, label in zip(lines, "aabb", strict=True)
    ]
    assert -np.log(right).mean() == pytest.approx(scored["loss"], rel=1e-4)


@pytest.mark.one_backend
def test_the_best_file_alone_is_the_run(trained, folder, tmp_path):
    """Copied out of its folder, or in one whose files are an earlier version's."""
    output, _ = trained
    run = shutil.copytree(output, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["images"] |= {"evaluation_crop": "resize"}
    (run / "config.json").write_text(json.dumps(config))
    model = keras_vit.from_pretrained(run / "best.keras")
    noted = model.get_config()["preprocessing"]
    assert noted["evaluation_crop"] == "center"
    model.note(preprocessing=None, class_names=None, probabilities=None)
    model.save(run / "best.keras")  # as earlier versions wrote it
    earlier = load_classifier(run)
    assert earlier.class_names == CLASSES
    assert earlier.pipeline.augmentation.evaluation_crop == "resize"
    earlier.model.save(tmp_path / "alone.keras")
    image = next((folder / "square").iterdir())
    expected = printed("predict", run, image, "--json")[1]
    assert printed("predict", tmp_path / "alone.keras", image, "--json")[1] == expected
    assert printed("predict", output, image, "--json")[1] != expected  # another crop
    alone = shutil.copy(output / "best.keras", tmp_path / "copy.keras")
    assert printed("predict", alone, folder) == printed("predict", output, folder)
    other = tmp_path / "one"
    shutil.copytree(folder / "triangle", other / "triangle")
    found = json.loads(printed("evaluate", alone, other, "--json")[1])
    paths = sorted(other.glob("*/*"))
    assert (found["correct"], found["examples"]) == scored(output, paths)


# evaluate --protocol: the features of a run


def test_protocols_use_the_splits_of_a_run(trained, folder, tmp_path, capsys, fails):
    output, _ = trained
    given = ("--protocol", "knn", "--k", 1, "--json")
    found = json.loads(printed("evaluate", output, *given)[1])
    splits = json.loads((output / "config.json").read_text("utf-8"))["data"]["examples"]
    assert found["images"] == {name: splits[name] for name in ("train", "test")}
    capsys.readouterr()
    other = shutil.copytree(folder, tmp_path / "shapes")
    drawn = (*given, "--test-split", 0.5)
    again = json.loads(printed("evaluate", output, other, *drawn)[1])
    assert again["images"] == {"train": 18, "test": 18}  # drawn, as from any folder
    tested = {line.strip() for line in capsys.readouterr().err.splitlines()}
    assert any(re.search(r"was trained on \d of the 18 images", line) for line in tested)
    error = fails("evaluate", output, *given, "--test-split", 0.5)
    assert "in its own splits. Received: --test-split 0.5" in error
    moved = shutil.copytree(output, tmp_path / "run")
    config = json.loads((moved / "config.json").read_text("utf-8"))
    config["data"]["arguments"]["source"] = str(other)
    (moved / "config.json").write_text(json.dumps(config), "utf-8")
    (other / "circle" / "00.jpg").unlink()
    assert "images have changed since the training" in fails("evaluate", moved, *given)


# evaluate: images that have moved, changed, or are others


def scored(output, paths):
    """(right, all) of the images at some paths, by their folders' names."""
    classifier = load_classifier(output)
    images = keras_vit.data.load_images(paths, classifier.pipeline)
    predictions = classifier.probabilities(images, verbose=0).argmax(axis=1)
    named = [classifier.class_names[i] for i in predictions]
    return sum(n == p.parent.name for n, p in zip(named, paths, strict=True)), len(paths)


def result(*arguments):
    """(split, right, all) as `evaluate` tells."""
    status, text = printed("evaluate", *arguments, "--json")
    assert status == 0
    found = json.loads(text)
    return found["split"], found["correct"], found["examples"]


@pytest.fixture(scope="module")
def splits(folder):
    """Paths below the folder of each split of the training, as `data.load` divides it."""
    data = keras_vit.data.load(folder, test_split=0.25)
    return {
        split: [str(Path(name).relative_to(folder)) for name in data.names(split)]
        for split in data.splits
    }


@pytest.mark.one_backend
@pytest.mark.parametrize("split", [None, "train", "validation", "test"])
def test_evaluate_images_that_have_moved(split, trained, folder, splits, tmp_path, capsys):
    """Under another name: the split is the training's, none is drawn anew."""
    output, _ = trained
    moved = shutil.copytree(folder, tmp_path / "other")
    given = () if split is None else ("--split", split)
    expected = [moved / name for name in splits[split or "test"]]
    right = scored(output, expected)
    assert result(output, moved, *given) == (split or "test", *right)
    assert "its splits are used" in capsys.readouterr().err
    assert result(output, folder, *given) == (split or "test", *right)
    assert capsys.readouterr().err == ""


@pytest.mark.one_backend
@pytest.mark.parametrize("is_own", [True, False])
def test_evaluate_images_that_have_changed(
    is_own, trained, folder, splits, tmp_path, capsys
):
    """Some are new, some gone, one is of another class: each is in its own split still."""
    output = shutil.copytree(trained[0], tmp_path / "run")
    moved = shutil.copytree(folder, tmp_path / "moved")
    if is_own:
        config = json.loads((output / "config.json").read_text())
        config["data"]["arguments"]["source"] = str(moved)
        (output / "config.json").write_text(json.dumps(config))
    given = () if is_own else (moved,)
    rng = np.random.default_rng(7)
    for name in ("000", "03a"):  # sorted among the others, whose places are others then
        shape("circle", rng).save(moved / "circle" / f"{name}.jpg")
    gone, relabelled = splits["validation"][0], splits["validation"][-1]
    (moved / gone).unlink()
    (moved / relabelled).rename(moved / "circle" / "moved.jpg")
    left = [moved / name for name in splits["validation"][1:-1]]
    left.append(moved / "circle" / "moved.jpg")
    split = ("--split", "validation")
    assert result(output, *given, *split) == ("validation", *scored(output, left))
    error = capsys.readouterr().err
    assert "1 of its 6 are not there, and 2 that it did not know are left out" in error

    if is_own:
        tested = [moved / name for name in splits["test"]]
        assert result(output) == ("test", *scored(output, tested))
    else:  # all but those that it was trained on
        new = [moved / "circle" / f"{name}.jpg" for name in ("000", "03a")]
        unseen = [moved / name for name in splits["test"]] + left + new
        assert result(output, moved) == ("unseen", *scored(output, unseen))
        assert "21 of the 37 images are left out" in capsys.readouterr().err
        text = printed("evaluate", output, moved, "--report", tmp_path / "page")[1]
        assert text.startswith("accuracy on images not trained on")
        assert "images not trained on" in (tmp_path / "page/index.html").read_text()


@pytest.mark.one_backend
def test_evaluate_a_table_of_the_images(trained, folder, splits, tmp_path, fails):
    """A CSV file elsewhere, of absolute paths, in another order."""
    output, _ = trained
    names = [name for split in ("test", "validation", "train") for name in splits[split]]
    rows = [f"{folder / name},{Path(name).parent}" for name in names]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label", *rows]))
    expected = [folder / name for name in splits["validation"]]
    given = (output, table, "--split", "validation")
    assert result(*given) == ("validation", *scored(output, expected))
    # A split of its own counts, but for images that were trained on.
    marks = ["train"] * 9 + ["test"] * 27
    rows = [f"{row},{mark}" for row, mark in zip(rows, marks, strict=True)]
    table.write_text("\n".join(["path,label,split", *rows]))
    assert result(output, table) == ("test", *scored(output, expected))
    rows = [row for row in rows if row.split(",")[0] not in map(str, expected)]
    table.write_text("\n".join(["path,label,split", *rows]))
    assert "trained on all 21 images" in fails("evaluate", output, table)
    assert "No image of the training's validation split" in fails("evaluate", *given)


@pytest.mark.one_backend
def test_evaluate_others_draws_no_split(trained, fails, tmp_path, capsys):
    output, _ = trained
    other, rng = tmp_path / "other", np.random.default_rng(3)
    for kind in CLASSES:
        (other / kind).mkdir(parents=True)
        for i in range(3):
            shape(kind, rng).save(other / kind / f"{i:02}.jpg")
    paths = sorted(other.glob("*/*"))
    assert result(output, other) == ("train", *scored(output, paths))
    assert "accuracy on all images" in printed("evaluate", output, other)[1]
    error = fails("evaluate", output, other, "--split", "validation")
    assert "has no split 'validation' of its own" in error
    alone = shutil.copy(output / "best.keras", tmp_path / "alone.keras")
    assert "no split 'test'" in fails("evaluate", alone, other, "--split", "test")


@pytest.mark.one_backend
def test_evaluate_a_run_that_kept_no_list(trained, folder, fails, tmp_path, capsys):
    """Runs of earlier versions have none."""
    output = shutil.copytree(trained[0], tmp_path / "run")
    (output / "examples.npz").unlink()
    moved = shutil.copytree(folder, tmp_path / "shapes")
    config = json.loads((output / "config.json").read_text())
    config["data"]["arguments"]["source"] = str(moved)
    (output / "config.json").write_text(json.dumps(config))
    assert result(output)[::2] == ("test", 9)
    assert capsys.readouterr().err == ""
    next((moved / "square").iterdir()).unlink()
    assert "nothing tells which of them it was trained on" in fails("evaluate", output)
    assert result(output, shutil.copytree(moved, tmp_path / "again"))[2] == 35
    assert "there may be some of them among these" in capsys.readouterr().err
    (output / "examples.npz").write_bytes(b"half")
    assert "examples.npz' is damaged" in fails("evaluate", output)


# evaluate: classes by name


@pytest.mark.one_backend
def test_evaluate_images_of_some_classes(trained, folder, fails, tmp_path, capsys):
    output, _ = trained
    some, rng = tmp_path / "some", np.random.default_rng(5)
    (some / "triangle").mkdir(parents=True)
    (some / "circle").mkdir()  # empty
    for i in range(4):
        shape("triangle", rng).save(some / "triangle" / f"{i}.jpg")
    right, _ = scored(output, sorted(some.glob("*/*")))
    assert result(output, some) == ("train", right, 4)
    found = json.loads(printed("evaluate", output, some, "--json")[1])
    assert found["classes_without_examples"] == ["circle", "square"]
    assert found["balanced_accuracy"] == found["accuracy"]
    text = printed("evaluate", output, some)[1]
    assert "left out of balanced accuracy and macro F1: circle, square" in text

    rows = [f"{p},{p.parent.name}" for p in sorted(some.glob("*/*"), reverse=True)]
    (some / "table.csv").write_text("\n".join(["path,label", *rows]))
    assert result(output, some / "table.csv") == ("train", right, 4)
    (some / "triangle").rename(some / "round")
    error = fails("evaluate", output, some)
    assert "Unknown: 'round', in 'some'. Known: 'circle', 'square', 'triangle'" in error
    assert "pass `--by-order`" in error
    (some / "circle").rmdir()
    for name in ("1", "2"):  # as many classes as the model has, of other names
        (some / name).mkdir()
        shape({"1": "circle", "2": "square"}[name], rng).save(some / name / "0.jpg")
    named = [some / "1/0.jpg", some / "2/0.jpg", *sorted((some / "round").glob("*"))]
    names = ["circle", "square", *["triangle"] * 4]
    predicted = load_classifier(output)
    images = keras_vit.data.load_images(named, predicted.pipeline)
    best = predicted.probabilities(images, verbose=0).argmax(axis=1)
    right = sum(
        predicted.class_names[i] == name for i, name in zip(best, names, strict=True)
    )
    assert result(output, some, "--by-order") == ("train", right, 6)


@pytest.mark.one_backend
def test_images_that_differ_in_the_middle_alone_are_others(tmp_path):
    """As uncompressed pictures of one size with plain borders are."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = np.full((100, 100, 3), 255, "uint8")
            pixels[40:60, 40:60] = rng.integers(0, 255, (20, 20, 3))
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.bmp")
    data = keras_vit.data.load(tmp_path, validation_split=0.34)
    found = image_digests(data)
    assert len(np.unique(np.concatenate([*found.values()]))) == 6


@pytest.mark.one_backend
def test_a_classifier_finds_classes_by_name(trained):
    """Data in another order, of some classes, and with an empty class of its own."""
    classifier = load_classifier(trained[0])
    rng = np.random.default_rng(0)
    pictures = [
        np.asarray(shape(kind, rng)) for kind in ("square", "triangle", "circle") * 3
    ]
    data = keras_vit.data.load(
        (np.stack(pictures), np.tile([1, 0, 3], 3)),
        class_names=("triangle", "square", "star", "circle"),
        validation_split=0.0,
    )
    evaluation = classifier.evaluate(data, "train")
    assert evaluation.class_names == CLASSES
    np.testing.assert_array_equal(evaluation.labels, np.tile([1, 2, 0], 3))
    prepared = keras_vit.data.load_images(pictures, classifier.pipeline)
    np.testing.assert_allclose(
        evaluation.probabilities, classifier.probabilities(prepared, verbose=0), atol=1e-5
    )
    names = ("triangle", "square", "circle", "star")
    other = dataclasses.replace(data, class_names=names)
    with pytest.raises(ValueError, match="Unknown: 'star'"):
        classifier.evaluate(other, "train")


@pytest.mark.one_backend
def test_evaluate_a_checkpoint(folder, fails, tmp_path):
    assert "Give DATA" in fails("evaluate", CHECKPOINT)
    assert "a model with 10 outputs" in fails("evaluate", CHECKPOINT, folder)
    path = tmp_path / "m.keras"
    tiny(classes=3).save(path)
    status, text = printed("evaluate", path, folder, "--json")
    assert (status, json.loads(text)["examples"]) == (0, 36)
    tiny(classes=0).save(path)
    assert "needs a model with a head" in fails("evaluate", path, folder)


# predict


@pytest.mark.one_backend
def test_predict_tells_of_each_image_that_fails(trained, folder, tmp_path, capsys):
    output, _ = trained
    good = folder / "square" / "03.jpg"
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(good.read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    given = [good, broken, tmp_path / "no.jpg", tmp_path / "empty", good]
    assert main(["predict", str(output), *map(str, given), "--batch-size", "2"]) == 2
    text, errors = capsys.readouterr()
    first, second = text.splitlines()
    assert first == second
    assert first.startswith(f"{good}  ")
    assert first.count(" %") == 3
    errors = [line for line in errors.splitlines() if line.startswith("keras-vit")]
    assert [line.split(": ")[2] for line in errors] == [str(p) for p in given[1:4]]
    assert "there is no such file" in errors[1]

    assert main(["predict", str(output), str(good), str(broken), "--json"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [sorted(line) for line in lines] == [
        ["image", "predictions"],
        ["error", "image"],
    ]
    assert sum(row["probability"] for row in lines[0]["predictions"]) == pytest.approx(1)


@pytest.mark.one_backend
def test_predict_takes_a_folder_with_all_in_it(trained, folder):
    status, text = printed("predict", trained[0], folder, "--top", 1)
    assert (status, len(text.splitlines())) == (0, 36)
    names = [line.split()[0] for line in text.splitlines()]
    assert names == sorted(names)


@pytest.mark.one_backend
def test_predict_a_folder_of_all_sorts(trained, folder, tmp_path, capsys):
    """System's files are passed over, other suffixes are read, and the rest is counted."""
    picture = folder / "circle" / "00.jpg"
    for name in ("a.jfif", "b.JPE", "c", "@eaDir/d.jpg", "._e.jpg", "__MACOSX/f.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(picture, tmp_path / name)
    for name in ("g.heic", "h.HEIC", "README", "labels.csv"):
        (tmp_path / name).write_text("no image")
    assert main(["predict", str(trained[0]), str(tmp_path), "--json"]) == 0
    output, error = capsys.readouterr()
    lines = [json.loads(line) for line in output.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["a.jfif", "b.JPE", "c"]
    assert lines[0]["predictions"] == lines[2]["predictions"]
    assert "2 .heic (pip install pillow-heif reads them)" in error
    assert "1 .csv" in error
    for name in ("a.jfif", "b.JPE", "c"):
        (tmp_path / name).unlink()
    assert main(["predict", str(trained[0]), str(tmp_path)]) == 2
    assert "no image that can be read in this folder; left out: 2 .heic" in (
        capsys.readouterr().err
    )
    deep = np.random.default_rng(0).integers(0, 4096, (32, 32)).astype("uint16")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    for given, is_said in (((), True), (("--value-range", "0", "4095"), False)):
        assert main(["predict", str(trained[0]), str(tmp_path / "deep.png"), *given]) == 0
        assert ("--value-range 0 4095" in capsys.readouterr().err) == is_said


@pytest.fixture
def server(folder):
    """An address of this machine; what it answers depends on the path."""
    image = (folder / "circle" / "00.jpg").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path != "/missing.jpg"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(image)))
            self.end_headers()
            self.wfile.write(image[: len(image) // 2] if "cut" in self.path else image)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


@pytest.mark.one_backend
def test_predict_takes_addresses(trained, folder, server, monkeypatch, capsys):
    run, local = str(trained[0]), str(folder / "circle" / "00.jpg")
    addresses = [f"{server}/{name}.jpg" for name in ("image", "missing", "cut")]
    assert main(["predict", run, local, *addresses, "--json"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["predictions"] == lines[1]["predictions"]
    assert "404" in lines[2]["error"]
    assert "it cannot be downloaded" in lines[3]["error"]  # cut in the middle

    monkeypatch.setattr(given_images, "MOST_BYTES", 100)
    assert main(["predict", run, addresses[0]]) == 2
    assert "it has more than" in capsys.readouterr().err
    monkeypatch.setenv("KERAS_VIT_OFFLINE", "1")
    assert main(["predict", run, addresses[0]]) == 2
    assert "KERAS_VIT_OFFLINE" in capsys.readouterr().err


@pytest.mark.one_backend
def test_predict_names_the_classes_of_imagenet(folder, fails, tmp_path):
    path, image = tmp_path / "m.keras", folder / "circle" / "00.jpg"
    model = tiny(classes=1000, hidden_dim=8, num_heads=2)
    model.save(path)
    names = {str(i): [f"n{i:08}", f"name {i}"] for i in range(1000)}
    index = tmp_path / "index.json"
    index.write_text(json.dumps(names))
    options = ("predict", path, image, "--json", "--class-index")
    rows = [json.loads(printed(*options, by)[1])["predictions"] for by in (index, "none")]
    for named, numbered in zip(*rows, strict=True):
        assert named["class"] == f"name {named['index']}"
        assert numbered["class"] == str(named["index"])
    images = keras_vit.data.load_images([image], load_classifier(path).pipeline)
    assert rows[0][0]["probability"] == pytest.approx(model.predict(images).max(), rel=1e-4)
    assert "`--top` must be positive" in fails("predict", path, image, "--top", 0)
