"""Tiny trainings on batches that devices do not divide, for tests of what comes of them."""

import importlib.util
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
from torch_ranks import IMAGES, LABELS, PIXELS, WEIGHTS

import keras_vit
from keras_vit.distribution import barrier, is_first_process, strategy
from keras_vit.distribution.processes import broadcast
from keras_vit.evaluation import extract_features
from keras_vit.evaluation.feature_files import FeatureWriter

ONE_HOT = np.eye(3, dtype="float32")[LABELS]
TOKENS = np.random.default_rng(1).integers(0, 3, (22, 5))  # of which 0 is masked
ROWS, BATCH = 11, 8
HAS_TORCH = importlib.util.find_spec("torch") is not None
SHARE = "mean_with_sample_weight"


def classifier(inner=keras.layers.Flatten, reduction="sum_over_batch_size", **options):
    """With a penalty, a clipped gradient, and metrics that count and that rank."""
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(3, kernel_regularizer="l2")(inner()(inputs))
    return _compiled(
        keras.Model(inputs, outputs),
        keras.losses.CategoricalCrossentropy(from_logits=True, reduction=reduction),
        metrics=[
            *("accuracy", keras.metrics.TruePositives(thresholds=0, name="count")),
            keras.metrics.AUC(from_logits=True, name="auc"),
        ],
        weighted_metrics=["accuracy"],
        **options,
    )


def vit():
    """An encoder as a layer."""
    fields = {"classes": 0, "dtype": keras.config.dtype_policy()}
    return keras_vit.VisionTransformer(8, 4, 16, 1, 2, 32, **fields)


def masked():
    """A loss for each token, where there is one."""
    inputs = keras.Input((5,))
    tokens = keras.layers.Embedding(3, 4, mask_zero=True)(inputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return _compiled(keras.Model(inputs, keras.layers.Dense(3)(tokens)), loss)


def two_headed():
    """Two outputs with a loss each."""
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.Flatten()(inputs)
    outputs = [keras.layers.Dense(3, name=name)(features) for name in ("first", "second")]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    return _compiled(keras.Model(inputs, outputs), [loss, "mse"], loss_weights=[1, 0.5])


def _compiled(model, loss, **options):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(scale=0.2, size=weight.shape))
    model.compile(keras.optimizers.SGD(0.1, global_clipnorm=0.5), loss, **options)
    return model


def remainders():
    """Results of training and scoring with each number of rows left at the end."""
    model, found = classifier(), {}
    start = model.get_weights()
    for left in range(1, BATCH):
        model.set_weights(start)
        rows = slice(0, BATCH + left)
        given = (PIXELS[rows], ONE_HOT[rows])
        found[f"{left} left"] = trained(model, given, sample_weight=WEIGHTS[rows])
    found["predicted"] = [model.predict(PIXELS[:ROWS], batch_size=BATCH, verbose=0)]
    return found


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(index * BATCH, min((index + 1) * BATCH, ROWS))
        return PIXELS[rows], ONE_HOT[rows], WEIGHTS[rows]


def kinds():
    """The same by kind of data, and by what is unusual in a loss."""
    import tensorflow as tf

    arrays = (PIXELS[:ROWS], ONE_HOT[:ROWS], WEIGHTS[:ROWS])
    x, y, weights = arrays
    stream = tf.data.Dataset.from_tensor_slices(arrays)
    labels, classes = {"sample_weight": weights}, {"class_weight": {0: 1, 1: 2, 2: 0.5}}
    model = classifier()
    start = model.get_weights()
    data = {
        "class weights": ((x, y), classes),
        "tf.data": ((stream.batch(BATCH),), {}),
        "small batches first": ((small_first(stream),), {}),
        "PyDataset": ((Batches(),), {}),
        "generator": (lambda: (generated(),), {"steps": 2}),
    }
    if HAS_TORCH:
        import torch

        tensors = torch.utils.data.TensorDataset(*map(torch.tensor, arrays))
        data["DataLoader"] = ((torch.utils.data.DataLoader(tensors, BATCH),), {})
    found = {}
    for kind, (given, options) in data.items():
        model.set_weights(start)
        found[kind] = trained(model, given, **options)
    return {
        **found,
        "vit": trained(classifier(vit), (x, y), **labels),
        "mask": trained(masked(), (TOKENS[:ROWS], TOKENS[:ROWS])),
        "two outputs": trained(two_headed(), (x, [y, y])),
        "sum": trained(classifier(reduction="sum"), (x, y), **labels),
        "share": trained(classifier(reduction=SHARE), (x, y), **labels),
        "on batch": on_batch(model, x, y, weights),
        "one row": on_batch(model, x[:1], y[:1], weights[:1]),
    }


def small_first(stream):
    """Batches of one row, of three and of seven."""
    parts = [stream.skip(start).take(n).batch(n) for start, n in ((0, 1), (1, 3), (4, 7))]
    return parts[0].concatenate(parts[1]).concatenate(parts[2])


def generated():
    for index in range(2):
        yield Batches()[index]


def trained(model, given, steps=None, **options):
    """Results of a training, and of an evaluation on the same data."""
    data = given() if callable(given) else given
    sizes = {"batch_size": BATCH} if len(data) == 2 else {}
    rates = {"steps_per_epoch": steps} if steps else {}
    history = model.fit(*data, shuffle=False, verbose=0, **sizes, **rates, **options)
    data = given() if callable(given) else given
    scores = model.evaluate(*data, verbose=0, steps=steps, **sizes)
    return [*flat(history), np.array(scores), *model.get_weights()]


def on_batch(model, x, y, weights):
    is_torch = keras.backend.backend() == "torch"  # whose processes are told to use `fit`
    return [
        np.array(0 if is_torch else model.train_on_batch(x, y, weights)),
        np.array(model.test_on_batch(x, y, weights)),
        model.predict_on_batch(x),
        *model.get_weights(),
    ]


def flat(history):
    return [np.array(values) for values in history.history.values()]


def extracted():
    """Features of images and of a stream; from a cache, and where some are there."""
    model, rng = vit(), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(scale=0.2, size=weight.shape))
    pixels = IMAGES[:ROWS].astype("uint8")
    data = keras_vit.data.load((pixels, LABELS[:ROWS]), validation_split=0.0)
    data = data.prepared_for(model, batch_size=BATCH)
    folder = Path(broadcast(tempfile.mkdtemp()))

    def features(given=data, cache_dir=folder):
        found = extract_features(model, given, cache_dir=cache_dir, verbose=0)
        return [np.array(found.features), found.labels]

    first, again = features(), features()
    barrier()
    if is_first_process():
        (finished,) = (path for path in folder.iterdir() if path.is_dir())
        shutil.rmtree(finished)
        writer = FeatureWriter(finished.with_suffix(".part"))
        writer.append(0, first[0][:BATCH] + 1)
        writer.close()
    barrier()
    resumed = features()
    resumed[0][:BATCH] -= 1
    stream = features((batch for batch in data.evaluation("train", padded=False)), None)
    if is_first_process():
        shutil.rmtree(folder)
    return {"features": [*first, *again, *resumed], "features of a stream": stream}


def distances(one, other):
    """The largest difference by training, of arrays of one shape."""
    assert one.keys() == other.keys()
    return {name: _worst(one[name], other[name]) for name in one}


def _worst(one, other):
    pairs = list(zip(one, other, strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def everything():
    return {**remainders(), **kinds(), **extracted()}


def on_several_devices(name):
    """Distances of each training from that of one device."""
    with strategy("none"):
        expected = everything()
    with strategy(name):
        return distances(everything(), expected)
