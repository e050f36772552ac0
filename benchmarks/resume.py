"""Cost of saving with `ExactResume`, as a share of the time of training steps.

Trains a model on random images and saves at every other block of steps, each long enough
for the file to be written. What a save costs is the median, over pairs of neighbouring
blocks, of the time of the one with a save minus that of the one without; it holds the copy
in the step and whatever the thread that writes takes from the steps beside it. Its share
is of `--save-freq` steps.

    KERAS_BACKEND=torch python benchmarks/resume.py --model ViTB16 --batch-size 8
"""

import argparse
import os
import statistics
import tempfile
import time

import keras
import numpy as np

import keras_vit
from keras_vit.training import ExactResume


class Blocks(keras.callbacks.Callback):
    """Saves in every other block, and times the blocks."""

    def __init__(self, resume, length, warmup):
        super().__init__()
        self.resume, self.length, self.warmup = resume, length, warmup
        self.seconds, self.copies, self.writes = [], [], []
        write = resume.folder.write

        def timed(*arguments):
            start = time.perf_counter()
            write(*arguments)
            self.writes.append(time.perf_counter() - start)

        resume.folder.write = timed

    def on_train_batch_end(self, batch, logs=None):
        number, step = divmod(batch + 1 - self.warmup, self.length)
        if batch + 1 < self.warmup or step:
            return
        self.resume.folder.wait()  # of the block that has ended: it bears what is left
        now = time.perf_counter()
        if number:
            self.seconds.append(now - self.start)
        self.start = time.perf_counter()
        if number % 2 == 0:
            self._save()

    def _save(self):
        start = time.perf_counter()
        self.resume._save()
        self.copies.append(time.perf_counter() - start)


def batches(model, batch_size, classes):
    """Endless stream of one random batch."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (batch_size, *model.input_shape[1:])).astype("float32")
    labels = np.eye(classes, dtype="float32")[rng.integers(0, classes, batch_size)]
    while True:
        yield images, labels


def main():
    """Prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViTB16")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--block", type=int, default=4, help="steps between saves")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--save-freq", type=int, default=100)
    parser.add_argument("--directory", help="on the disk to be measured")
    options = parser.parse_args()
    model = getattr(keras_vit, options.model)(
        weights=None, classes=10, classifier_activation=None
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-5), loss)
    steps = options.warmup + 2 * options.pairs * options.block
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        resume = ExactResume(folder)
        blocks = Blocks(resume, options.block, options.warmup)
        model.fit(
            batches(model, options.batch_size, 10),
            steps_per_epoch=steps,
            callbacks=[resume, blocks],
            verbose=0,
        )
        size = max(path.stat().st_size for path in resume.folder.steps().values())
    with_save, without = blocks.seconds[::2], blocks.seconds[1::2]
    step = statistics.median(without) / options.block
    cost = statistics.median(a - b for a, b in zip(with_save, without, strict=True))
    print(
        f"{options.model} on {keras.backend.backend()}, batches of {options.batch_size}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
        f"checkpoint      {size / 1e9:8.2f} GB\n"
        f"step            {step:8.3f} s  (median of {options.pairs} blocks)\n"
        f"copy in a step  {statistics.median(blocks.copies):8.3f} s  (median)\n"
        f"written beside  {statistics.median(blocks.writes):8.3f} s  (median)\n"
        f"cost of a save  {cost:8.3f} s  (median of pairs, "
        f"{min(a - b for a, b in zip(with_save, without, strict=True)):.3f} to "
        f"{max(a - b for a, b in zip(with_save, without, strict=True)):.3f})\n"
        f"every {options.save_freq} steps {100 * cost / (options.save_freq * step):8.2f} % "
        "of the time of the steps"
    )


if __name__ == "__main__":
    main()
