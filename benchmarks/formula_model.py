"""Small ViTs trained on images by formula alone, judged on real images.

    KERAS_BACKEND=torch python -m benchmarks.formula_model --objective classes \
        --kinds strokes fractals --steps 1000 --output outputs/strokes

Trains a network without a photograph, saves `encoder.keras` in the folder, judges its
features and prints a row of the table in docs/formula_model.md. A training that was killed
goes on from its last checkpoint when the same command is run again, bit for bit; one that
has ended is only judged. `--objective none` judges random weights and `--objective pixels`
the pixels. The images to judge by are real: scikit-learn's digits, and patches of the
photographs that scikit-learn and scikit-image ship, in grey, to be told apart by their
photograph; the left half of each gives the training patches, the right half those to test.
`--transfer` also fine-tunes at 1.5 times the resolution beside training from scratch.
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np

import keras_vit
from benchmarks.representations import patches, photographs
from examples import digits
from keras_vit import evaluation, pretraining, training
from keras_vit.data import Augmentation
from keras_vit.data.formula import KINDS
from keras_vit.intervals import student_interval

SHOTS = (1, 5, 10, 25)
PATCH = 32  # pixels of a photograph's patch
OBJECTIVES = ("classes", "autoencoder", "patches", "none", "pixels")
RATE = 1e-3  # of a batch of 128


def main():
    """Trains, judges, and prints and keeps the row."""
    args = parse()
    keras.config.set_dtype_policy(args.dtype)
    args.output.mkdir(parents=True, exist_ok=True)
    minutes = 0.0
    if args.objective not in ("none", "pixels"):
        minutes = trained(args)
    elif args.objective == "none":
        for seed in args.seeds:
            keras.utils.set_random_seed(seed)
            network(args, classes=0).save(args.output / f"encoder_{seed}.keras")
    keras.config.set_dtype_policy("float32")
    found = judged(args)
    if args.transfer:
        found |= transferred(args)
    settings = {name: str(value) for name, value in vars(args).items()}
    row = {**settings, "minutes": round(minutes, 1), **found}
    (args.output / "result.json").write_text(json.dumps(row, indent=1))
    print("|", " | ".join([args.output.name, *map(text, found.values())]), "|", flush=True)


def parse():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objective", choices=OBJECTIVES, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the trial")
    parser.add_argument("--kinds", nargs="*", choices=tuple(KINDS), default=tuple(KINDS))
    parser.add_argument("--count", type=int, default=100_000, help="images")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=RATE)
    parser.add_argument("--size", type=int, default=32, help="pixels of a side")
    parser.add_argument("--drawn", type=int, help="pixels of a formula's image, if others")
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--crop", type=float, default=1.0, help="least area; 1: no crop")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of the weights")
    parser.add_argument("--draws", type=int, default=5, help="of the few examples")
    parser.add_argument("--save-every", type=int, default=500, help="steps")
    parser.add_argument("--transfer", type=int, default=0, help="steps of fine-tuning")
    return parser.parse_args()


# The training.


def network(args, classes, size=None):
    """The Vision Transformer, with a head of so many classes."""
    return keras_vit.VisionTransformer(
        size or args.size,
        args.patch,
        args.width,
        args.blocks,
        args.heads,
        4 * args.width,
        classes=classes,
        pooling="gap",
        position="sincos2d",
        classifier_activation=None,
    )


def trained(args):
    """Trains an encoder for each seed; returns the minutes of those that were trained."""
    start = time.perf_counter()
    for seed in args.seeds:
        path = args.output / f"encoder_{seed}.keras"
        if path.exists():
            continue
        keras.utils.set_random_seed(seed)
        data = keras_vit.data.formula_images(
            args.count,
            args.drawn or args.size,
            kinds=args.kinds,
            classes=args.classes,
            label_mode="int",
        )
        train = train_classes if args.objective == "classes" else train_without_labels
        encoder = train(args, data, args.output / f"resume_{seed}", seed)
        encoder.save(path)
    return (time.perf_counter() - start) / 60


def train_classes(args, data, folder, seed):
    """Learns the formula's class; returns the encoder without its head."""
    model = network(args, data.num_classes)
    recipe = training.SmallData(**fields(args), layerwise_decay=1.0)
    data = data.with_pipeline(label_mode="categorical")
    training.finetune(model, data, recipe, **options(args, folder))
    return keras_vit.from_pretrained(model, classes=0)


def train_without_labels(args, data, folder, seed):
    """Learns from the images alone; returns the encoder."""
    encoder, kind = network(args, classes=0), args.objective
    if kind == "autoencoder":
        width = 4 * (args.width // 8)
        decoder = {"decoder_hidden_dim": width, "decoder_num_layers": 1}
        decoder |= {"decoder_num_heads": 2}
        model = pretraining.MaskedAutoencoder(encoder, **decoder, seed=seed)
    else:
        model = pretraining.MaskedPatchPrediction(encoder, seed=seed)
    recipe = training.SmallPreTraining(**fields(args))
    training.pretrain(model, data, recipe, **options(args, folder))
    return encoder


def fields(args):
    """Fields of the recipe that all objectives share."""
    whole = {"crop": "resize", "flip": False, "evaluation_crop": "resize"}
    cropped = {"crop_area": (args.crop, 1.0), "evaluation_crop": "resize"}
    augmentation = Augmentation(**(whole if args.crop == 1 else cropped))
    return {
        "steps": args.steps,
        "warmup_steps": args.steps // 10,
        "batch_size": args.batch_size,
        "base_learning_rate": args.learning_rate * (args.batch_size / 128) ** 0.5,
        "image_size": args.size,
        "augmentation": augmentation,
    }


def options(args, folder):
    """Arguments that save a training and show it."""
    return {"resume": folder, "save_freq": args.save_every, "evaluations": 1, "verbose": 2}


# The judgement.


def tasks(size):
    """Training and test images (n, size, size, 3) in [-1, 1] with labels, by name."""
    images, labels = digits.load(range(10), pixels=32)
    is_test = np.arange(len(labels)) % 3 == 0
    found = [(images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])]
    rng = np.random.default_rng(0)
    pictures = photographs()
    middles = [picture.shape[1] // 2 for picture in pictures]
    left = [picture[:, :middle] for picture, middle in zip(pictures, middles, strict=True)]
    right = [picture[:, middle:] for picture, middle in zip(pictures, middles, strict=True)]
    halves = [patches(half, 100, rng) for half in (left, right)]
    named = {"digits": found, "photographs": halves}
    return {
        name: [(resized(images, size), labels) for images, labels in parts]
        for name, parts in named.items()
    }


def resized(images, size):
    """Grey images as (n, size, size, 3)."""
    if images.shape[1] != size:
        images = keras.ops.image.resize(
            images, (size, size), interpolation="bilinear", data_format="channels_last"
        )
    return np.repeat(keras.ops.convert_to_numpy(images), 3, axis=-1)


def judged(args):
    """Accuracies in percent by task and protocol: a list with one for each seed."""
    found = {}
    seeds = args.seeds if args.objective != "pixels" else [0]
    for name, (train, test) in tasks(args.size).items():
        for seed in seeds:
            sets = [features(args, seed, images) for images, _ in (train, test)]
            data = (sets[0], train[1], sets[1], test[1])
            few = evaluation.few_shot(*data, shots=SHOTS, seeds=range(args.draws))
            near = evaluation.nearest_neighbors(*data, k=10)
            for shots, row in zip(SHOTS, few.rows(), strict=True):
                found.setdefault(f"{name} {shots}-shot", []).append(100 * row["accuracy"])
            (row,) = near.rows()
            found.setdefault(f"{name} 10-NN", []).append(100 * row["accuracy"])
    return found


def features(args, seed, images):
    """Pixels, or features of the encoder of a seed, (n, width)."""
    if args.objective == "pixels":
        return images[..., 0].reshape(len(images), -1)
    model = keras.models.load_model(args.output / f"encoder_{seed}.keras")
    batches = (images[i : i + 256] for i in range(0, len(images), 256))
    return evaluation.extract_features(model, batches, verbose=0).features


def text(values):
    """Mean, and with several seeds the half of Student's interval of 95 %."""
    mean = np.mean(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    low, _ = student_interval(values)
    return f"{mean:.1f} ± {mean - low:.1f}"


def transferred(args):
    """Accuracies after fine-tuning on ten examples a class at 1.5 times the resolution."""
    size, found = args.size * 3 // 2 // args.patch * args.patch, {}
    for name, (train, test) in tasks(size).items():
        classes = int(train[1].max()) + 1
        for seed in args.seeds:
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(train[1]))
            few = [order[train[1][order] == k][:10] for k in range(classes)]
            few = np.concatenate(few)
            images = np.uint8(np.round((train[0][few] + 1) * 127.5))
            data = keras_vit.data.load((images, train[1][few]), validation_split=0)
            path = args.output / f"encoder_{seed}.keras"
            keras.utils.set_random_seed(seed)
            models = {
                "fine-tuned": keras_vit.from_pretrained(
                    path, classes=classes, image_size=size, classifier_activation=None
                ),
                "from scratch": network(args, classes, size),
            }
            for way, model in models.items():
                accuracy = finetuned(args, model, data, size, test, way)
                found.setdefault(f"{name} {way}", []).append(100 * accuracy)
    return found


def finetuned(args, model, data, size, test, way):
    """Accuracy on the test images after so many steps, with the recipe for small data."""
    augmentation = Augmentation(crop_area=(0.6, 1.0), flip=False, evaluation_crop="resize")
    recipe = training.SmallData(
        steps=args.transfer,
        warmup_steps=args.transfer // 10,
        base_learning_rate=RATE,
        layerwise_decay=1.0 if way == "from scratch" else 0.75,
        image_size=size,
        augmentation=augmentation,
    )
    training.finetune(model, data, recipe, evaluations=1, verbose=0)
    logits = model.predict(test[0], batch_size=256, verbose=0)
    return float((logits.argmax(-1) == test[1]).mean())


if __name__ == "__main__":
    main()
