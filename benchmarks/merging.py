"""Token merging: what it costs in accuracy, and what it saves in time.

    python -m benchmarks.merging accuracy
    python -m benchmarks.merging speed --model ViTB16 --rounds 7

`accuracy` trains a small ViT without merging on scikit-learn's handwritten digits,
enlarged to 28 x 28 pixels (196 patches of 2 x 2), and evaluates it at several numbers of
merged tokens. `speed` times a model of random weights, compiled but on torch, without and
with merging in turn, A B A B; the median of the ratios of neighbours is told, beside the
ratio of multiply-accumulates. Both use the backend of KERAS_BACKEND.
"""

import argparse
import statistics
import time
from functools import partial

import keras
import numpy as np

import keras_vit
from benchmarks.timing import seconds
from keras_vit.cost import cost

SMALL = {"image_size": 28, "patch_size": 2, "hidden_dim": 64, "num_layers": 4}
SMALL |= {"num_heads": 4, "mlp_dim": 128, "classes": 10, "classifier_activation": None}
SMALL |= {"input_shape": (28, 28, 1)}


def main():
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("accuracy", "speed"))
    parser.add_argument("--model", default="ViTB16")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--pooling", choices=("token", "gap", "map"), default="token")
    parser.add_argument("--merged", type=int, nargs="+", help="tokens in each block")
    args = parser.parse_args()
    keras.utils.set_random_seed(0)
    (measure_accuracy if args.what == "accuracy" else measure_speed)(args)


def measure_accuracy(args):
    """Trains once, evaluates at each number of merged tokens."""
    (images, labels), test = digits()
    model = keras_vit.VisionTransformer(**SMALL, pooling=args.pooling)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    steps = args.epochs * -(-len(images) // 32)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=2e-3, warmup_steps=steps // 10
    )
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.05), loss)
    start = time.perf_counter()
    model.fit(images, labels, epochs=args.epochs, batch_size=32, verbose=0)
    print(f"{keras.backend.backend()}: trained in {time.perf_counter() - start:.0f} s")
    print("merged  accuracy  the same answer  multiply-accumulates")
    whole = cost(model.get_config()).multiply_accumulates
    answers = None
    for number in args.merged or (0, 8, 16, 24, 32, 48):
        merging = keras_vit.from_pretrained(model, merged_tokens=number)
        given = merging.predict(test[0], batch_size=64, verbose=0).argmax(-1)
        answers = given if answers is None else answers
        accuracy, same = (given == test[1]).mean(), (given == answers).mean()
        share = cost(merging.get_config()).multiply_accumulates / whole
        print(f"{number:6}  {accuracy:8.1%}  {same:15.1%}  {share:20.1%}", flush=True)


def digits():
    """Images (n, 28, 28, 1) in [-1, 1] and labels: to train on, and every third to test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = keras.ops.image.resize(data.images[..., None], (28, 28))
    images = keras.ops.convert_to_numpy(images).astype("float32") / 8 - 1
    tests = np.arange(len(images)) % 3 == 0
    return tuple((images[chosen], data.target[chosen]) for chosen in (~tests, tests))


def measure_speed(args):
    """Times pairs of calls, without and with merging."""
    images = np.random.default_rng(0).uniform(-1, 1, (args.batch_size, 224, 224, 3))
    images = images.astype("float32")
    plain = getattr(keras_vit, args.model)(weights=None)
    plain = keras_vit.from_pretrained(plain, pooling=args.pooling)
    whole = cost(plain.get_config()).multiply_accumulates
    print(f"{args.model} on {keras.backend.backend()}, batches of {args.batch_size}")
    print("merged  ms without  ms with  time (median, range)      multiply-accumulates")
    for number in args.merged or (8, 13, 16):
        merging = keras_vit.from_pretrained(plain, merged_tokens=number)
        share = cost(merging.get_config()).multiply_accumulates / whole
        runs = [forward(model, images) for model in (plain, merging)]
        pairs = [tuple(seconds(run) for run in runs) for _ in range(args.rounds)]
        ratios = [after / before for before, after in pairs]
        times = "  ".join(
            f"{1000 * statistics.median(t):7.0f}" for t in zip(*pairs, strict=True)
        )
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        print(f"{number:6}  {times}  {spread:26}  {share:.3f}", flush=True)


def forward(model, images):
    """A call of the model, compiled (on TensorFlow, too) and warm."""
    model.jit_compile = keras.backend.backend() != "torch"
    call = partial(model.predict_on_batch, images)
    call()
    return call


if __name__ == "__main__":
    main()
