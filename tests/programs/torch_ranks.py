"""Tiny trainings, for tests of processes that train together on torch.

As a program under `torchrun` it does them all and writes what came of them.
"""

import os
import pickle
import signal
import sys

import keras
import numpy as np
from trainings import commands, distilled, images, pretraining

import keras_vit
from keras_vit.cli import main as main_of_command
from keras_vit.data import Augmentation
from keras_vit.distribution import num_processes, process_index, strategy
from keras_vit.training import ExactResume, SmallData, ViTFineTuning

RNG = np.random.default_rng(0)
LABELS = np.arange(22) % 3
IMAGES = RNG.uniform(0, 80, (22, 8, 8, 3)) + LABELS[:, None, None, None] * 80
PIXELS = (IMAGES / 255).astype("float32")
WEIGHTS = RNG.uniform(0.5, 2, 22).astype("float32")
RECIPE = ViTFineTuning(
    steps=6,
    batch_size=12,
    micro_batch_size=6,
    base_learning_rate=0.3,
    warmup_steps=1,
    image_size=8,
    ema_momentum=0.5,
    layerwise_decay=0.8,
    global_clipnorm=0.1,
    augmentation=Augmentation(crop="inception", flip=True, mixup_alpha=0.3),
)


def vit(**fields):
    fields = {"classes": 3, "classifier_activation": None, **fields}
    return keras_vit.VisionTransformer(8, 4, 16, 1, 2, 32, **fields)


class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.of_steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.of_steps.append(float(logs["loss"]))


def outcome(model, losses, history, predictions=None):
    weights = [keras.ops.convert_to_numpy(w) for w in model.weights]
    found = {"losses": losses.of_steps, "history": history.history, "weights": weights}
    return found if predictions is None else {**found, "predictions": predictions}


def by_hand(folder):
    """Arrays that `fit` shuffles, partial batches, a regularizer, weights of examples."""
    keras.utils.set_random_seed(3 + process_index())  # the first one's is everyone's
    inputs = keras.Input((8, 8, 3))
    features = vit(classes=0)(inputs)
    outputs = keras.layers.Dense(3, "softmax", kernel_regularizer="l2")(features)
    model = keras.Model(inputs, outputs)
    # Adam with a small epsilon makes a large step of a gradient that is but rounding.
    model.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-3),
        keras.losses.CategoricalCrossentropy(reduction="sum"),
        metrics=["accuracy", keras.metrics.AUC()],
        weighted_metrics=["accuracy"],
    )
    losses, one_hot = Losses(), np.eye(3)[LABELS]
    path = os.path.join(folder, f"{num_processes()}-{process_index()}")
    files = [
        keras.callbacks.CSVLogger(f"{path}.csv"),
        keras.callbacks.ModelCheckpoint(f"{path}.weights.h5", save_weights_only=True),
    ]
    history = model.fit(
        PIXELS,
        one_hot,
        sample_weight=WEIGHTS,
        batch_size=7,  # of which the last of 22 has one image
        epochs=3,
        validation_data=(PIXELS[:5], one_hot[:5]),
        callbacks=[losses, *files],
        verbose=0,
    )
    predictions = model.predict(PIXELS, batch_size=7, verbose=0)
    found = outcome(model, losses, history, predictions)
    found["evaluation"] = model.evaluate(PIXELS, one_hot, batch_size=7, verbose=0)
    return found


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return PIXELS[index * 8 : index * 8 + 8], LABELS[index * 8 : index * 8 + 8]


def other_data(folder):
    """A PyDataset, tf.data and torch's loader, of a model once wrapped for nothing."""
    import tensorflow as tf
    import torch

    keras.utils.set_random_seed(3)
    model = vit()
    if num_processes() > 1:
        torch.nn.parallel.DistributedDataParallel(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, 0.9), loss)
    losses = Losses()
    tensors = torch.utils.data.TensorDataset(torch.tensor(PIXELS), torch.tensor(LABELS))
    stream = tf.data.Dataset.from_tensor_slices((PIXELS, LABELS)).shuffle(22, seed=1)
    loader = torch.utils.data.DataLoader(tensors, 4)
    for data in (Batches(), stream.batch(5), loader):
        history = model.fit(data, callbacks=[losses], shuffle=False, verbose=0)
    return outcome(model, losses, history)


def finetuned(folder, policy="float32", **options):
    """A recipe with clipping, accumulation, averages; images mixed, layer-wise rates."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(3 + process_index())
    recipe = RECIPE.replace(**options)
    data = keras_vit.data.load((IMAGES.astype("uint8"), LABELS), validation_split=0.3)
    model, losses = vit(**recipe.model_arguments()), Losses()
    history = keras_vit.training.finetune(
        model, data, recipe, evaluations=3, callbacks=[losses], verbose=0
    )
    data = keras_vit.training.prepare_data(data, model, recipe)
    keras.config.set_dtype_policy("float32")
    return outcome(model, losses, history, model.predict(data.validation, verbose=0))


def in_bfloat16(folder):
    return finetuned(folder, "mixed_bfloat16")


def pretrained(folder, kind="masked"):
    """A model with a loss of its own, of images without labels."""
    keras.utils.set_random_seed(3 + process_index())
    (model, rows), losses = pretraining(kind), Losses()
    history = model.fit(rows, epochs=3, batch_size=8, callbacks=[losses], verbose=0)
    return outcome(model, losses, history)


def taught(folder):
    """A student of a teacher, on batches that two processes do not divide."""
    keras.utils.set_random_seed(3)
    model, losses = distilled(), Losses()
    pixels, labels = images()["train"]
    options = {"epochs": 3, "batch_size": 7, "callbacks": [losses], "verbose": 0}
    history = model.fit(pixels / np.float32(255), labels, **options)
    return outcome(model, losses, history)


def predicting(folder):
    return pretrained(folder, "predicting")


def distilling(folder):
    return pretrained(folder, "distilling")


def with_dropout(folder):
    return finetuned(folder, dropout_rate=0.2, drop_path_rate=0.2)


def masks(folder):
    """Ones after dropout, for all rows of a batch, by step and by kind."""
    found = []
    for seed in (None, 1):
        inputs = keras.Input((64,))
        ones = keras.layers.Dense(64, kernel_initializer="identity")(inputs)
        model = keras.Model(inputs, keras.layers.Dropout(0.5, seed=seed)(ones))
        seen = []

        def loss(y, y_pred, seen=seen):
            if y_pred.device.type != "meta":
                seen.append(y_pred.detach().numpy() > 0)
            return keras.ops.mean(y_pred, axis=-1)

        model.compile(keras.optimizers.SGD(0.0), loss)
        model.fit(np.ones((8, 64)), np.ones((8, 64)), epochs=2, verbose=0)
        found.append(seen)
    return found


def refusals(folder):
    """Errors of each way to train apart."""
    import torch

    parallel = torch.nn.parallel.DistributedDataParallel
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    data = keras_vit.data.load((IMAGES.astype("uint8"), LABELS), validation_split=0.3)

    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    def fit(model, images=PIXELS, **options):
        model.compile("sgd", loss, jit_compile=options.pop("jit_compile", False))
        model.fit(images, LABELS, verbose=0, shuffle=False, **options)

    def flat(*layers, kind=keras.Sequential):
        layers = (*layers, keras.layers.Flatten(), keras.layers.Dense(3))
        return kind([keras.Input((8, 8, 3)), *layers])

    torch_layer = keras.layers.TorchModuleWrapper(parallel(torch.nn.Linear(3, 3)))
    backup = keras.callbacks.BackupAndRestore(folder)
    attempts = {
        "wrapped": lambda: keras_vit.training.finetune(parallel(vit()), data),
        "inside": lambda: fit(flat(torch_layer)),
        "train_step": lambda: fit(flat(kind=Own)),
        "norm": lambda: fit(flat(keras.layers.BatchNormalization(name="norm"))),
        "penalty": lambda: fit(
            flat(keras.layers.ActivityRegularization(0.1)), batch_size=11
        ),
        "unbuilt": lambda: fit(
            keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
        ),
        "compiled": lambda: fit(flat(), jit_compile=True),
        "backup": lambda: fit(flat(), callbacks=[backup]),
        "batches": lambda: fit(flat(), PIXELS + process_index()),
        "models": lambda: fit(flat(*[keras.layers.Dense(3)] * process_index())),
        "callback": lambda: fit(flat(), callbacks=[Apart()]),
        "on_batch": lambda: vit().train_on_batch(PIXELS, LABELS),
        "divide": lambda: keras_vit.training.finetune(
            vit(), data, SmallData.for_examples(16, batch_size=5)
        ),
    }
    return {name: answer(attempt) for name, attempt in attempts.items()}


class Apart(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        weight = self.model.weights[0]
        weight.assign(weight + process_index())


def outside():
    """The same, where the context has been left."""
    model = vit()
    model.compile("sgd", "mse")
    data = keras_vit.data.load((IMAGES.astype("uint8"), LABELS))
    return {
        "fit": answer(lambda: model.fit(PIXELS, LABELS, verbose=0)),
        "finetune": answer(lambda: keras_vit.training.finetune(model, data)),
    }


def answer(attempt):
    try:
        attempt()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def resumed(folder, name="whole", mark=None):
    """A training with everything random in it, that may be killed in its second epoch."""

    class Killer(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            if mark and self.steps == 8 and process_index() == 1:
                open(mark, "x").close()
                os.kill(os.getpid(), signal.SIGKILL)

    keras.utils.set_random_seed(7)
    augmentation = Augmentation(crop="inception", flip=True, mixup_alpha=0.2)
    model = vit(dropout_rate=0.2, drop_path_rate=0.2)
    data = keras_vit.data.load((IMAGES.astype("uint8"), LABELS), validation_split=0.3)
    data = data.prepared_for(model, batch_size=4, augmentation=augmentation)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    losses = Losses()
    resume = ExactResume(os.path.join(folder, name), 3, data=data)
    history = model.fit(
        data.train,
        epochs=3,
        steps_per_epoch=5,
        validation_data=data.validation,
        callbacks=[resume, losses, Killer()],
        shuffle=False,
        verbose=0,
    )
    return outcome(model, losses, history)


def uneven_rows(folder):
    import uneven

    return uneven.everything()


def refused_command(folder):
    """The status of a command whose batches do not divide, and whether it left a folder."""
    output = os.path.join(folder, "refused")
    given = ["finetune", os.path.join(folder, "photos"), "--recipe", "vit", "--steps", 1]
    given += ["--weights", os.path.join(folder, "small.keras"), "--image-size", 16]
    given += ["--batch-size", 5, "--output", output]
    return main_of_command([str(word) for word in given]), os.path.exists(output)


COMPARED = (by_hand, other_data, finetuned, in_bfloat16)
COMPARED += (pretrained, predicting, distilling, taught)
TOGETHER = (uneven_rows, with_dropout, masks, refusals, resumed)


def main(folder):
    """All of it; then a training that is killed, and goes on when torchrun restarts it."""
    together = strategy("auto")
    together.timeout = 60  # seconds, of ten minutes
    with together:
        mark = os.path.join(folder, "has died")
        if os.path.exists(mark):
            mark = None
        else:
            found = {f.__name__: f(folder) for f in (*COMPARED, *TOGETHER)}
            write(folder, "all", found)
        found = resumed(folder, "killed", mark)
    found = {"resumed": found, "outside": outside()}
    found["refused command"] = refused_command(folder)
    found["commands"] = commands(folder, ["auto"], ended="auto")
    write(folder, "killed", found)


def write(folder, name, found):
    with open(os.path.join(folder, f"{name}-{process_index()}.pickle"), "wb") as file:
        pickle.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
