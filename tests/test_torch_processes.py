"""Processes of `torchrun` that train one model on torch, here two on the CPU."""

import os
import pickle
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch_ranks
import trainings
import uneven

import keras_vit
from keras_vit.data import Augmentation
from keras_vit.distribution.batch_rows import process_rows

on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="torchrun starts processes of torch"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder to which two processes have written, and what they said."""
    folder = os.fspath(tmp_path_factory.mktemp("ranks"))
    trainings.photos(folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    # One restart is wanted; the others are for a machine on which processes miss each other.
    command += ["--max-restarts", "4"]
    # Of a process that has died torchrun learns seconds later, after the other has said so.
    command += ["--monitor-interval", "3"]
    done = subprocess.run(
        [*command, torch_ranks.__file__, folder],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    return folder, done.stderr


@pytest.fixture(scope="module")
def ranks(run):
    """Results of both processes."""
    found = [{}, {}]
    for rank in range(2):
        for name in ("all", "killed"):
            with open(os.path.join(run[0], f"{name}-{rank}.pickle"), "rb") as file:
                found[rank][name] = pickle.load(file)
    return [{**both["all"], **{"killed": both["killed"]}} for both in found]


def flat(found):
    """Numbers by name."""
    arrays = {name: found[name] for name in found if name not in ("history", "weights")}
    arrays |= found["history"]
    arrays["weights"] = np.concatenate([w.reshape(-1) for w in found["weights"]])
    return {name: np.array(array) for name, array in arrays.items()}


def differences(one, other):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    return {name: np.abs(one[name] - other[name]).max() for name in one}


@on_torch
@pytest.mark.parametrize(
    ("training", "bound"),
    [
        (torch_ranks.by_hand, 1e-5),
        (torch_ranks.other_data, 1e-5),
        (torch_ranks.finetuned, 1e-5),
        (torch_ranks.in_bfloat16, 2e-2),
        (torch_ranks.pretrained, 1e-5),
        (torch_ranks.taught, 1e-5),
        (torch_ranks.predicting, 1e-5),
        (torch_ranks.distilling, 1e-5),
    ],
)
def test_two_processes_do_what_one_does(ranks, tmp_path, training, bound):
    first, second = (found[training.__name__] for found in ranks)
    alone = training(os.fspath(tmp_path))
    assert max(differences(alone, first).values()) < bound
    assert max(differences(first, second).values()) == 0
    assert np.ptp(alone["losses"]) > 0.1  # something has been learned


@on_torch
def test_rows_that_do_not_divide_are_trained_on_and_scored_as_in_one_process(ranks):
    """With each number of rows left, kind of data, reduction, and batch by batch."""
    alone = uneven.everything()
    for found in ranks:
        distances = uneven.distances(found["uneven_rows"], alone)
        assert len(distances) == 23
        assert max(distances.values()) <= 1e-5, distances


@on_torch
def test_a_refused_batch_size_leaves_no_folder(ranks):
    for found in ranks:
        assert found["killed"]["refused command"] == (2, False)


@on_torch
def test_dropout_differs_by_process_and_step_and_weights_do_not(ranks):
    first, second = ranks
    found = first["with_dropout"], second["with_dropout"]
    assert max(differences(*found).values()) == 0
    for steps, others in zip(first["masks"], second["masks"], strict=True):
        np.testing.assert_array_equal(steps, others)
        rows = np.concatenate(steps)
        assert len(rows) == 16
        assert len(np.unique(rows, axis=0)) == 16
        assert abs(rows.mean() - 0.5) < 0.1


@on_torch
def test_files_are_written_by_the_first_process_alone(run):
    names = sorted(os.listdir(run[0]))
    assert [n for n in names if n.startswith("2-")] == ["2-0.csv", "2-0.weights.h5"]


@on_torch
def test_what_would_train_apart_is_refused(ranks):
    says = {
        "wrapped": "ValueError: Keras' `fit` bypasses torch's Distributed",
        "inside": "ValueError: Keras' `fit` bypasses torch's Distributed",
        "train_step": "Received: Own, which overrides train_step. Leave",
        "norm": "statistics in each process. Received: norm. Freeze it",
        "penalty": "add losses of their own rows. Received: a batch of 11 for 2 processes.",
        "unbuilt": "ValueError: A model must be built before",
        "compiled": "a model compiled with jit_compile=True",
        "backup": "Use keras_vit.training.ExactResume",
        "batches": "Received: another first batch in process 0 than in 1. Shuffle",
        "models": "ValueError: Each process must build the same model",
        "callback": "RuntimeError: All processes must have the same weights after `fit`",
        "on_batch": "RuntimeError: `train_on_batch` does not synchronize the weights",
        "divide": "batch_size (or micro_batch_size) 5 for 2 devices",
    }
    for found in ranks:
        answers = found["refusals"]
        assert answers.keys() == says.keys()
        for name, text in says.items():
            assert text in answers[name], name
        assert (
            "RuntimeError: Several processes must train together"
            in found["killed"]["outside"]["fit"]
        )
        assert "one of 2 outside of `with keras" in found["killed"]["outside"]["finetune"]


@on_torch
def test_a_killed_process_ends_the_others_and_training_goes_on(run, ranks):
    assert "RuntimeError: Process 0 of 2 lost the others: one has ended" in run[1]
    for found in ranks:
        whole, killed = found["resumed"], found["killed"]["resumed"]
        assert len(killed["losses"]) < len(whole["losses"])
        killed["losses"] = whole["losses"]  # of the steps after, alone
        assert max(differences(whole, killed).values()) == 0


@on_torch
def test_the_command_trains_in_two_processes_and_goes_on(run, ranks, tmp_path):
    """Ended by a signal to one of them; with accumulation and averages."""
    first, second = (found["killed"]["commands"] for found in ranks)
    shutil.copytree(os.path.join(run[0], "photos"), tmp_path / "photos")
    shutil.copy(os.path.join(run[0], "small.keras"), tmp_path)
    assert trainings.commands(tmp_path, ["none"])["none"][0] == 0
    trainings.check_runs(run[0], tmp_path, first, ["auto"])
    assert "resumes after step 3" in first["auto"][1]
    for found in (first, second):
        assert [found[name][0] for name in ("ended", "auto", "again")] == [75, 0, 2]
    assert not any(printed for _, printed in second.values())


@on_torch
def test_an_environment_that_is_not_of_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="without RANK, LOCAL_RANK, MASTER_ADDR"):
        keras_vit.distribution.strategy("auto")


@pytest.mark.one_backend
def test_parts_of_a_stream_are_the_stream():
    images = torch_ranks.IMAGES.astype("uint8")
    data = keras_vit.data.load((images, torch_ranks.LABELS), validation_split=0.5)
    augmentation = Augmentation(crop="inception", mixup_alpha=0.4, cutmix_alpha=1.0)
    data = data.with_pipeline(image_size=8, batch_size=5, augmentation=augmentation)
    for whole in (data.train, data.validation):
        parts = [whole.keras_vit_shard(i, 3)[0].take(3) for i in range(3)]
        for batch, *own in zip(whole.take(3), *parts, strict=True):
            rows = len(batch[0])
            assert all(len(part[0]) == -(-rows // 3) for part in own)
            for i in (0, 1):
                joined = np.concatenate([part[i] for part in own])[:rows]
                np.testing.assert_array_equal(joined, batch[i])
            assert all(part[2] == rows for part in own if len(part) == 3)


@pytest.mark.one_backend
def test_each_process_has_equally_many_rows():
    assert [process_rows(5, i, 2).tolist() for i in range(2)] == [[0, 1, 2], [3, 4, 4]]
    assert [process_rows(1, i, 3).tolist() for i in range(3)] == [[0], [0], [0]]
