"""`training.finetune` beside a training loop written by hand in plain torch.

The same network, the same start, the same recipe; nothing else is shared: the loop below
has its own schedule, parameter groups, crops and order of examples, and torch's own
optimizers. Two data sets, the handwritten digits of scikit-learn and a folder of JPEG
files drawn here, and two recipes each. Accuracy on the test images, mean and standard
deviation over seeds.

    KERAS_BACKEND=torch python benchmarks/transfer.py --seeds 5
"""

import argparse
import dataclasses
import math
import os
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

import keras_vit
from keras_vit.data import Augmentation
from keras_vit.training import SmallData, ViTFineTuning
from keras_vit.weight_paths import public_path

PIXELS = 32
NETWORK = {"patch_size": 4, "hidden_dim": 64, "num_layers": 4, "num_heads": 4}
NETWORK |= {"mlp_dim": 128, "classifier_activation": None}
SHAPES = ("disc", "square", "triangle", "ring", "cross", "star", "bar", "dots")


# The data.


def digits(wanted):
    """Images (number, 32, 32, 3) of uint8 and labels from 0, of some digits."""
    data = load_digits()
    chosen = np.isin(data.target, wanted)
    images = np.uint8(255 - data.images[chosen] * 15.9)
    images = [Image.fromarray(image).resize((PIXELS, PIXELS)) for image in images]
    images = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return images, np.searchsorted(wanted, data.target[chosen])


def draw(shape, rng):
    """A picture of a shape somewhere, in random colours on a noisy ground."""
    ground = rng.integers(0, 256, 3)
    colour = tuple(int(c) for c in (ground + rng.integers(90, 166, 3)) % 256)
    picture = Image.fromarray(
        np.uint8(np.clip(ground + rng.normal(0, 20, (48, 48, 3)), 0, 255))
    )
    pen = ImageDraw.Draw(picture)
    r = int(rng.integers(9, 18))
    x, y = (int(v) for v in rng.integers(r, 48 - r, 2))
    box = (x - r, y - r, x + r, y + r)
    if shape == "disc":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    elif shape == "ring":
        pen.ellipse(box, outline=colour, width=4)
    elif shape == "cross":
        pen.line((x - r, y, x + r, y), fill=colour, width=5)
        pen.line((x, y - r, x, y + r), fill=colour, width=5)
    elif shape == "star":
        tips = [(math.pi * k / 5, r if k % 2 else r / 2.5) for k in range(10)]
        pen.polygon([(x + d * math.sin(a), y + d * math.cos(a)) for a, d in tips], colour)
    elif shape == "bar":
        pen.rectangle((x - r, y - 3, x + r, y + 3), fill=colour)
    else:
        for dx, dy in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
            cx, cy = x + dx * r * 0.6, y + dy * r * 0.6
            pen.ellipse((cx - 4, cy - 4, cx + 4, cy + 4), fill=colour)
    return picture


def shapes(wanted, number, seed):
    """Images (number, 32, 32, 3) of uint8 of shapes and labels from 0."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % len(wanted)
    pictures = [draw(wanted[label], rng).resize((PIXELS, PIXELS)) for label in labels]
    return np.stack([np.asarray(picture) for picture in pictures]), labels


def write_folder(folder, wanted, numbers):
    """`folder/<split>/<shape>/<number>.jpg`."""
    for split, (number, seed) in numbers.items():
        rng = np.random.default_rng(seed)
        for k in range(number):
            shape = wanted[k % len(wanted)]
            path = Path(folder, split, shape, f"{k}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(shape, rng).save(path, quality=92)


# The loop by hand.


def learning_rate(step, recipe):
    """Linear warm-up, then the cosine to 0."""
    if step < recipe.warmup_steps:
        return recipe.base_learning_rate * step / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
    return recipe.base_learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def depth_of(path):
    """0 for the embeddings, then the blocks, then the rest."""
    if path.startswith("block_"):
        return 1 + int(path.split("/")[0][6:])
    embedding = ("patch_embedding", "class_token", "position_embedding")
    return 0 if path.startswith(embedding) else NETWORK["num_layers"] + 1


def optimizer_of(model, recipe):
    """Torch's optimizer, a group for each weight with its learning rate and decay."""
    groups = []
    for variable in model.trainable_variables:
        decays = variable.path.endswith("kernel") and "head_norm" not in variable.path
        scale = recipe.layerwise_decay ** (
            NETWORK["num_layers"] + 1 - depth_of(public_path(variable.path))
        )
        groups.append(
            {
                "params": [variable.value],
                "scale": scale,
                "weight_decay": recipe.weight_decay if decays else 0.0,
            }
        )
    if recipe.algorithm == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8)


def crop(image, augmentation, rng):
    """The Inception crop and the flip, of an image (height, width, 3)."""
    height, width = image.shape[:2]
    for _ in range(100):
        area = rng.uniform(*augmentation.crop_area) * height * width
        ratio = rng.uniform(3 / 4, 4 / 3)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w, h = width, height
    x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
    piece = np.float32(image[y : y + h, x : x + w]).transpose(2, 0, 1)
    # Without antialiasing, as in the original code.
    image = torch.nn.functional.interpolate(
        torch.from_numpy(piece)[None], (PIXELS, PIXELS), mode="bilinear"
    )[0].numpy()
    image = image.transpose(1, 2, 0)
    return image[:, ::-1] if augmentation.flip and rng.random() < 0.5 else image


def train_by_hand(model, images, labels, recipe, seed):
    """Every step written out: batch, loss, gradients, clipping, update."""
    rng = np.random.default_rng(seed)
    optimizer = optimizer_of(model, recipe)
    parameters = [variable.value for variable in model.trainable_variables]
    order = np.empty(0, int)
    for step in range(recipe.steps):
        while len(order) < recipe.batch_size:
            order = np.concatenate([order, rng.permutation(len(images))])
        chosen, order = order[: recipe.batch_size], order[recipe.batch_size :]
        batch = np.stack([crop(images[i], recipe.augmentation, rng) for i in chosen])
        batch = torch.from_numpy(batch / 127.5 - 1)
        rate = learning_rate(step, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        loss = torch.nn.functional.cross_entropy(
            model(batch, training=True),
            torch.from_numpy(labels[chosen].astype("int64")),
            label_smoothing=recipe.label_smoothing,
        )
        optimizer.zero_grad()
        loss.backward()
        if recipe.global_clipnorm:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.global_clipnorm)
        optimizer.step()


# The comparison.


def accuracy(model, images, labels):
    """On images resized to 32 x 32, without crops."""
    logits = model.predict(np.float32(images) / 127.5 - 1, verbose=0)
    return float((logits.argmax(axis=-1) == labels).mean())


def pretrain(images, labels, path):
    """A start for both: another task of the same kind."""
    keras.utils.set_random_seed(0)
    classes = int(labels.max()) + 1
    model = keras_vit.VisionTransformer(PIXELS, classes=classes, **NETWORK)
    data = keras_vit.data.load((images, labels), validation_split=0.1)
    recipe = SmallData(
        steps=1200,
        warmup_steps=120,
        base_learning_rate=1e-3,
        layerwise_decay=1.0,
        augmentation=Augmentation(crop_area=(0.6, 1.0), flip=False),
    )
    keras_vit.training.finetune(model, data, recipe, verbose=0)
    model.save(path)


def recipes(number):
    """The small-data default, and the paper's with fewer examples in a batch."""
    augmentation = Augmentation(crop_area=(0.6, 1.0), flip=False, evaluation_crop="resize")
    small = SmallData.for_examples(
        number, base_learning_rate=1e-3, image_size=PIXELS, augmentation=augmentation
    )
    paper = ViTFineTuning(
        steps=500,
        warmup_steps=100,
        base_learning_rate=0.03,
        batch_size=64,
        image_size=PIXELS,
        augmentation=augmentation,
    )
    return {"SmallData": small, "ViTFineTuning, batch 64": paper}


def compare(name, start, source, train, test, seeds):
    """A line for each recipe: accuracy both ways."""
    classes = int(test[1].max()) + 1
    for label, recipe in recipes(len(train[0])).items():
        results = {"finetune": [], "by hand": []}
        for seed in range(seeds):
            for way in results:
                keras.utils.set_random_seed(seed)
                model = keras_vit.from_pretrained(start, classes=classes)
                if way == "finetune":
                    data = dataclasses.replace(keras_vit.data.load(source), seed=seed)
                    keras_vit.training.finetune(
                        model, data, recipe, evaluations=1, verbose=0
                    )
                else:
                    train_by_hand(model, *train, recipe, seed)
                results[way].append(accuracy(model, *test))
        row = "  ".join(
            f"{way} {np.mean(v):6.2%} ± {np.std(v, ddof=1):5.2%}"
            for way, v in results.items()
        )
        print(f"{name:14s} {label:24s} {row}", flush=True)


def main():
    """Prints a line for each data set and recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", choices=("digits", "shapes"), nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in args.data or ("digits", "shapes"):
            {"digits": compare_digits, "shapes": compare_shapes}[name](folder, args.seeds)


def compare_digits(folder, seeds):
    """Twenty examples of each of the digits 5-9, after a training on 0-4."""
    start = Path(folder, "digits.keras")
    pretrain(*digits([0, 1, 2, 3, 4]), start)
    images, labels = digits([5, 6, 7, 8, 9])
    few = np.concatenate([np.flatnonzero(labels == k)[:20] for k in range(5)])
    rest = np.setdiff1d(np.arange(len(images)), few)
    train, test = (images[few], labels[few]), (images[rest], labels[rest])
    source = {"train": train, "validation": test}
    compare("digits 5-9", start, source, train, test, seeds)


def compare_shapes(folder, seeds):
    """A folder of 120 pictures of four shapes, after a training on four others."""
    start, wanted = Path(folder, "shapes.keras"), sorted(SHAPES[4:])
    pretrain(*shapes(SHAPES[:4], 2000, seed=1), start)
    pictures = Path(folder, "pictures")
    write_folder(pictures, wanted, {"train": (120, 2), "validation": (600, 3)})
    train = read(pictures / "train", wanted)
    images, labels = read(pictures / "validation", wanted)
    small = [Image.fromarray(image).resize((PIXELS, PIXELS)) for image in images]
    test = np.stack([np.asarray(image) for image in small]), labels
    compare("shapes, JPEG", start, pictures, train, test, seeds)


def read(folder, wanted):
    """The pictures of a split as arrays, and their labels."""
    images, labels = [], []
    for label, shape in enumerate(wanted):
        for path in sorted(Path(folder, shape).glob("*.jpg")):
            with Image.open(path) as picture:
                images.append(np.asarray(picture))
            labels.append(label)
    return np.stack(images), np.array(labels)


if __name__ == "__main__":
    main()
