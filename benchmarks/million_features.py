"""A million memory-mapped features: time and peak memory of the protocols.

    python -m benchmarks.million_features knn --test 10000
    python -m benchmarks.million_features linear --classes 100 --l2 1000

Features are drawn around a centre for each class, with a spectrum that falls as that of
trained features does, and written to a file of float32 that is then memory-mapped. The
peak is that of the whole process, and counts the pages of the file that are in memory.
Keras' backend has no part in it.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from keras_vit import evaluation

ROWS = 16_384  # written at once


def main():
    """Writes the features and runs a protocol on them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("protocol", choices=("few-shot", "knn", "linear"))
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--l2", type=float, nargs="+", default=[0.01, 1.0, 100.0, 10_000.0])
    parser.add_argument("--max-iterations", type=int, default=1000)
    parser.add_argument("--folder", help="where to put the files (default: temporary)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        draw = Drawing(args.classes, args.width)
        train = draw.write(Path(folder) / "train", args.examples)
        test = draw.write(Path(folder) / "test", args.test)
        print(f"{args.examples:,} × {args.width} features, peak so far {peak():.2f} GB")
        start = time.perf_counter()
        print(run(args, *train, *test))
        seconds = time.perf_counter() - start
        print(f"{args.protocol}: {seconds:.0f} s, peak memory {peak():.2f} GB", flush=True)


def run(args, *data):
    """The result of the protocol."""
    if args.protocol == "few-shot":
        return evaluation.few_shot(*data)
    if args.protocol == "knn":
        return evaluation.nearest_neighbors(*data)
    options = {"l2": args.l2, "max_iterations": args.max_iterations}
    return evaluation.linear_probe(*data, **options)


class Drawing:
    """Random features of several classes.

    Args:
        classes: number of classes.
        width: size of a feature.
    """

    def __init__(self, classes, width):
        self.rng = np.random.default_rng(0)
        self.centers = self.rng.normal(size=(classes, width)).astype("float32")
        mixing = self.rng.normal(size=(width, width)) / width**0.5
        mixing *= np.arange(1, width + 1)[:, None] ** -0.5
        self.mixing = mixing.astype("float32")

    def write(self, path, number):
        """Writes `number` features and maps them: (features, labels)."""
        shape = (number, len(self.mixing))
        labels = self.rng.integers(0, len(self.centers), number)
        file = np.memmap(path, "float32", "w+", shape=shape)
        for start in range(0, number, ROWS):
            rows = labels[start : start + ROWS]
            noise = self.rng.standard_normal((len(rows), shape[1]), "float32")
            file[start : start + ROWS] = (
                self.centers[rows] + 4 * noise
            ) @ self.mixing + 0.3
        file.flush()
        return np.memmap(path, "float32", "r", shape=shape), labels


def peak():
    """Peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
