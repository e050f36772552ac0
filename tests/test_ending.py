"""Programs in processes of their own, each of which must end, whatever ends it: with images
of a size at which the threads of `tf.data` are always at work."""

import functools
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import tiny
from PIL import Image

from keras_vit.data import ending, load, streams

pytest.importorskip("tensorflow_datasets")

BEGIN = 400  # seconds until a program says that it comes to its end; machines can be busy
END = 60  # seconds until it is gone, then
INTERRUPTED = 130

IMPORTS = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
import keras, keras_vit
"""
DATA = """
data = keras_vit.data.load({folder!r}, batch_size=8)
iterator = iter(data.train)
next(iterator)
"""
MODEL = """
model = keras_vit.VisionTransformer(
    32, 16, 16, 1, 2, 32, classes=2, classifier_activation=None
)
model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
small = data.prepared_for(model)
"""
COMMAND = """
from keras_vit.cli import main
from keras_vit.data import streams

read = streams._read_now

def slowly(*args):
    print("reads", flush=True)
    time.sleep(0.05)
    return read(*args)

streams._read_now = slowly
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve images of 700 × 700 in each of two classes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in "ab":
        (folder / name).mkdir()
        for number in range(12):
            noise = rng.integers(0, 255, (700, 700, 3), "uint8")
            Image.fromarray(noise).save(folder / name / f"{number}.jpg")
    return str(folder)


def _until(process, seconds, says=None):
    """The output of a process up to a line, or to its end; a late one is killed.

    So are its children, which otherwise keep its output open.
    """
    kill = functools.partial(os.killpg, process.pid, signal.SIGKILL)
    lines, impatience = [], threading.Timer(seconds, kill)
    impatience.start()
    for line in process.stdout:
        lines.append(line)
        if says is not None and line.startswith(says):
            break
    else:
        process.wait()
    impatience.cancel()
    return "".join(lines)


@pytest.fixture
def ended(folder):
    """Runs a program and gives its status and what it said.

    After the line that begins with `says`, with which it comes to its end, it is sent the
    signals. It has `END` seconds from there.
    """

    def ended(*parts, says="ends", signals=(), arguments=()):
        program = "".join((IMPORTS, *parts)).replace("{folder!r}", repr(folder))
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        output = _until(process, BEGIN, says)
        for number in signals:
            process.send_signal(number)
        output += _until(process, END)
        return process.wait(), output

    return ended


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.keras"
    tiny(num_layers=1, hidden_dim=16, num_heads=2, mlp_dim=16, classes=2).save(path)
    return path


def finetune(folder, checkpoint, run):
    given = ("--batch-size", 8, "--steps", 100_000, "--evaluations", 1)
    return ("finetune", folder, "--output", run, "--weights", checkpoint, *given)


# On each backend: what it does with iterators itself.


def test_an_error_in_fit_while_everything_is_read(ended):
    """Iterators of `fit`, in a traceback, of another thread, and of the program's own."""
    status, output = ended(
        DATA,
        MODEL,
        """
own = [iter(data.train.map(lambda *batch: batch).take(999)) for _ in range(2)]
threading.Thread(target=list, args=[small.train.ignore_errors()], daemon=True).start()

class Callback(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            print("ends", flush=True)
            raise RuntimeError("of my own")

fitted = {"steps_per_epoch": 10**6, "shuffle": False, "verbose": 0}
model.fit(small.train, **fitted, callbacks=[Callback()])
""",
    )
    assert (status, "RuntimeError: of my own" in output) == (1, True), output


def test_ctrl_c_while_batches_are_predicted_and_evaluated(ended):
    status, output = ended(
        DATA,
        MODEL,
        """
model.features(next(iterator)[0][:, :32, :32].numpy())
# Made once: TensorFlow may swallow a Ctrl-C as it traces the functions of a stream.
images = small.validation
model.predict(images, verbose=0)
try:
    while True:
        model.evaluate(images, verbose=0)
        print("ends", flush=True)
except KeyboardInterrupt:
    sys.exit(130)
""",
        signals=[signal.SIGINT],
    )
    assert status == INTERRUPTED, output


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_to_finetune(ended, folder, checkpoint, tmp_path, number, status):
    """Wherever it is, from its first image on."""
    arguments = finetune(folder, checkpoint, tmp_path / "run")
    given = {"says": "model" if number == signal.SIGTERM else "reads"}
    actual, output = ended(COMMAND, arguments=arguments, signals=[number], **given)
    assert actual == status, output


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own")
def test_an_error_on_mirrored_devices(ended):
    status, output = ended(
        """
import tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
""",
        DATA,
        """
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
distributed = iter(strategy.experimental_distribute_dataset(data.train))
next(distributed)
print("ends", flush=True)
1 / 0
""",
    )
    assert (status, "ZeroDivisionError" in output) == (1, True), output


# On one: what Python does.


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        (
            """
import builtins, gc
builtins.kept = iter(data.train)
gc.freeze()

def batches():
    yield from data.train

batches = batches()
next(batches)

class Cycle:
    pass

cycle = Cycle()
cycle.itself, cycle.iterator = cycle, iter(data.validation)
next(cycle.iterator)
del cycle
raise SystemExit(5)
""",
            5,
        ),
    ],
)
def test_an_iterator_that_is_alive_at_the_end(ended, end, status):
    actual, output = ended(DATA, "print('ends', flush=True)\n", end)
    assert actual == status, output
    assert "Traceback" not in output


@pytest.mark.one_backend
def test_what_is_read_at_the_end(ended):
    """The program has registered its reader after its first stream."""
    status, output = ended(
        DATA,
        """
import atexit
atexit.register(lambda: print("at the end", next(iterator)[0].shape, flush=True))
print("ends", flush=True)
""",
    )
    assert (status, "at the end (8, 224, 224, 3)" in output) == (0, True), output


@pytest.mark.one_backend
def test_a_forked_process(ended):
    """It ends, as its parent does, and cannot read its parent's iterator.

    Nothing is promised of a new stream there: a lock of TensorFlow may be held for ever by a
    thread that only the parent has.
    """
    status, output = ended(
        DATA,
        """
pid = os.fork()
if not pid:
    try:
        next(iterator)
    except RuntimeError as error:
        print(error, flush=True)
    del iterator
    sys.exit(7)
status = os.waitpid(pid, 0)[1] >> 8
next(iterator)
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=sys.exit, args=[8])
child.start()
child.join()

def fork_often():
    for _ in range(10):
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)

other = threading.Thread(target=fork_often)
other.start()
while other.is_alive():  # it disturbs nothing that this thread is making
    tuple(i for i in range(100_000))
print("ends", flush=True)
sys.exit(status + child.exitcode)
""",
    )
    assert status == 15, output
    assert "cannot read an iterator of its parent" in output


@pytest.mark.one_backend
def test_a_spawned_process(folder, tmp_path, ended):
    (tmp_path / "child.py").write_text(
        f"""
import keras_vit

def read():
    global iterator
    iterator = iter(keras_vit.data.load({folder!r}, batch_size=8).train)
    next(iterator)
    print("ends", flush=True)
"""
    )
    status, output = ended(
        f"""
import multiprocessing
sys.path.append({str(tmp_path)!r})
import child
child = multiprocessing.get_context("spawn").Process(target=child.read)
child.start()
child.join()
sys.exit(child.exitcode + 3)
"""
    )
    assert status == 3, output


@pytest.mark.one_backend
def test_a_second_ctrl_c_in_finetune(ended, folder, checkpoint, tmp_path):
    given = finetune(folder, checkpoint, tmp_path / "run")
    signals = [signal.SIGINT, signal.SIGINT]
    status, output = ended(COMMAND, arguments=given, says="model", signals=signals)
    assert status == INTERRUPTED, output


@pytest.mark.one_backend
def test_ctrl_c_in_evaluate_and_predict(ended, folder, checkpoint):
    given = {"says": "reads", "signals": [signal.SIGINT]}
    status, output = ended(COMMAND, arguments=("evaluate", checkpoint, folder), **given)
    assert (status, "interrupted" in output) == (INTERRUPTED, True), output
    arguments = ("predict", checkpoint, "--json", "--batch-size", 1, *[folder] * 99)
    given["says"] = "{"
    status, output = ended(COMMAND, arguments=arguments, **given)
    assert (status, "interrupted" in output) == (INTERRUPTED, True), output


@pytest.mark.one_backend
def test_a_loss_that_is_no_number_in_finetune(ended, folder, checkpoint, tmp_path):
    given = (*finetune(folder, checkpoint, tmp_path / "run"), "--base-learning-rate", 1e30)
    status, output = ended(COMMAND, arguments=given, says="keras-vit: error: ")
    assert status == 2, output


@pytest.mark.one_backend
def test_an_iterator_collected_in_a_call_of_its_own(ended):
    """Its destructor waits for that call, so it must run in another thread."""
    status, output = ended(
        """
import gc, itertools, weakref
from keras_vit.data import streams

gc.disable()  # but for the one collection
read, reads = streams._read_now, itertools.count(1)
lost, collected = threading.Event(), threading.Event()

def collecting(*args):
    mine = next(reads)
    if mine > 16:  # after the first batch, whichever of two calls counts first
        lost.wait()
    if mine == 17:  # one collects; a second would find a collection that runs
        gc.collect()
        collected.set()
    return read(*args)

streams._read_now = collecting
data = keras_vit.data.load({folder!r}, batch_size=8, num_parallel_calls=2)

class Cycle:
    pass

class Mark:
    pass

cycle = Cycle()
cycle.itself, cycle.iterator = cycle, iter(data.train)
next(cycle.iterator)
cycle.iterator.mark = Mark()  # the last attribute goes when the iterator is destroyed
mark = weakref.ref(cycle.iterator.mark)
del cycle
lost.set()
print("ends", flush=True)
if not collected.wait(20):
    sys.exit("the collection waits for its own call")
for _ in range(200):
    if mark() is None:
        sys.exit(4)
    time.sleep(0.1)
sys.exit("the iterator is never destroyed")
""",
    )
    assert status == 4, output
    assert "Traceback" not in output


# In this process.


@pytest.fixture
def data(folder):
    return load(folder, batch_size=8, image_size=32)


@pytest.mark.one_backend
def test_iterators_that_a_generator_or_a_traceback_holds_are_known(data):
    def batches():
        yield from data.train

    def fails():
        iterator = iter(data.validation)
        raise ValueError(next(iterator)[0].shape)

    before = ending._iterators()
    generator = batches()
    next(generator)
    with pytest.raises(ValueError, match="32, 32, 3") as error:
        fails()
    held_by_user = iter(data.train.map(lambda *batch: batch).prefetch(1))
    known = [x for x in ending._iterators() if not any(x is y for y in before)]
    assert len(known) == 3
    assert known[1] is error.traceback[-1].frame.f_locals["iterator"]
    assert known[2] is held_by_user


@pytest.mark.one_backend
def test_iterators_that_are_gone_are_forgotten(data):
    before = len(ending._known)
    iterator = iter(data.train)
    assert len(ending._known) == before + 1
    del iterator
    assert len(ending._known) == before


@pytest.mark.one_backend
def test_no_stream_is_tuned(data):
    shards = [
        data.evaluation("validation", padded=padded).keras_vit_shard(0, 2)[0]
        for padded in (False, True)
    ]
    all_streams = [
        *(data.train, data.train_from(3), data.train.keras_vit_shard(0, 2)[0]),
        *(data.validation, data.evaluation("validation", padded=True), *shards),
        data.train.map(lambda *batch: batch).prefetch(1),  # nor what is made of one
    ]
    assert not any(stream.options().autotune.enabled is not False for stream in all_streams)
    assert streams._parallel(data.pipeline)["num_parallel_calls"] > 0


@pytest.mark.one_backend
def test_a_tensorflow_without_the_class_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "keras_vit"):
        assert ending._iterator_class("iterator_ops", "GoneIterator") is None
        assert ending._iterator_class("gone_ops", "OwnedIterator") is None
    assert len(caplog.records) == 2
    assert "has no `gone_ops.OwnedIterator`" in caplog.text
