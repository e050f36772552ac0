"""Processes of JAX that train one model, here two with two devices each on the CPU."""

import os
import pickle
import shutil
import socket
import subprocess
import sys

import jax_ranks
import keras
import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit.cli import main
from keras_vit.distribution import layouts
from keras_vit.distribution.batch_rows import process_rows
from keras_vit.runs.folder import RESUME, RunFolder

IS_3_14 = keras.__version__.startswith("3.14.")
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax" or IS_3_14, reason="processes of JAX, by Keras 3.15"
)
ENVIRONMENT = "KERAS_DISTRIBUTION_"


def launch(folder, stage):
    """The two exit codes and what both have said."""
    environment = {
        f"{ENVIRONMENT}JOB_ADDRESSES": f"localhost:{free_port()}",
        f"{ENVIRONMENT}NUM_PROCESSES": "2",
    }
    index = f"{ENVIRONMENT}PROCESS_ID"
    return launched([jax_ranks.__file__, folder, stage], environment, [index])


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def launched(arguments, environment, index_names):
    """Two processes, whose numbers are in the environment by some names."""
    devices = "--xla_force_host_platform_device_count=2"
    environment = {
        **os.environ,
        **environment,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**environment, **dict.fromkeys(index_names, str(index))},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        said = [process.communicate(timeout=1200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


@pytest.mark.skipif(not IS_3_14, reason="Keras 3.15 shards over several processes")
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="processes of JAX")
def test_keras_3_14_says_that_it_cannot_shard_over_processes(monkeypatch):
    monkeypatch.setattr(layouts, "num_processes", lambda: 2)
    with pytest.raises(ValueError, match=r"Keras 3.15.*Received: Keras 3.14"):
        layouts.ShardedWeights(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return os.fspath(tmp_path_factory.mktemp("ranks"))


def read(folder, stage):
    found = []
    for index in range(2):
        with open(os.path.join(folder, f"{stage}-{index}.pickle"), "rb") as file:
            found.append(pickle.load(file))
    return found


@pytest.fixture(scope="module")
def first(folder):
    """Results of both processes."""
    codes, said = launch(folder, "first")
    assert codes == [0, 0], "\n".join(said)[-8000:]
    return read(folder, "first")


@pytest.fixture(scope="module")
def killed(folder, first):
    return launch(folder, "killed")


@pytest.fixture(scope="module")
def revived(folder, killed):
    codes, said = launch(folder, "revived")
    assert codes == [0, 0], "\n".join(said)[-8000:]
    return read(folder, "revived")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Results of one process with one device."""
    folder = os.fspath(tmp_path_factory.mktemp("alone"))
    functions = (jax_ranks.by_hand, jax_ranks.by_hand_in_bfloat16, jax_ranks.finetuned)
    return {function.__name__: function(folder) for function in functions}


def flat(found):
    """Numbers by name."""
    arrays = {name: np.array(values) for name, values in found["history"].items()}
    for name, values in found.items():
        if name in ("weights", "optimizer"):
            values = np.concatenate([np.float64(w).reshape(-1) for w in values])
        if name != "history":
            arrays[name] = np.array(values)
    return arrays


def differences(one, other):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    return {name: np.abs(one[name] - other[name]).max() for name in one}


@on_jax
@pytest.mark.parametrize(
    ("training", "name", "reference"),
    [
        ("by_hand", "auto", "by_hand"),
        ("finetuned", "data_parallel", "finetuned"),
        ("finetuned", "tensor_parallel:4", "finetuned"),
        ("saved", "fully_sharded", "finetuned"),
    ],
)
def test_two_processes_do_what_one_device_does(first, alone, training, name, reference):
    one, other = (found[training, name] for found in first)
    assert max(differences(alone[reference], one).values()) < 1e-5
    assert max(differences(one, other).values()) == 0
    assert len(one["losses"]) == (6 if training == "by_hand" else 12)
    assert np.ptp(one["losses"]) > 0.1  # something has been learned


@on_jax
def test_two_processes_in_bfloat16_do_nearly_what_one_device_does(first, alone):
    one, other = (found["by_hand_in_bfloat16", "fully_sharded"] for found in first)
    found = differences(alone["by_hand_in_bfloat16"], one)
    # An area under a curve may jump where two predictions change places.
    names = ("losses", "weights", "optimizer", "predictions", "val_loss")
    assert max(found[name] for name in names) <= 0.02
    assert max(differences(one, other).values()) == 0
    # What is compared is not float32's.
    assert differences(alone["by_hand"], one)["losses"] > 1e-4


@on_jax
def test_files_are_written_by_the_first_process_alone(first, folder):
    names = sorted(os.listdir(folder))
    assert [name for name in names if name.startswith("2-")] == ["2-0.csv"]


@on_jax
def test_weights_that_are_split_are_saved_whole(first, folder):
    weights = first[0]["saved", "fully_sharded"]["weights"]
    model = keras.saving.load_model(os.path.join(folder, "run", "last.keras"))
    assert int(model.optimizer.iterations) == 6
    for weight, expected in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected)
    keras.saving.load_model(os.path.join(folder, "run", "best.keras"))


@on_jax
def test_what_would_train_apart_is_refused(first):
    says = {
        "batches": "ValueError: Each process must be given the same batches",
        "metrics": "of weight 0 that pad the last batch on several devices, here 3.",
        "seeds": "is not the same on each process",
        "on_batch": "RuntimeError: `train_on_batch` does not shard a batch",
        "split": "ValueError: `ModelCheckpoint` needs complete weights in one process",
        "saved alone": "all processes are in `with keras_vit.distribution.gather_weights",
        "again": "RuntimeError: ",
        "backup": "Use keras_vit.training.ExactResume",
        "outside": "RuntimeError: Several processes must train together. Received",
        "tuned outside": "ValueError: Processes of JAX must train together",
    }
    for found in first:
        answers = found["refusals", "none"]
        assert answers.keys() == says.keys()
        for name, text in says.items():
            assert text in answers[name], name


@on_jax
def test_a_killed_process_ends_the_others(killed):
    codes, said = killed
    assert codes[1] == -9
    assert codes[0] not in (0, -9)
    assert "another task died" in said[0] or "has probably lost the others" in said[0]


@on_jax
@pytest.mark.parametrize(
    ("training", "strategy", "whole"),
    [
        ("gone_on", "auto", ("finetuned", "data_parallel")),
        ("revived", "fully_sharded", ("saved", "fully_sharded")),
    ],
)
def test_a_training_goes_on_bit_for_bit(first, revived, training, strategy, whole):
    for found, before in zip(revived, first, strict=True):
        one, other = dict(found[training, strategy]), dict(before[whole])
        assert len(one["losses"]) < len(other["losses"])
        one["losses"] = other["losses"]  # of the steps after, alone
        assert max(differences(one, other).values()) == 0
        assert not [line for line in found["said"] if "damaged" in line]


@on_jax
def test_a_file_of_a_model_is_split_as_it_is_read(first, revived):
    expected = first[0]["saved", "fully_sharded"]["weights"]
    for found in revived:
        for weight, other in zip(found["reopened", "fully_sharded"], expected, strict=True):
            np.testing.assert_array_equal(weight, other)


@on_jax
def test_split_weights_go_on_on_one_device(first, folder, tmp_path, alone, caplog):
    shutil.copytree(os.path.join(folder, "whole"), tmp_path / "whole")
    newest = max((tmp_path / "whole").glob("*.orbax"))
    assert newest.name == "step-00000012.orbax"
    # One bit of the newest, which is found by its sums; the one before is gone on from.
    largest = max(newest.glob("state/**/d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    found = jax_ranks.finetuned(tmp_path, resume="whole", save_freq=5)
    assert "is damaged" in caplog.text
    assert "Training resumes with the weights" in caplog.text
    assert 0 < len(found["losses"]) < 12
    found["losses"] = alone["finetuned"]["losses"]
    assert max(differences(found, alone["finetuned"]).values()) < 1e-5


@on_jax
def test_the_command_line_under_slurm(tmp_path):
    """As `srun` starts it, with two tasks on one machine."""
    rng = np.random.default_rng(0)
    for i in range(36):
        folder = tmp_path / "shades" / ("dark", "light", "grey")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 80, (16, 16, 3)) + i % 3 * 80
        Image.fromarray(pixels.astype("uint8")).save(folder / f"{i:02}.png")
    jax_ranks.vit(classes=0).save(tmp_path / "small.keras")
    arguments = ["finetune", tmp_path / "shades", "--weights", tmp_path / "small.keras"]
    arguments += ["--image-size", 8, "--batch-size", 8, "--steps", 4, "--evaluations", 2]
    arguments += ["--validation-split", 0.3, "--recipe", "vit", "--base-learning-rate", 0.1]
    command = [str(argument) for argument in arguments]
    environment = {
        # JAX takes a port by the number of the job.
        "SLURM_JOB_ID": str(free_port()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
    }
    codes, said = launched(
        ["-m", "keras_vit", *command, "--output", str(tmp_path / "two"), "--multi-process"],
        environment,
        ["SLURM_PROCID", "SLURM_LOCALID"],
    )
    assert codes == [0, 0], "\n".join(said)[-8000:]
    assert "keras-vit predict" in said[0]
    assert "data  " not in said[1]  # the second one prints nothing of it
    assert main([*command, "--output", str(tmp_path / "one")]) == 0
    two, one = (RunFolder(tmp_path / name) for name in ("two", "one"))
    for name, values in one.history().items():
        np.testing.assert_allclose(two.history()[name], values, atol=1e-4, err_msg=name)
    assert not two.file(RESUME).exists()
    assert sorted(os.listdir(two.path)) == sorted(os.listdir(one.path))


@on_jax
def test_what_does_not_say_where_processes_are_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"Give process_id \(or KERAS_DISTRIBUTION_PRO"):
        keras_vit.distribution.initialize("localhost:1", 2)
    monkeypatch.setenv(f"{ENVIRONMENT}NUM_PROCESSES", "two")
    with pytest.raises(ValueError, match="`num_processes` must be an int. Received: 'two'"):
        keras_vit.distribution.initialize("localhost:1", process_id=0)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="on other backends")
def test_other_backends_are_refused():
    with pytest.raises(ValueError, match="initialize\\(\\) is for KERAS_BACKEND=jax"):
        keras_vit.distribution.initialize()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="on other backends")
def test_split_weights_stay_for_jax(tmp_path):
    checkpoint = tmp_path / "whole" / "step-00000012.orbax"
    checkpoint.mkdir(parents=True)
    with pytest.raises(ValueError, match="KERAS_BACKEND=jax alone.*step-00000012.orbax"):
        jax_ranks.finetuned(tmp_path, resume="whole")
    assert checkpoint.is_dir()


@pytest.mark.one_backend
def test_parts_of_a_padded_stream_are_the_stream():
    data = keras_vit.data.load((jax_ranks.IMAGES[:5].astype("uint8"), np.arange(5) % 3))
    data = data.with_pipeline(image_size=8, batch_size=4, label_mode="categorical")
    whole = data.evaluation("train", padded=True)
    parts = [whole.keras_vit_shard(i, 2)[0] for i in range(2)]
    batches = list(whole)
    assert [len(batch[0]) for batch in batches] == [4, 4]
    for batch, *own in zip(batches, *parts, strict=True):
        for i in range(3):
            joined = np.concatenate([part[i] for part in own])
            np.testing.assert_array_equal(joined, batch[i])
    assert [process_rows(4, i, 2).tolist() for i in range(2)] == [[0, 1], [2, 3]]
