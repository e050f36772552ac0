"""The ViT paper's study of positional embeddings (appendix D.4, table 8), in small.

    python -m benchmarks.positions
    python -m benchmarks.positions --seeds 5 --minutes 4 --results outputs/positions.jsonl

Trains a tiny ViT from scratch with each kind of position at each place, on scikit-learn's
digits and on images that are made here, and prints the accuracy on test images, its mean
and standard deviation over seeds, beside the paper's numbers. The images made here show a
cross and a ring in two patches of a grid, with noise; the label is the side on which the
cross is of the ring. As a bag of patches they tell nothing about it, so chance is 25 %.

Each training is a line of the results file. Those that it has are not repeated: run the
same command again to go on. The backend is that of KERAS_BACKEND.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

import keras_vit

# Table 8: (name, position, place) → ImageNet 5-shot linear accuracy of B/16. Those without
# a number are not in the paper.
PAPER = {
    ("none", "stem"): 0.61382,
    ("learned", "stem"): 0.64206,
    ("learned", "each_layer"): 0.63964,
    ("learned", "each_layer_shared"): 0.64292,
    ("learned2d", "stem"): 0.64001,
    ("learned2d", "each_layer"): 0.64046,
    ("learned2d", "each_layer_shared"): 0.64022,
    ("relative_key", "stem"): 0.64032,
    ("relative", "stem"): None,
    ("sincos", "stem"): None,
    ("sincos2d", "stem"): None,
}
MODEL = {"hidden_dim": 32, "num_layers": 3, "num_heads": 4, "mlp_dim": 64}
SIDES = ("above", "below", "left", "right")


@dataclass(frozen=True)
class Run:
    """A training: what was trained, on which data, from which seed."""

    data: str
    position: str
    position_at: str
    seed: int
    epochs: int


def main() -> None:
    """Trains what the results file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=tuple(DATA))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--minutes", type=float, help="start no training after that")
    parser.add_argument("--results", default="outputs/positions.jsonl")
    args = parser.parse_args()
    results = read(args.results)
    train_missing(runs(args.data, args.seeds, args.epochs), results, args)
    print(markdown(results, args.data, args.epochs))


def runs(data: tuple[str, ...], seeds: int, epochs: int) -> list[Run]:
    """All trainings of a table, seed by seed; those that the paper has come first."""
    found = [
        Run(name, position, place, seed, epochs)
        for seed in range(seeds)
        for name in data
        for position, place in PAPER
    ]
    return sorted(found, key=lambda run: PAPER[run.position, run.position_at] is None)


def read(path: str) -> dict[Run, float]:
    """Training → accuracy, of a results file; of none where there is no file."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else ()
    found = map(json.loads, lines)
    return {Run(**each["run"]): each["accuracy"] for each in found}


def train_missing(wanted, results, args):
    """Trains and writes what is missing, until the time is over."""
    start = time.monotonic()
    Path(args.results).parent.mkdir(parents=True, exist_ok=True)
    for run in wanted:
        if run in results:
            continue
        if args.minutes is not None and time.monotonic() - start > 60 * args.minutes:
            print(f"Stopped after {args.minutes} minutes; the same command goes on.")
            return
        begin = time.monotonic()
        results[run] = train(run)
        seconds = time.monotonic() - begin
        print(f"{run}: {results[run]:.4f} ({seconds:.0f} s)", flush=True)
        line = json.dumps({"run": asdict(run), "accuracy": results[run]})
        with open(args.results, "a") as file:
            file.write(line + "\n")


def train(run: Run) -> float:
    """Trains a tiny ViT; returns its accuracy on the test images."""
    (images, labels), (test_images, test_labels) = DATA[run.data]()
    keras.utils.set_random_seed(run.seed)
    size = images.shape[1]
    model = keras_vit.VisionTransformer(
        size,
        size // 4,  # 4 × 4 patches
        **MODEL,
        classes=int(labels.max()) + 1,
        input_shape=images.shape[1:],
        classifier_activation=None,
        position=run.position,
        position_at=run.position_at,
    )
    steps = run.epochs * -(-len(images) // 128)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=3e-3, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.05)
    keras_vit.training.exclude_from_weight_decay(optimizer, model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    model.fit(images, labels, epochs=run.epochs, batch_size=128, verbose=0)
    given = model.predict(test_images, batch_size=256, verbose=0).argmax(-1)
    return float((given == test_labels).mean())


def digits():
    """scikit-learn's digits, (n, 8, 8, 1) in [-1, 1]: every third one is to test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images[..., None] / 8 - 1).astype("float32")
    tests = np.arange(len(images)) % 3 == 0
    return tuple((images[chosen], data.target[chosen]) for chosen in (~tests, tests))


def sides(num_train: int = 2000, num_test: int = 1000):
    """Images (n, 16, 16, 1) of a cross and a ring, and the cross's side of the ring."""
    rng = np.random.default_rng(0)
    shapes = -np.ones((2, 4, 4), "float32")
    shapes[0, range(4), range(4)] = shapes[0, range(4), range(3, -1, -1)] = 1  # cross
    shapes[1, [0, 3]] = shapes[1, :, [0, 3]] = 1  # ring
    number = num_train + num_test
    images = rng.normal(-1, 0.3, (number, 16, 16, 1)).astype("float32")
    labels = np.empty(number, "int32")
    for image, index in zip(images, range(number), strict=True):
        down = right = 0
        while abs(down) == abs(right):  # no side, or two
            places = rng.integers(0, 4, (2, 2))  # row and column of cross and ring
            down, right = places[0] - places[1]
        for shape, (row, column) in zip(shapes, places, strict=True):
            image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4, 0] += shape + 1
        is_vertical = abs(down) > abs(right)
        labels[index] = (down > 0) if is_vertical else 2 + (right > 0)  # of `SIDES`
    parts = slice(num_train), slice(num_train, None)
    return tuple((images[part], labels[part]) for part in parts)


DATA = {"digits": digits, "sides": sides}


def markdown(results: dict[Run, float], data: tuple[str, ...], epochs: int) -> str:
    """The table: the paper's accuracy, and mean ± standard deviation on each data set."""
    names = [f"{name}, {epochs} epochs" for name in data]
    lines = [
        f"| position | position_at | the paper | {' | '.join(names)} |",
        f"|---|---|---:|{'---:|' * len(data)}",
    ]
    for (position, place), published in PAPER.items():
        cells = ["–" if published is None else f"{published:.5f}"]
        for name in data:
            wanted = (name, position, place, epochs)
            found = [
                accuracy
                for run, accuracy in results.items()
                if (run.data, run.position, run.position_at, run.epochs) == wanted
            ]
            cells.append(mean_and_deviation(found))
        lines.append(f"| `{position}` | `{place}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_and_deviation(values: list[float]) -> str:
    """Mean ± standard deviation, and the number of values."""
    if not values:
        return "–"
    mean = f"{statistics.mean(values):.4f}"
    if len(values) > 1:
        mean += f" ± {statistics.stdev(values):.4f}"
    return f"{mean} ({len(values)})"


if __name__ == "__main__":
    main()
