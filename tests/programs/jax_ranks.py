"""Tiny trainings, for tests of processes that train together on JAX.

As a program, one process of several, it does those of a stage and writes what came of
them.
"""

import logging
import os
import pickle
import signal
import sys

import keras
import numpy as np
import pytest
from torch_ranks import IMAGES, LABELS, PIXELS, RECIPE, answer

import keras_vit
from keras_vit.distribution import (
    checks,
    fully_sharded,
    initialize,
    jax_processes,
    layouts,
    num_processes,
    process_index,
    strategy,
)
from keras_vit.runs import Checkpoints
from keras_vit.training import ExactResume

TIMEOUT = 15  # seconds until a process that is silent counts as dead


def vit(**fields):
    fields = {"classes": 3, "classifier_activation": None, **fields}
    return keras_vit.VisionTransformer(8, 4, 32, 1, 4, 64, **fields)


class Losses(keras.callbacks.Callback):
    def __init__(self, ends_after=None, signal_number=signal.SIGKILL):
        super().__init__()
        self.of_steps = []
        self.ends_after = ends_after
        self.signal_number = signal_number

    def on_train_batch_end(self, batch, logs=None):
        self.of_steps.append(float(logs["loss"]))
        if len(self.of_steps) == self.ends_after and process_index() == 1:
            os.kill(os.getpid(), self.signal_number)


def outcome(model, losses, history, **more):
    optimizer = model.optimizer.variables
    return {
        "losses": losses.of_steps,
        "history": history.history,
        "weights": [jax_processes.gather_array(v.value) for v in model.weights],
        "optimizer": [jax_processes.gather_array(v.value) for v in optimizer],
        **more,
    }


def by_hand(folder, dtype="float32"):
    """NumPy arrays that `fit` shuffles, a metric of the whole, and a last batch that does
    not divide.
    """
    keras.utils.set_random_seed(3)
    model = vit(classifier_activation="softmax", dtype=dtype)
    model.compile(
        keras.optimizers.SGD(0.05, 0.9),
        keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy", keras.metrics.AUC(name="auc")],
    )
    losses, one_hot = Losses(), np.eye(3)[LABELS]
    path = os.path.join(folder, f"{num_processes()}-{process_index()}")
    history = model.fit(
        PIXELS,
        one_hot,
        batch_size=8,  # of which the last of 22 has six images, for four devices
        epochs=2,
        validation_data=(PIXELS[:5], one_hot[:5]),
        callbacks=[losses, keras.callbacks.CSVLogger(f"{path}.csv")],
        verbose=0,
    )
    return outcome(
        model,
        losses,
        history,
        predictions=model.predict(PIXELS, batch_size=8, verbose=0),
        evaluation=model.evaluate(PIXELS, one_hot, batch_size=5, verbose=0),
    )


def by_hand_in_bfloat16(folder):
    return by_hand(folder, "mixed_bfloat16")


def finetuned(folder, name="run", callbacks=(), resume=None, save_freq="epoch", **options):
    """A recipe with all that is random, clipping, accumulation, averages."""
    keras.utils.set_random_seed(3)
    recipe = RECIPE.replace(batch_size=16, micro_batch_size=8, dropout_rate=0.2, **options)
    data = keras_vit.data.load((IMAGES.astype("uint8"), LABELS), validation_split=0.3)
    model = vit(**recipe.model_arguments())
    losses = next((c for c in callbacks if isinstance(c, Losses)), Losses())
    saves = []
    if resume:
        configured = keras_vit.training.prepare_data(data, model, recipe)
        saves = [ExactResume(os.path.join(folder, resume), save_freq, data=configured)]
    history = keras_vit.training.finetune(
        model,
        data,
        recipe,
        evaluations=3,
        callbacks=list({id(c): c for c in (*saves, losses, *callbacks)}.values()),
        verbose=0,
    )
    data = keras_vit.training.prepare_data(data, model, recipe)
    stream = data.evaluation("validation")
    predictions = model.predict(stream, verbose=0)
    evaluation = model.evaluate(stream, verbose=0)
    return outcome(model, losses, history, predictions=predictions, evaluation=evaluation)


def saved(folder):
    """The whole of it under full sharding, with the files of a run."""
    os.makedirs(os.path.join(folder, "run"), exist_ok=True)
    files = [Checkpoints(os.path.join(folder, "run"))]
    return finetuned(folder, callbacks=files, resume="whole", save_freq=5)


def terminated(folder):
    """Told to end, in one of the processes; both do after the same step."""
    with pytest.raises(SystemExit) as end:
        finetuned(folder, callbacks=[Losses(6, signal.SIGTERM)], resume="terminated")
    assert end.value.code == 75


def gone_on(folder):
    return finetuned(folder, resume="terminated")


def killed(folder):
    finetuned(folder, callbacks=[Losses(10)], resume="split", save_freq=3)


def revived(folder):
    return finetuned(folder, resume="split", save_freq=3)


def reopened(folder):
    """A file of a whole model, as one that is split."""
    model = keras_vit.from_pretrained(os.path.join(folder, "run", "last.keras"))
    assert any(not jax_processes.is_complete(weight.value) for weight in model.weights)
    return [jax_processes.gather_array(weight.value) for weight in model.weights]


def refusals(folder):
    """Errors of each way to train apart, or on half of the model."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def fit(images=PIXELS[:16], batch_size=8, seed=0, **options):
        keras.utils.set_random_seed(seed)
        model = vit()
        model.compile("sgd", loss)
        labels = LABELS[: len(images)]
        model.fit(images, labels, batch_size, verbose=0, shuffle=False, **options)

    def outside():
        with strategy("none"):
            keras.distribution.set_distribution(None)
            fit()

    def tuned_outside():
        keras.distribution.set_distribution(None)
        data = keras_vit.data.load((IMAGES.astype("uint8"), LABELS))
        keras_vit.training.finetune(vit(), data)

    def on_batch():
        keras.utils.set_random_seed(0)
        model = vit()
        model.compile("sgd", loss)
        model.train_on_batch(PIXELS[:8], LABELS[:8])

    def padded():
        model = vit()
        model.compile("sgd", loss, metrics=["accuracy"])
        data = keras_vit.data.load((IMAGES[:5].astype("uint8"), LABELS[:5]))
        model.evaluate(data.prepared_for(model, batch_size=8).evaluation("train"))

    def split():
        with fully_sharded().scope():
            path = os.path.join(folder, "model.weights.h5")
            saver = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
            fit(callbacks=[saver])

    def saved_alone():
        with fully_sharded().scope():
            vit().save(os.path.join(folder, "model.keras"))

    attempts = {
        "saved alone": saved_alone,
        "batches": lambda: fit(PIXELS[:16] + process_index()),
        "metrics": padded,
        "seeds": lambda: fit(seed=process_index()),
        "on_batch": on_batch,
        "split": split,
        "again": initialize,
        "backup": lambda: fit(callbacks=[keras.callbacks.BackupAndRestore(folder)]),
    }
    found = {}
    with strategy("auto"):
        for name, attempt in attempts.items():
            found[name] = answer(attempt)
    found["outside"] = answer(outside)
    found["tuned outside"] = answer(tuned_outside)
    return found


# By stage: what is done under which strategy.
STAGES = {
    "first": [
        (by_hand, "auto"),
        (by_hand_in_bfloat16, "fully_sharded"),
        (finetuned, "data_parallel"),
        (finetuned, "tensor_parallel:4"),
        (saved, "fully_sharded"),
        (refusals, "none"),
    ],
    "killed": [(terminated, "auto"), (killed, "fully_sharded")],
    "revived": [
        (gone_on, "auto"),
        (revived, "fully_sharded"),
        (reopened, "fully_sharded"),
    ],
}


def main(folder, stage):
    initialize(timeout=TIMEOUT)
    layouts.MIN_SIZE = checks.MIN_SIZE = 256  # as the models are tiny
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("keras_vit").addHandler(handler)
    found = {"said": said}
    for function, name in STAGES[stage]:
        with strategy(name):
            found[function.__name__, name] = function(folder)
    path = os.path.join(folder, f"{stage}-{process_index()}.pickle")
    with open(path, "wb") as file:
        pickle.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
