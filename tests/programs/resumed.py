"""A tiny training with everything random in it, for tests of resuming.

As a program it is a nursery of such trainings: it imports all that takes long once, and
then trains in processes of its own, which it kills.
"""

import json
import os
import random
import signal
import sys
import time

import keras
import numpy as np

import keras_vit
from keras_vit.data import Augmentation
from keras_vit.training import ExactResume, SmallData, SwapAveragedWeights
from keras_vit.training.resume import checkpoint_files

EPOCHS, STEPS = 3, 12
SAVE_FREQ = 5  # batches; STEPS is no multiple
AUGMENTATION = Augmentation(crop="inception", flip=True, mixup_alpha=0.2)
RECIPE = SmallData.for_examples(
    30,
    steps=EPOCHS * STEPS // 2,
    warmup_steps=4,
    batch_size=8,
    micro_batch_size=4,
    base_learning_rate=3e-3,
    ema_momentum=0.7,
    dropout_rate=0.2,
    drop_path_rate=0.2,
    augmentation=AUGMENTATION,
)


def images():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    pixels = rng.uniform(0, 80, (30, 12, 12, 3)) + labels[:, None, None, None] * 80
    return pixels.astype("uint8"), labels


def load():
    return keras_vit.data.load(images(), validation_split=0.2)


def network(recipe=RECIPE, **arguments):
    fields = {"image_size": 8, "patch_size": 4, "hidden_dim": 8, "num_layers": 2}
    fields |= {"num_heads": 2, "mlp_dim": 16, "classes": 3, "classifier_activation": None}
    model = keras_vit.VisionTransformer(
        **{**fields, **recipe.model_arguments(), **arguments}
    )
    loss = recipe.loss_function(model)
    model.compile(recipe.optimizer(model), loss, metrics=["accuracy"])
    return model


def train(directory, callbacks=(), save_freq=SAVE_FREQ, recipe=RECIPE, **options):
    """Trains, or goes on, and returns all that the outcome is."""
    keras.utils.set_random_seed(7)
    model = network(recipe)
    data = keras_vit.training.prepare_data(load(), model, recipe)
    resume = []
    if directory is not None:
        resume = [ExactResume(directory, save_freq, data=data, **options)]
    history = model.fit(
        data.train,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        validation_data=data.validation,
        callbacks=[SwapAveragedWeights(), *resume, *callbacks],
        shuffle=False,
        verbose=0,
    )
    return outcome(model, history)


def outcome(model, history):
    """Every number, by name."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    arrays = {
        f"{group}/{i}": np.array(keras.ops.convert_to_numpy(v))
        for group, variables in groups.items()
        for i, v in enumerate(variables)
    }
    arrays |= {f"history/{k}": np.array(v) for k, v in history.history.items()}
    return {**arrays, "epoch": np.array(history.epoch)}


def assert_same(actual, expected):
    """Bit for bit."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name, strict=True)


class Heartbeat(keras.callbacks.Callback):
    """Tells the nursery of each step that has been trained."""

    def __init__(self, pipe):
        super().__init__()
        self.pipe = pipe

    def on_train_batch_end(self, batch, logs=None):
        os.write(self.pipe, b".")

    def on_test_batch_end(self, batch, logs=None):
        os.write(self.pipe, b"v")


def write_slowly():
    """Has saves take so long that kills fall into them."""
    write_array = checkpoint_files.write_array

    def slowly(file, array):
        file.flush()
        time.sleep(0.004)
        write_array(file, array)

    checkpoint_files.write_array = slowly


def live(folder, pipe, is_slow):
    """One life: the training to its end, if it comes there."""
    if is_slow:
        write_slowly()
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_compilation_cache_dir", os.path.join(folder, "..", "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    csv = keras.callbacks.CSVLogger(os.path.join(folder, "metrics.csv"))
    result = train(os.path.join(folder, "resume"), [Heartbeat(pipe), csv])
    np.savez(os.path.join(folder, "outcome.npz"), **result)


def give_birth(folder, is_slow=False):
    """A process that trains, and the end of a pipe on which it tells of its steps."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reads)
            live(folder, writes, is_slow)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writes)
    return pid, reads


def raise_up(folder):
    """An uninterrupted life."""
    pid, reads = give_birth(folder)
    while os.read(reads, 1):
        pass
    os.close(reads)
    return os.waitpid(pid, 0)[1]


def kill_after(folder, beats, delay, is_slow):
    """A life that is killed after so many steps and seconds, or in the next save where
    saves are slow: what it did, what it left half, its signal.
    """
    pid, reads = give_birth(folder, is_slow)
    seen = b""
    while len(seen) < beats:
        beat = os.read(reads, 1)
        if not beat:
            break
        seen += beat
    time.sleep(delay)
    while is_slow and not parts(folder) and not os.waitid(os.P_PID, pid, ENDED):
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    os.close(reads)
    told = {"beats": seen.decode(), "delay": delay, "signal": status & 127}
    return {**told, "half": parts(folder)}


ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def parts(folder):
    """Files that are being written, or were when their process was killed."""
    return [name for name in os.listdir(os.path.join(folder, "resume")) if ".part" in name]


def main(folder, kills, seed):
    """Writes what became of an uninterrupted life and of one that was killed often."""
    rng = random.Random(seed)
    whole, torn = os.path.join(folder, "whole"), os.path.join(folder, "torn")
    for path in (whole, torn):
        os.makedirs(os.path.join(path, "resume"))
    start = time.time()
    assert raise_up(whole) == 0
    lives = [{"whole": time.time() - start}]
    beats = max(SAVE_FREQ, EPOCHS * STEPS // kills) + 1
    for i in range(kills):
        # Every other one while a checkpoint is being written.
        kill = rng.randint(SAVE_FREQ if i % 2 else 1, beats), rng.uniform(0, 0.05)
        lives.append(kill_after(torn, *kill, is_slow=bool(i % 2)))
    lives.append({"status": raise_up(torn), "end": time.time() - start})
    with open(os.path.join(folder, "lives.json"), "w") as file:
        json.dump(lives, file)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
