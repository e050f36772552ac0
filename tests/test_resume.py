"""`ExactResume`: trainings that are killed, and files that are damaged.

The process that kills others is `programs/resumed.py`.
"""

import dataclasses
import errno
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import resumed
from helpers import PROGRAMS, REFERENCE, array
from resumed import EPOCHS, RECIPE, SAVE_FREQ, STEPS, assert_same

import keras_vit
from keras_vit.runs import EventFiles
from keras_vit.training import ExactResume
from keras_vit.training.resume import checkpoint_files
from keras_vit.training.resume.checkpoint_files import CheckpointFolder

BACKEND = keras.backend.backend()
KILLS = {"torch": 10}.get(BACKEND, 2)


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """Results of trainings in processes of their own: one whole, one often killed."""
    folder = tmp_path_factory.mktemp("lives")
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(10**6)))
    done = subprocess.run(
        [sys.executable, PROGRAMS / "resumed.py", folder, str(KILLS), str(seed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"KILL_SEED={seed}\n{done.stderr[-4000:]}"
    told = json.loads((folder / "lives.json").read_text())
    return folder, f"KILL_SEED={seed}: {told}", told


def test_killed_trainings_end_as_if_they_had_not_been(lives):
    folder, told, births = lives
    killed = births[1:-1]
    assert len(killed) == KILLS, told
    assert births[-1]["status"] == 0, told
    assert {life["signal"] for life in killed} == {signal.SIGKILL}, told
    assert any(life["half"] for life in killed), told  # within a save
    outcomes = []
    for name in ("whole", "torn"):
        with np.load(folder / name / "outcome.npz") as file:
            outcomes.append(dict(file))
    whole, torn = outcomes
    try:
        assert_same(torn, whole)
    except AssertionError as error:
        raise AssertionError(told) from error
    assert whole["epoch"].tolist() == list(range(EPOCHS))
    tables = [(folder / name / "metrics.csv").read_text() for name in ("whole", "torn")]
    assert tables[0] == tables[1], told
    assert len(tables[0].splitlines()) == 1 + EPOCHS
    left = sorted(path.name for path in (folder / "torn" / "resume").glob("*step*"))
    assert left == ["step-00000035.safetensors", "step-00000036.safetensors"]


class At(keras.callbacks.Callback):
    """Does something at the end of a step, counted over the epochs of this process."""

    def __init__(self, step, action):
        super().__init__()
        self.left = step
        self.action = action

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.action()


class StruckError(Exception):
    """Ends a training in this process."""


def strike():
    raise StruckError


def train(directory, callbacks=(), model=None, **options):
    """A small training by hand, on arrays: one batch size, no shuffling."""
    fit = {"epochs": 2, "batch_size": 2, "shuffle": False, "verbose": 0}
    arguments = {name: options.pop(name) for name in list(options) if name in FIT}
    keras.utils.set_random_seed(3)
    model = model or dense()
    resume = ExactResume(directory, **{"save_freq": 2, **options})
    history = model.fit(
        **{**fit, "x": X, "y": Y, **arguments}, callbacks=[resume, *callbacks]
    )
    return resumed.outcome(model, history)


FIT = ("x", "y", "epochs", "steps_per_epoch", "shuffle", "validation_data", "batch_size")
X = np.random.default_rng(0).normal(size=(10, 4)).astype("float32")
Y = np.random.default_rng(1).normal(size=(10, 2)).astype("float32")


def dense(units=3, optimizer=None, loss="mse"):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units, name="hidden"),
            keras.layers.Dropout(0.5, name="dropout"),
            keras.layers.Dense(2, name="head"),
        ]
    )
    model.compile(optimizer or keras.optimizers.Adam(0.1), loss)
    return model


def flat():
    """For images."""
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    return model


def interrupted(directory, step, **options):
    with pytest.raises(StruckError):
        train(directory, [At(step, strike)], **options)
    CheckpointFolder(directory, 2).wait()


@pytest.fixture
def whole(tmp_path):
    return train(tmp_path / "whole")


@pytest.mark.parametrize("step", [1, 3, 5, 8])
def test_arrays_by_hand(tmp_path, whole, step):
    """Step 5 is the end of the first epoch."""
    interrupted(tmp_path / "run", step)
    assert_same(train(tmp_path / "run"), whole)


def test_a_finished_training_stays_what_it_is(tmp_path, whole):
    assert_same(train(tmp_path / "whole"), whole)


def stream():
    """Batches without end."""
    rng = np.random.default_rng(5)
    while True:
        yield rng.normal(size=(2, 4)), rng.normal(size=(2, 2))


@pytest.mark.parametrize("save_freq", ["epoch", 3])
def test_an_endless_stream_goes_on(tmp_path, save_freq):
    """Without `data`, batches before the position are read again, over the epochs."""

    def run(name, callbacks=()):
        options = {"steps_per_epoch": 5, "y": None, "batch_size": None}
        options |= {"validation_data": (X, Y), "save_freq": save_freq, "epochs": 3}
        return train(tmp_path / name, callbacks, x=stream(), **options)

    expected = run("whole")
    for step in (7, 2):
        with pytest.raises(StruckError):
            run("run", [At(step, strike)])
    assert_same(run("run"), expected)


class ByEpoch(keras.utils.PyDataset):
    """Batches whose order depends on the epoch, of which Keras tells."""

    def __init__(self):
        super().__init__()
        self.epoch = 0

    def __len__(self):
        return 5

    def __getitem__(self, index):
        order = np.random.default_rng(self.epoch).permutation(10)
        rows = order[2 * index : 2 * index + 2]
        return X[rows], Y[rows]

    def on_epoch_end(self):
        self.epoch += 1


@pytest.mark.one_backend
def test_a_dataset_that_counts_epochs_goes_on(tmp_path):
    def run(name, callbacks=(), **options):
        options = {"y": None, "batch_size": None, "epochs": 3, **options}
        return train(tmp_path / name, callbacks, x=ByEpoch(), **options)

    expected = run("whole")
    for step in (8, 2):
        with pytest.raises(StruckError):
            run("run", [At(step, strike)])
    assert_same(run("run"), expected)
    with pytest.raises(ValueError, match="order it can repeat"):
        run("shuffled", shuffle=True)


@pytest.mark.parametrize("step", [3, 5, 7])
def test_an_epoch_whose_end_nobody_knows(tmp_path, step):
    """Step 5 is its last: the checkpoint is of an epoch that may have more."""
    import tensorflow as tf

    def run(name, callbacks=()):
        data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
        data = data.filter(lambda x, y: True)  # now of unknown length
        options = {"y": None, "batch_size": None, "save_freq": 1}
        return train(tmp_path / name, callbacks, x=data, **options)

    expected = run("whole")
    with pytest.raises(StruckError):
        run("run", [At(step, strike)])
    assert_same(run("run"), expected)


def test_a_training_that_was_to_stop_stops(tmp_path):
    """It dies in the validation after the step at which a callback ended it."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 2

    class Validated(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            strike()

    def run(name, callbacks=()):
        return train(tmp_path / name, [Stop(), *callbacks], validation_data=(X, Y))

    expected = run("whole")
    with pytest.raises(StruckError):
        run("run", [Validated()])
    assert_same(run("run"), expected)
    assert expected["epoch"].tolist() == [0]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras takes single steps on torch")
def test_several_steps_at_a_time(tmp_path):
    def model():
        keras.utils.set_random_seed(3)
        network = dense()
        network.compile("adam", "mse", steps_per_execution=2)
        return network

    expected = train(tmp_path / "whole", model=model())
    for step in (2, 3):
        interrupted(tmp_path / "run", step, model=model())
    assert_same(train(tmp_path / "run", model=model()), expected)


def test_image_data_begins_at_the_position(tmp_path):
    """Without reading what came before, and `data.train` then begins at its start."""
    folder, data = tmp_path / "run", resumed.load()
    stream = data.with_pipeline(
        image_size=8, batch_size=4, augmentation=RECIPE.augmentation
    )
    model = flat()

    def fit(callbacks=()):
        keras.utils.set_random_seed(0)
        options = {"epochs": 1, "steps_per_epoch": 6, "shuffle": False, "verbose": 0}
        resume = ExactResume(folder, 2, data=data)
        return model.fit(stream.train, callbacks=[resume, *callbacks], **options)

    with pytest.raises(StruckError):
        fit([At(3, strike)])
    starts = []
    data.start.read = lambda: (
        starts.append(data.start.step) or type(data.start).read(data.start)
    )
    fit()
    assert starts[-1] == 2
    assert data.start.step == 0


def test_a_stream_of_other_data_is_refused(tmp_path):
    data = resumed.load()
    with pytest.raises(ValueError, match="read nothing from it"):
        train(tmp_path, data=data)


def damage(path, where=-9):
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)


def newest(directory):
    return CheckpointFolder(directory, 2).newest_path()


@pytest.mark.parametrize("how", ["bit", "metadata", "half", "empty"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, whole, caplog, how):
    interrupted(tmp_path, 9)
    path = newest(tmp_path)
    if how in ("half", "empty"):
        size = path.stat().st_size // 2 if how == "half" else 0
        os.truncate(path, size)
    else:
        damage(path, -9 if how == "bit" else 120)
    before = list(CheckpointFolder(tmp_path, 2).steps().values())[-2]
    assert_same(train(tmp_path), whole)
    assert f"{path} is damaged" in caplog.text
    assert f"The older {before} is used instead" in caplog.text


def test_nothing_but_damaged_checkpoints(tmp_path):
    interrupted(tmp_path, 9)
    for path in CheckpointFolder(tmp_path, 2).steps().values():
        damage(path)
    with pytest.raises(ValueError, match="Every checkpoint in .* is damaged.*start over"):
        train(tmp_path)


def full_disk(monkeypatch, after):
    """Writing fails half-way in each file after so many."""
    write_array, header = checkpoint_files.write_array, checkpoint_files._header
    files = [0]

    def counted(tensors, record):
        files[0] += 1
        return header(tensors, record)

    def write(file, array):
        if files[0] > after and file.tell() > 5000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_array(file, array)

    monkeypatch.setattr(checkpoint_files, "_header", counted)
    monkeypatch.setattr(checkpoint_files, "write_array", write)


def test_a_full_disk_ends_the_training(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as disk:
        full_disk(disk, after=2)
        with pytest.raises(OSError, match=r"No space left.*stays valid: .*step-00000002"):
            train(tmp_path / "run")
    assert sorted(CheckpointFolder(tmp_path / "run", 2).steps()) == [0, 2]
    assert not list((tmp_path / "run").glob("*.part"))
    assert_same(train(tmp_path / "run"), whole)


def test_a_full_disk_is_told_of(tmp_path, whole, monkeypatch, caplog):
    full_disk(monkeypatch, after=2)
    assert_same(train(tmp_path / "run", on_save_error="warn"), whole)
    assert "No space left" in caplog.text
    assert "Training continues without" in caplog.text
    assert newest(tmp_path / "run").name == "step-00000002.safetensors"


@pytest.mark.one_backend
@pytest.mark.skipif(os.name != "posix", reason="Windows has no such limit")
def test_a_limit_of_the_system(tmp_path, whole):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def lower():
        CheckpointFolder(tmp_path / "run", 2).wait()
        size = newest(tmp_path / "run").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))

    try:
        with pytest.raises(OSError, match="stays valid: .*step-00000002"):
            train(tmp_path / "run", [At(3, lower)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same(train(tmp_path / "run"), whole)


@pytest.mark.one_backend
def test_a_file_system_that_is_full_or_read_only(tmp_path):
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=300k tmpfs {tmp_path}"
    try:
        subprocess.run([*namespace, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    python = [sys.executable, PROGRAMS / "full_file_system.py", tmp_path]
    done = subprocess.run(
        [*namespace, f'{mount} && exec "$@"', "sh", *python],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    full, read_only = done.stdout.splitlines()
    assert "No space left on device" in full
    for line in (full, read_only):
        assert "step-00000002.safetensors" in line
    assert "Read-only file system" in done.stderr
    assert "Training continues without" in done.stderr


@pytest.mark.parametrize("on_save_error", ["raise", "warn"])
def test_a_folder_that_cannot_be(tmp_path, whole, caplog, on_save_error):
    """Root can write to a read-only folder, so the folder is a file."""
    (tmp_path / "file").touch()
    directory = tmp_path / "file" / "run"
    if on_save_error == "raise":
        with pytest.raises(OSError, match="file"):
            train(directory)
    else:
        assert_same(train(directory, on_save_error="warn"), whole)
        assert "Checkpoints cannot be written to" in caplog.text


@pytest.mark.one_backend
def test_half_a_file_of_a_dead_process_goes(tmp_path, whole):
    part = tmp_path / "run" / "step-00000002.safetensors.1.part"
    part.parent.mkdir()
    part.write_bytes(b"half")
    train(tmp_path / "run")
    assert not part.exists()


@pytest.mark.one_backend
def test_older_checkpoints_go(tmp_path):
    train(tmp_path / "two", epochs=3)
    assert list(CheckpointFolder(tmp_path / "two", 2).steps()) == [14, 15]
    train(tmp_path / "one", epochs=3, keep=1)
    assert list(CheckpointFolder(tmp_path / "one", 2).steps()) == [15]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"configuration": {"lr": 2}}, "configuration.lr: 1 in the checkpoint, 2 now"),
        ({"model": {"units": 4}}, r"hidden/kernel.*\(4, 3\).*\(4, 4\)"),
        ({"model": {"loss": "mae"}}, "training.loss: 'mse' in the checkpoint, 'mae' now"),
        ({"model": {"optimizer": "sgd"}}, "training.optimizer"),
        ({"batch_size": 5}, "training.steps_per_epoch: 5 in the checkpoint, 2 now"),
        ({"epochs": 1}, "it is in epoch 2, `epochs` is 1"),
    ],
)
def test_another_training_is_refused(tmp_path, options, message):
    same = {"configuration": {"lr": 1}}
    interrupted(tmp_path, 9, **same)
    before = sorted(path.name for path in tmp_path.iterdir())
    model = dense(**options.pop("model", {}))
    with pytest.raises(ValueError, match=message) as error:
        train(tmp_path, model=model, **{**same, **options})
    assert "choose another `directory`" in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.one_backend
def test_a_checkpoint_with_the_old_name_of_a_recipe_field_resumes(tmp_path):
    interrupted(tmp_path, 9, configuration={"recipe": {"resolution": 32}})
    with pytest.raises(ValueError, match="image_size: 32 in the checkpoint, 48 now"):
        train(tmp_path, configuration={"recipe": {"image_size": 48}})
    outcome = train(tmp_path, configuration={"recipe": {"image_size": 32}})
    assert outcome["epoch"].tolist() == [0, 1]


@pytest.mark.one_backend
def test_a_scaled_loss_goes_on_and_another_precision_is_refused(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    expected = train(tmp_path / "whole")
    assert isinstance(dense().optimizer, keras.optimizers.LossScaleOptimizer)
    interrupted(tmp_path / "run", 7)
    assert_same(train(tmp_path / "run"), expected)
    keras.config.set_dtype_policy("float32")
    with pytest.raises(ValueError, match="dtype_policy: 'mixed_float16' in the check"):
        train(tmp_path / "run")


@pytest.mark.one_backend
@pytest.mark.parametrize("change", ["examples", "seed", "pipeline"])
def test_other_data_is_refused(tmp_path, change):
    def fit(data, model):
        options = {"epochs": 1, "steps_per_epoch": 3, "shuffle": False, "verbose": 0}
        model.fit(data.train, callbacks=[ExactResume(tmp_path, 2, data=data)], **options)

    images, labels = resumed.images()
    data = keras_vit.data.load((images, labels), image_size=8, batch_size=4)
    fit(data, flat())
    if change == "examples":
        labels = np.roll(labels, 1)
        other = keras_vit.data.load((images, labels), image_size=8, batch_size=4)
        message = "data.fingerprint"
    elif change == "seed":
        other, message = dataclasses.replace(data, seed=1), "data.seed: 0 in"
    else:
        other, message = data.with_pipeline(batch_size=5), "pipeline.batch_size: 4 in"
    with pytest.raises(ValueError, match=message):
        fit(other, flat())


@pytest.mark.parametrize("part", ["backend", "devices"])
def test_another_machine_is_announced(tmp_path, caplog, part):
    interrupted(tmp_path, 9)
    path = newest(tmp_path)
    checkpoint = checkpoint_files.read(path)
    record = {**checkpoint.record, part: "other"}
    CheckpointFolder(tmp_path, 2).write(8, checkpoint.tensors, record)
    train(tmp_path)
    assert "not bit for bit" in caplog.text
    assert f"{part}: 'other' in the checkpoint" in caplog.text


@pytest.mark.skipif(BACKEND == "torch", reason="the checkpoint was written on torch")
def test_a_checkpoint_of_another_backend(tmp_path, caplog):
    """`interrupted(directory, 7)` on torch wrote it."""
    shutil.copytree(REFERENCE / "resume", tmp_path, dirs_exist_ok=True)
    path = newest(tmp_path)
    expected, seen = checkpoint_files.read(path).tensors, []

    class First(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append([array(v) for v in self.model.trainable_variables])

    result = train(tmp_path, [First()])
    assert result["epoch"].tolist() == [0, 1]
    assert len(seen) == 1
    for actual, (name, value) in zip(seen[0], weights_of(expected).items(), strict=True):
        np.testing.assert_array_equal(actual, value, err_msg=name)
    assert "not bit for bit" in caplog.text
    assert "backend: 'torch' in the checkpoint" in caplog.text


def weights_of(tensors):
    model = {name: value for name, value in tensors.items() if name.startswith("model/")}
    return {name: value for name, value in sorted(model.items()) if "seed" not in name}


@pytest.mark.one_backend
def test_more_epochs_are_announced(tmp_path, caplog):
    expected = train(tmp_path / "three", epochs=3)
    train(tmp_path / "run", epochs=2)
    assert_same(train(tmp_path / "run", epochs=3), expected)
    assert "started for 2 epochs and resumes for 3" in caplog.text


@pytest.mark.one_backend
def test_an_unknown_format_is_refused(tmp_path):
    interrupted(tmp_path, 3)
    checkpoint = checkpoint_files.read(newest(tmp_path))
    record = {**checkpoint.record, "format": 2}
    CheckpointFolder(tmp_path, 2).write(3, checkpoint.tensors, record)
    with pytest.raises(ValueError, match="in format 2, this version"):
        train(tmp_path)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    x = X.copy()
    x[6] = np.nan  # in step 4
    with pytest.raises(FloatingPointError, match=r"nan at step 4 .*step-00000002\.saf"):
        train(tmp_path, x=x)
    assert max(CheckpointFolder(tmp_path, 2).steps()) == 2


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    """The loss of the step that makes them is still finite."""

    def root(true, outputs):
        return keras.ops.mean(keras.ops.sqrt(outputs * 0))

    model = dense(loss=root)
    with pytest.raises(FloatingPointError, match="not finite at|loss is nan"):
        train(tmp_path, model=model, save_freq=1)
    assert list(CheckpointFolder(tmp_path, 2).steps()) == [0]


@pytest.fixture(autouse=True)
def in_a_terminal():
    """Ctrl-C interrupts, also if the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.one_backend
def test_a_signal_that_is_ignored_stays_so(tmp_path, whole):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    after = [At(3, lambda: signal.raise_signal(signal.SIGINT))]
    assert_same(train(tmp_path / "run", after), whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends(tmp_path, whole, number, code):
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    with pytest.raises(SystemExit) as end:
        # Before the callback of the training sees the end of the third step.
        train(tmp_path / "run", [At(2, lambda: signal.raise_signal(number))])
    assert end.value.code == code
    assert {n: signal.getsignal(n) for n in handlers} == handlers
    assert newest(tmp_path / "run").name == "step-00000003.safetensors"
    assert_same(train(tmp_path / "run"), whole)


@pytest.mark.one_backend
def test_a_second_signal_ends_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [At(3, twice)])


@pytest.mark.one_backend
def test_after_a_failed_training_signals_do_what_they_did(tmp_path):
    interrupted(tmp_path, 3)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_thread_catches_no_signals(tmp_path, whole):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tmp_path / "run")))
    thread.start()
    thread.join()
    assert_same(results[0], whole)


def test_what_callbacks_know_of_the_epochs_before(tmp_path):
    class Own(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.count = 0

        def on_epoch_end(self, epoch, logs=None):
            self.count += 1
            logs["count"] = self.count

        def resume_state(self):
            return {"count": self.count}

        def resume(self, state, epochs):
            self.count = state["count"]
            self.seen = [epoch for epoch, _ in epochs]

    def run(name, callbacks=()):
        own, stop = Own(), keras.callbacks.EarlyStopping("loss", patience=0, min_delta=9)
        csv = keras.callbacks.CSVLogger(tmp_path / f"{name}.csv")
        try:
            # The place in the list has no influence.
            train(tmp_path / name, [own, csv, stop, *callbacks], epochs=9)
        finally:
            table = (tmp_path / f"{name}.csv").read_text()
        return own, stop, table

    _, stop, expected = run("whole")
    assert stop.stopped_epoch == 1
    with pytest.raises(StruckError):
        run("run", [At(8, strike)])
    own, stop, table = run("run")
    assert (own.count, own.seen, stop.stopped_epoch) == (2, [0], 1)
    assert table == expected


def points(folder):
    """All that event files show: run, tag, step and value."""
    import tensorflow as tf

    found = []
    for path in Path(folder).rglob("*.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag != "keras":  # the graph, by each process
                    number = value.simple_value or tf.make_ndarray(value.tensor)
                    point = path.parent.name, value.tag, event.step, float(number)
                    found.append(point)
    return sorted(found)


def test_tensorboard_shows_each_step_once(tmp_path):
    def run(name, callbacks=()):
        ours = EventFiles(tmp_path / name / "ours")
        kerass = keras.callbacks.TensorBoard(tmp_path / name / "keras", update_freq=1)
        logs = {"validation_data": (X, Y), "epochs": 3}
        return train(tmp_path / name / "run", [ours, kerass, *callbacks], **logs)

    class DieAfterEpoch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                strike()

    run("whole")
    for death in (DieAfterEpoch(), At(3, strike)):
        with pytest.raises(StruckError):
            run("torn", [death])
    run("torn")
    numbers = {"ours": 3 * 2, "keras": 3 * (5 + 4)}
    if keras.__version__.startswith("3.14"):
        del numbers["keras"]  # whose TensorBoard counts batches anew before 3.15
    for kind, number in numbers.items():
        expected = points(tmp_path / "whole" / kind)
        assert len(expected) == number
        assert points(tmp_path / "torn" / kind) == expected


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (keras.callbacks.CSVLogger("x.csv", append=True), "append=True"),
        (keras.callbacks.EarlyStopping(restore_best_weights=True), "restore_best_weights"),
    ],
)
@pytest.mark.one_backend
def test_callbacks_that_cannot_go_on_are_refused(tmp_path, callback, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, [callback])


@pytest.mark.one_backend
def test_arguments(tmp_path):
    with pytest.raises(ValueError, match="`save_freq` must be"):
        ExactResume(tmp_path, 0)
    with pytest.raises(ValueError, match="`on_save_error` must be"):
        ExactResume(tmp_path, on_save_error="skip")
    with pytest.raises(ValueError, match="`data` must be a `keras_vit.data.ImageData`"):
        ExactResume(tmp_path, data=[1])
    with pytest.raises(ValueError, match="order it can repeat"):
        train(tmp_path, shuffle=True)


@pytest.mark.one_backend
def test_one_process_at_a_time(tmp_path):
    import filelock

    other = filelock.FileLock(tmp_path / ".lock")
    with other, pytest.raises(ValueError, match="Only one process can train in"):
        train(tmp_path)


def test_saves_do_not_change_the_training(tmp_path, caplog):
    caplog.set_level(logging.INFO, "keras_vit")
    assert SAVE_FREQ < STEPS
    first = train(tmp_path / "often", save_freq=1)
    assert_same(train(tmp_path / "seldom", save_freq="epoch"), first)
