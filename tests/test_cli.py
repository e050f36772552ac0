"""The command line: each sub-command, its exit status and what it prints."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import (
    REFERENCE,
    assert_same_weights,
    images,
    reference,
    tiny,
    weights,
)

import keras_vit
from keras_vit.cli import main
from keras_vit.conversion.convert import convert
from keras_vit.conversion.inspect import inspect, size_name
from keras_vit.conversion.verify import COMPARABLE, compare_stages, compare_weights, stages

ROOT = Path(__file__).parent.parent
TOKEN = str(REFERENCE / "vit_token" / "checkpoint.npz")
TIMM = str(REFERENCE / "timm_token" / "model.safetensors")
NONSQUARE = str(REFERENCE / "timm_nonsquare" / "model.safetensors")


@pytest.fixture
def run(capsys):
    """Runs the command line; gives its status, output and errors."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


def change(source, target, **arrays):
    """Copies a file of arrays, with some replaced."""
    with np.load(source) as file:
        np.savez(target, **{**file, **arrays})
    return target


# convert


def test_convert_through_every_layout(run, tmp_path):
    expected = weights(keras_vit.from_pretrained(TOKEN))
    source = TOKEN
    for name in ("a.safetensors", "folder", "b.keras", "c.npz"):
        status, output, _ = run("convert", source, tmp_path / name)
        assert status == 0
        assert "67,594 parameters" in output
        assert "checked  read again, it holds the same 45 weights" in output
        assert "not stored" not in output
        source = tmp_path / name
        assert_same_weights(weights(keras_vit.from_pretrained(source)), expected)
    with np.load(source) as file:
        assert set(file) == set(reference("vit_token", "checkpoint"))
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.safetensors", "folder", "b.keras", "c.npz")
    }


def test_convert_to_weights_h5(run, tmp_path):
    path = tmp_path / "m.weights.h5"
    status, output, _ = run("convert", TOKEN, path)
    assert status == 0
    assert (
        "not stored  in the file: to read it, give a model of the same architecture"
        in output
    )
    model = tiny(num_layers=3)
    keras_vit.load_weights(model, path)
    assert_same_weights(weights(model), weights(keras_vit.from_pretrained(TOKEN)))


def test_convert_with_overrides(run, tmp_path):
    path = tmp_path / "m.keras"
    options = ["--image-size", 48, "--classes", 3, "--set", "dropout_rate=0.1"]
    options += ["--set", "pooling=gap", "--set", "gelu_approximate=false"]
    status, output, _ = run("convert", TOKEN, path, *options)
    assert status == 0
    assert "resized  position_embedding/grid from (4, 4, 48) to (6, 6, 48)" in output
    assert "dropped  head/kernel: the model's head has another size" in output
    assert "new      head/bias, head/kernel" in output
    config = keras_vit.from_pretrained(path).get_config()
    expected = {"image_size": (48, 48), "classes": 3, "dropout_rate": 0.1}
    expected |= {"pooling": "gap", "gelu_approximate": False}
    assert {key: config[key] for key in expected} == expected


@pytest.mark.one_backend
def test_convert_resizes_patches(run, tmp_path):
    options = ["--set", "patch_size=4", "--image-size", 16, 16, "--resize-patches"]
    status, output, _ = run("convert", TOKEN, tmp_path / "m.npz", *options)
    assert status == 0
    assert "patch_embedding/kernel from (8, 8, 3, 48) to (4, 4, 3, 48)" in output


@pytest.mark.one_backend
def test_convert_says_what_the_file_does_not(run, tmp_path):
    """A bare file of timm's tells no heads, an `.npz` no grid and no exact GELU."""
    bare, path = tmp_path / "bare.safetensors", tmp_path / "m.npz"
    shutil.copy(NONSQUARE, bare)
    options = ["--num-heads", 4, "--position-grid", 4, 6]
    status, output, _ = run("convert", bare, path, *options)
    assert status == 0
    assert "position_grid=(4, 6), gelu_approximate=False" in output
    options = ["--position-grid", 4, 6, "--set", "gelu_approximate=False"]
    arrays = REFERENCE / "timm_nonsquare" / "expected.npz"
    assert run("verify", path, "--expected", arrays, *options)[0] == 0


@pytest.mark.one_backend
def test_convert_into_another_form_of_the_same_effect(run, tmp_path):
    source = REFERENCE / "hf_dinov2_registers"
    status, output, _ = run("convert", source, tmp_path / "m.safetensors")
    assert status == 0
    assert "dropped  embeddings.mask_token" in output
    assert "it computes the same; the layout stores in another form class_token" in output


@pytest.mark.one_backend
def test_convert_notices_a_target_that_is_another_model(tmp_path, monkeypatch):
    def broken(model, path, layout):
        keras_vit.save_weights(tiny(num_layers=3), path, layout=layout)

    monkeypatch.setattr("keras_vit.conversion.convert.save_weights", broken)
    with pytest.raises(ValueError, match="read again it is another model"):
        convert(TOKEN, tmp_path / "m.npz")
    assert convert(TOKEN, tmp_path / "n.npz", check=False).checked is None


@pytest.mark.one_backend
def test_convert_refuses_before_it_reads(fails, run, tmp_path):
    taken = tmp_path / "taken.npz"
    taken.write_bytes(b"mine")
    assert "give `--overwrite`" in fails("convert", TOKEN, taken)
    assert taken.read_bytes() == b"mine"
    assert "give `--overwrite`" in fails("convert", TOKEN, tmp_path)
    assert run("convert", TOKEN, taken, "--overwrite", "--no-check")[0] == 0
    assert "belongs to no layout" in fails("convert", TOKEN, tmp_path / "m.tar")
    path = tmp_path / "m.npz"
    assert "ends in .keras" in fails("convert", TOKEN, path, "--layout", "keras")
    assert "no folder" in fails("convert", TOKEN, tmp_path / "no" / "m.npz")
    with pytest.raises(SystemExit) as error:
        main(["convert", TOKEN, str(path), "--layout", "flax"])
    assert error.value.code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["taken.npz"]


@pytest.mark.one_backend
def test_a_failed_write_of_keras_leaves_nothing(fails, tmp_path, monkeypatch):
    def full(self, path):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    assert "No space left" in fails("convert", TOKEN, tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


# verify


@pytest.mark.parametrize("case", ["vit_representation", "hf_vit", "timm_gap"])
def test_verify_against_arrays(case, run):
    folder = REFERENCE / case
    names = ("checkpoint.npz", "model.safetensors")
    checkpoint = next(folder / name for name in names if (folder / name).exists())
    status, output, _ = run("verify", checkpoint, "--expected", folder / "expected.npz")
    assert status == 0
    for stage in set(reference(case)) - {"input"}:
        assert f"\n{stage} " in output
    assert "DIFFERS" not in output
    assert output.endswith("The same within 1e-05 of the largest value.\n")


def test_verify_tells_the_stage_from_which_on_it_differs(run, tmp_path):
    name = "Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"
    kernel = reference("vit_token", "checkpoint")[name]
    changed = change(TOKEN, tmp_path / "changed.npz", **{name: kernel * 1.01})
    arrays = REFERENCE / "vit_token" / "expected.npz"
    status, output, _ = run("verify", changed, "--expected", arrays)
    assert status == 1
    verdicts = {line.split()[0]: line.split()[-1] for line in output.splitlines()[1:7]}
    assert verdicts["encoderblock_0"] in ("ok", "equal")
    assert verdicts["encoderblock_1"] == verdicts["logits"] == "DIFFERS"
    assert "from the stage encoderblock_1 on." in output
    assert run("verify", changed, "--expected", arrays, "--tolerance", 0.5)[0] == 0

    status, output, _ = run("verify", changed, TOKEN)
    assert status == 1
    assert "44 of 45 weights are equal" in output
    assert "\nblock_1/mlp/dense_1/kernel  48 × 96" in output
    assert "from the stage block_1 on." in output


def test_verify_two_checkpoints_of_different_layouts(run, tmp_path):
    keras_vit.from_pretrained(TIMM).save(tmp_path / "m.keras")
    status, output, _ = run("verify", TIMM, tmp_path / "m.keras", "--seed", 3)
    assert status == 0
    shown = [line.split()[0] for line in output.splitlines()[3:10]]
    blocks = ["block_0", "block_1"]
    expected = ["patch_embedding", "position_embedding", *blocks, "encoder_norm"]
    assert shown == [*expected, "pooled", "logits"]
    # The weights alone are no proof.
    half = [tmp_path / "m.keras", "--set", "gelu_approximate=True"]
    keras_vit.save_weights(
        keras_vit.from_pretrained(TIMM), tmp_path / "m.npz", layout="google"
    )
    status, output, _ = run("verify", tmp_path / "m.npz", tmp_path / "m.keras")
    assert status == 1
    assert "33 of 33 weights are equal" in output
    assert "from the stage block_0 on" in output
    assert run("verify", tmp_path / "m.npz", *half)[0] == 0


@pytest.mark.one_backend
def test_verify_weights_that_differ_with_the_same_results(run, tmp_path):
    source, target = REFERENCE / "hf_dinov2_registers", tmp_path / "m.safetensors"
    convert(source, target, check=False)
    status, output, _ = run("verify", target, source)
    assert status == 1
    assert "position_embedding/prefix  none | 1 × 48" in output
    assert "Different weights (2), the same results within 1e-05" in output


@pytest.mark.one_backend
def test_verify_models_of_another_shape(run, fails, tmp_path):
    status, output, _ = run("verify", TOKEN, REFERENCE / "vit_gap" / "checkpoint.npz")
    assert status == 1
    assert "2 × 17 × 48 | 2 × 16 × 48" in output
    assert "different shapes: (32, 32, 3) and (32, 48, 3)" in fails(
        "verify", TOKEN, NONSQUARE
    )
    assert run("verify", NONSQUARE, NONSQUARE, "--image-size", 64, 32)[0] == 0


@pytest.mark.one_backend
def test_verify_arrays_that_do_not_fit(fails, tmp_path):
    arrays = reference("vit_token")
    path = tmp_path / "arrays.npz"
    np.savez(path, input=arrays["input"], block_9=arrays["logits"])
    error = fails("verify", TOKEN, "--expected", path)
    assert "'block_9'" in error
    for name in ("patch_embedding", "stem", "encoderblock_2", "features", "logits"):
        assert name in error
    np.savez(path, input=arrays["input"])
    assert "Received: none" in fails("verify", TOKEN, "--expected", path)
    np.savez(path, logits=arrays["logits"])
    assert "include the images, named 'input'" in fails("verify", TOKEN, "--expected", path)
    np.savez(path, input=arrays["input"][:, :16], logits=arrays["logits"])
    assert "of shape (2, 16, 32, 3)" in fails("verify", TOKEN, "--expected", path)
    path.write_bytes(b"PK")
    assert "not a complete .npz" in fails("verify", TOKEN, "--expected", path)


@pytest.mark.one_backend
def test_verify_needs_one_thing_to_compare_with(capsys):
    for rest in ([], [TOKEN, "--expected", TOKEN]):
        with pytest.raises(SystemExit) as error:
            main(["verify", TOKEN, *rest])
        assert error.value.code == 2


def test_a_comparison_counts_what_is_not_a_number():
    model = keras_vit.from_pretrained(TOKEN, **COMPARABLE)
    arrays = reference("vit_token")
    arrays = {name: arrays[name] for name in ("input", "logits")}
    assert compare_stages(model, arrays).ok
    arrays["logits"][0, 0] = np.nan
    assert not compare_stages(model, arrays).ok


def test_stages_of_models_of_every_kind():
    shown = stages(tiny(pre_norm=True, pooling="gap", fc_norm=True))
    assert shown["pooled"] == "fc_norm"
    assert "encoder_norm" not in shown
    assert "pre_norm" in shown
    assert list(stages(tiny(classes=0, pooling=None)))[-1] == "encoder_norm"
    model = tiny(data_format="channels_first", **COMPARABLE)
    arrays = {"input": images(), "pooled": np.zeros((2, 48))}
    assert compare_stages(model, arrays).rows[0].shape == "2 × 48"


# inspect


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("case", "layout", "parameters"),
    [
        ("vit_token", "google", "67,594"),
        ("bigvision_scan", "google", "48,538"),
        ("timm_token", "timm", "48,634"),
        ("hf_vit", "huggingface vit", "48,634"),
        ("kerashub_vit", "keras_hub", "48,634"),
    ],
)
def test_inspect(case, layout, parameters, run):
    path = REFERENCE / case
    path = path / "checkpoint.npz" if (path / "checkpoint.npz").exists() else path
    status, output, _ = run("inspect", path, "--names")
    assert status == 0
    facts = dict(line.split(maxsplit=1) for line in output.splitlines() if " " in line)
    facts = {name: text.split(", from ")[0].strip() for name, text in facts.items()}
    assert facts["layout"] == layout
    assert facts["parameters"] == parameters
    assert facts["position"].split(maxsplit=1) == ["grid", "4 × 4"]
    model = keras_vit.from_pretrained(path)
    config = model.get_config()
    for name in ("image_size", "num_layers", "num_heads", "mlp", "gelu_approximate"):
        assert facts[name] == str(config[name])
    becomes = {path for paths in inspect(path).targets.values() for path in paths}
    assert becomes == set(weights(model))
    for variable in becomes:
        assert variable in output


@pytest.mark.one_backend
def test_inspect_reads_no_tensor(run, monkeypatch):
    def read(self, name):
        raise AssertionError(name)

    for kind in ("npz.NpzFile", "safetensors_files.SafetensorsFile"):
        monkeypatch.setattr(f"keras_vit.weights.files.{kind}.read", read)
    assert run("inspect", TOKEN)[0] == run("inspect", TIMM)[0] == 0


@pytest.mark.one_backend
def test_inspect_what_a_file_does_not_tell(run, tmp_path):
    path = tmp_path / "bare.safetensors"
    shutil.copy(NONSQUARE, path)
    status, output, _ = run("inspect", path, "--names")
    assert status == 0
    assert "cannot be built" in output
    assert "Give `num_heads=…`" in output
    assert "block_1/mlp/dense_2/kernel" in output
    options = ["--set", "num_heads=4", "--position-grid", 4, 6]
    output = run("inspect", path, *options)[1]
    assert "cannot be built" not in output
    assert "position grid             4 × 6" in output


@pytest.mark.one_backend
def test_inspect_dropped_and_unused(run, tmp_path):
    path = tmp_path / "m.npz"
    extra = {"extra/kernel": np.zeros(3)}
    with np.load(TOKEN) as file:
        tensors = {f"opt/target/{name}": array for name, array in file.items()}
        np.savez(path, **tensors, **{"opt/state/step": np.array(7)}, **extra)
    output = run("inspect", path, "--names")[1]
    assert "opt/state/step: it belongs to the optimizer" in output
    assert "\nunused  " in output
    assert "extra/kernel" in output


@pytest.mark.one_backend
def test_inspect_a_foreign_file(run, fails, tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, scores=np.zeros((3, 2)), labels=np.zeros(3, int))
    status, output, _ = run("inspect", path)
    assert status == 0
    assert "layout           unknown" in output
    assert "\nscores  (3, 2)  float64" in output
    keras.Sequential([keras.Input([3]), keras.layers.Dense(2)]).save(
        tmp_path / "other.keras"
    )
    assert "class Sequential" in run("inspect", tmp_path / "other.keras")[1]
    path.write_bytes(b"no zip")
    assert "not a complete .npz" in fails("inspect", path)
    broken = tmp_path / "broken.keras"
    broken.write_bytes((tmp_path / "other.keras").read_bytes()[:-30])
    assert "not a complete .keras" in fails("inspect", broken)


FIELDS = [
    {"num_registers": 2, "representation_size": 48, "layer_scale": 1e-5},
    {"pooling": "map", "mlp": "swiglu", "qk_norm": True, "pre_norm": True},
    {"pooling": "gap", "fc_norm": True, "image_size": (32, 48), "qkv_bias": False},
    {"num_layers": 11, "classes": 0},
]


@pytest.mark.one_backend
@pytest.mark.parametrize("fields", FIELDS)
def test_inspect_our_own_files_of_keras(fields, run, tmp_path):
    model = tiny(**fields)
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    for name in ("m.keras", "m.weights.h5"):
        inspection = inspect(tmp_path / name)
        targets = [path for paths in inspection.targets.values() for path in paths]
        assert sorted(targets) == sorted(weights(model))
        assert inspection.layout == "keras"
        assert not inspection.unused
        shapes = {paths[0]: inspection.shapes[n] for n, paths in inspection.targets.items()}
        assert shapes == {path: w.shape for path, w in weights(model).items()}
        output = run("inspect", tmp_path / name)[1]
        assert f"{model.count_params():,}" in output
        for field in ("num_layers", "classes", "qkv_bias"):
            assert inspection.architecture[field] == model.get_config()[field]
        assert (
            tuple(inspection.architecture["image_size"]) == model.get_config()["image_size"]
        )
    assert "lacks the pooling" in output


@pytest.mark.one_backend
def test_sizes_have_the_papers_names():
    config = keras_vit.describe("ViTTi16.augreg_imagenet21k").config()
    assert size_name({**config, "patch_size": (16, 16)}) == "ViT-Ti/16"
    assert size_name({**config, "patch_size": (8, 16)}) == "ViT-Ti/8×16"
    assert size_name(tiny().get_config()) is None


# The rest.


@pytest.mark.one_backend
def test_list_and_describe(run, fails):
    status, output, _ = run("list", "--family", "dinov2")
    assert (status, output) == (0, f"{keras_vit.list_presets('DINOv2')}\n")
    status, output, _ = run("list")
    assert "ViTB16.augreg_imagenet21k " in output
    status, output, _ = run("list", "--family", "beit", "--scores")
    assert (status, output) == (0, f"{keras_vit.list_presets('BEiT').scores()}\n")
    status, output, _ = run("describe", "ViTB16.imagenet21k")
    assert (status, output) == (0, f"{keras_vit.describe('ViTB16.imagenet21k')}\n")
    assert "Near it: ViTB16.imagenet21k" in fails("describe", "ViTB16.imagnet21k")
    assert "Unknown `--family`" in fails("list", "--family", "ResNet")


@pytest.mark.one_backend
def test_errors_are_one_line(fails, run, tmp_path):
    assert "There is no checkpoint at" in fails("inspect", "none.npz")
    assert "Unknown preset" in fails("verify", "none", TOKEN)
    assert "NAME is an argument" in fails("inspect", TOKEN, "--set", "num_head=3")
    assert "Near it: num_heads" in fails("inspect", TOKEN, "--set", "num_head=3")
    assert "NAME=VALUE" in fails("inspect", TOKEN, "--set", "num_heads")
    dropout = ["--set", "dropout_rate=much"]
    target = tmp_path / "m.npz"
    assert "in [0, 1). Received" in fails("convert", TOKEN, target, *dropout)
    typed = ["--set", "input_shape=5"]
    assert "wrong type" in fails("convert", TOKEN, target, *typed)
    mismatch = ["--set", "mlp_dim=95"]
    assert "Of another shape" in fails("convert", TOKEN, target, *mismatch)
    status, _, error = run("inspect", "none.npz", "--traceback")
    assert status == 2
    assert error.startswith("Traceback")


def test_weights_of_equal_models_are_equal():
    model = keras_vit.from_pretrained(TOKEN)
    again = keras_vit.from_pretrained(model)
    assert compare_weights(model, again, 0).ok
    again.get_layer("head").bias.assign(np.zeros(10))
    assert compare_weights(again, model).different == ("head/bias",)


SCRIPTS = {
    "convert": ([TOKEN, "OUT", "--no-check"], 0, "written"),
    "verify": ([TOKEN, REFERENCE / "vit_gap" / "checkpoint.npz"], 1, "Different"),
    "inspect_checkpoint": ([TIMM], 0, "timm"),
}


@pytest.mark.one_backend
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(script, tmp_path, monkeypatch, capsys):
    arguments, status, text = SCRIPTS[script]
    path = str(ROOT / "weights_tools" / f"{script}.py")
    arguments = [str(a).replace("OUT", f"{tmp_path}/m.keras") for a in arguments]
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    monkeypatch.setattr(sys, "path", [str(ROOT / "weights_tools"), *sys.path])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(path, run_name="__main__")
    assert done.value.code == status
    assert text in capsys.readouterr().out


@pytest.mark.one_backend
def test_a_script_runs_from_anywhere(tmp_path):
    """As its own process, also where the package is not installed."""
    script = ROOT / "weights_tools" / "inspect_checkpoint.py"
    command = [sys.executable, script, TIMM]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "layout                    timm" in done.stdout


@pytest.mark.one_backend
def test_the_module_runs_and_minds_a_closed_pipe():
    command = f"'{sys.executable}' -m keras_vit list; echo $? >&2"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        ["bash", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    process.stdout.close()  # before anything is printed
    error = process.stderr.read()
    process.wait()
    assert error.splitlines()[-1] == "141"
    assert "Traceback" not in error
    assert "BrokenPipe" not in error
