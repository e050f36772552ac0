"""Raw pixels, a random and a trained ViT, judged by few-shot regression and neighbours.

    python -m benchmarks.representations

The images are real: scikit-learn's handwritten digits, and patches of the photographs that
scikit-learn and scikit-image ship (`pip install scikit-image`), which are to be told apart
by their photograph. One ViT is trained on other classes only: the digits 0 to 4, where 5 to
9 are judged, or every second photograph, where the others are. The other is trained on the
training images of the classes that are judged. Of each photograph that is judged, the left
half gives the training patches and the right half those to test. Prints the table of
docs/representations.md. Uses the backend of KERAS_BACKEND.
"""

import argparse
import time
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import keras_vit
from examples import digits
from keras_vit import evaluation

# Of scikit-image; its other pictures are drawings, texts or masks.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
PATCH = 32  # pixels
SHOTS = (1, 5, 10, 25)


def main():
    """Trains the models of each task and prints a row for each representation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5, help="draws of the few examples")
    args = parser.parse_args()
    columns = [f"{shots}-shot" for shots in SHOTS] + ["10-NN", "20-NN", "linear probe"]
    print(f"| images | representation | width | {' | '.join(columns)} |")
    print(f"|---|---|---{'|---' * len(columns)}|")
    for name, task in (("digits 5–9", digits_task), ("photographs", photographs_task)):
        keras.utils.set_random_seed(0)
        others, own, judged = task()
        start = time.perf_counter()
        rows = representations(others, own, judged, args.epochs)
        for representation, (train, test) in rows:
            cells = judge((train, judged[0][1], test, judged[1][1]), range(args.seeds))
            cells = [name, representation, str(train.shape[1]), *cells]
            print(f"| {' | '.join(cells)} |", flush=True)
        sizes = [len(labels) for _, labels in (others, own, *judged)]
        print(f"{name}: {sizes} images, {time.perf_counter() - start:.0f} s", flush=True)


def representations(others, own, judged, epochs):
    """(name, (train features, test features)) of pixels, a random and two trained ViTs."""
    yield "raw pixels", [images.reshape(len(images), -1) for images, _ in judged]
    yield "ViT, random weights", both(network(*others), judged)
    for name, seen in (("other", others), ("these", own)):
        model = network(*seen)
        digits.train(model, *seen, epochs, verbose=0)
        yield f"ViT, trained on {name} classes", both(model, judged)


def network(images, labels):
    """The demonstration's ViT for such images."""
    options = {"classes": int(labels.max()) + 1, "input_shape": images.shape[1:]}
    keras.utils.set_random_seed(0)
    return keras_vit.VisionTransformer(images.shape[1], **digits.NETWORK, **options)


def both(model, judged):
    """Features to train with, and those to test."""
    return [features(model, images) for images, _ in judged]


def features(model, images):
    """Features that the head reads, (images, width)."""
    batches = (images[i : i + 256] for i in range(0, len(images), 256))
    return evaluation.extract_features(model, batches, verbose=0).features


def judge(data, seeds):
    """Accuracies in percent with their intervals, as texts."""
    few = evaluation.few_shot(*data, shots=SHOTS, seeds=seeds)
    neighbors = evaluation.nearest_neighbors(*data)
    probe = evaluation.linear_probe(*data, l2=(1.0, 100.0, 10_000.0))
    rows = [row for result in (few, neighbors, probe) for row in result.rows()]
    names = ("accuracy", "accuracy_low", "accuracy_high")
    percents = [[100 * row[name] for name in names] for row in rows]
    return [f"{mean:.1f} ({low:.1f}–{high:.1f})" for mean, low, high in percents]


def digits_task():
    """Digits 0-4 and 5-9 with copies that are moved a little, and 5-9 as they are."""
    others = digits.augment(*digits.load(range(5), pixels=16), copies=4)
    images, labels = digits.load(range(5, 10), pixels=16)
    judged = halves(images, labels - 5, np.arange(len(labels)) % 3 == 0)
    return others, digits.augment(*judged[0], copies=4), judged


def halves(images, labels, is_test):
    """((images, labels) to train with, those to test)."""
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def photographs_task():
    """Patches of every second photograph, and of both halves of the others."""
    rng = np.random.default_rng(0)
    pictures = photographs()
    judged, others = pictures[::2], patches(pictures[1::2], 1000, rng)
    middles = [picture.shape[1] // 2 for picture in judged]
    left = [picture[:, :middle] for picture, middle in zip(judged, middles, strict=True)]
    right = [picture[:, middle:] for picture, middle in zip(judged, middles, strict=True)]
    own = patches(left, 1000, rng)
    return others, own, [patches(half, 200, rng) for half in (left, right)]


def photographs():
    """Grey photographs (height, width) in [-1, 1], in the order of their names."""
    folders = [Path(find_spec(name).origin).parent for name in ("skimage", "sklearn")]
    paths = [folders[0] / "data" / name for name in PHOTOGRAPHS]
    paths += [folders[1] / "datasets/images" / name for name in ("china.jpg", "flower.jpg")]
    paths.sort(key=lambda path: path.name)
    pictures = [np.asarray(Image.open(path).convert("L"), "float32") for path in paths]
    return [picture / 127.5 - 1 for picture in pictures]


def patches(pictures, number, rng):
    """`number` patches of each picture at random places: images and labels."""
    images, labels = [], []
    for label, picture in enumerate(pictures):
        for _ in range(number):
            row, column = (rng.integers(size - PATCH + 1) for size in picture.shape)
            images.append(picture[row : row + PATCH, column : column + PATCH, None])
            labels.append(label)
    order = rng.permutation(len(labels))
    return np.stack(images)[order], np.array(labels)[order]


if __name__ == "__main__":
    main()
