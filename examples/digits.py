"""Pre-train, save, fine-tune at a higher resolution: the paper's way, on digits.

A small ViT learns the handwritten digits 0-4 of scikit-learn at 16 x 16 pixels. It is
saved, re-opened for 24 x 24 pixels (the position embedding is resized as it is loaded)
and fine-tuned on a few examples of each of the digits 5-9. The same network starts from
scratch beside it, for as many steps. Both are tested on all other images of 5-9, for
several draws of the examples.

    KERAS_BACKEND=jax python examples/digits.py --precision mixed_bfloat16
"""

import argparse
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import keras_vit

NETWORK = {"patch_size": 4, "hidden_dim": 64, "num_layers": 3, "num_heads": 4}
NETWORK |= {"mlp_dim": 128, "classifier_activation": None}


def load(digits, pixels):
    """Images (number, pixels, pixels, 1) in [-1, 1] of the given digits, and labels."""
    data = load_digits()
    chosen = np.isin(data.target, digits)
    images = data.images[chosen, ..., None].astype("float32") / 8 - 1
    images = keras.ops.image.resize(images, (pixels, pixels), data_format="channels_last")
    return keras.ops.convert_to_numpy(images), data.target[chosen]


def augment(images, labels, copies):
    """Slightly turned, moved and scaled copies of each image."""
    outside = {"fill_mode": "constant", "fill_value": -1.0, "data_format": "channels_last"}
    turn = keras.layers.RandomRotation(0.04, **outside)
    move = keras.layers.RandomTranslation(0.12, 0.12, **outside)
    scale = keras.layers.RandomZoom((-0.15, 0.15), **outside)
    images = np.tile(images, (copies, 1, 1, 1))
    images = scale(move(turn(images, training=True), training=True), training=True)
    return keras.ops.convert_to_numpy(images), np.tile(labels, copies)


def train(model, images, labels, epochs, **kwargs):
    """An ordinary compile and fit: AdamW, linear warm-up, cosine decay."""
    steps = epochs * -(-len(images) // 64)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=2e-3, warmup_steps=steps // 10
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=1e-4, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model.fit(images, labels, batch_size=64, epochs=epochs, **kwargs).history


def draw_curves(curves, path):
    """Accuracy on held-out digits after each epoch, a line for each run."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for color, (name, runs) in zip(("C0", "C1"), curves.items(), strict=True):
        epochs = np.arange(1, len(runs[0]) + 1)
        axes.plot(epochs, np.transpose(runs), color=color, alpha=0.4)
        axes.plot(epochs, np.mean(runs, axis=0), color=color, lw=2.5, label=name)
    axes.set(xlabel="epoch", ylabel="accuracy on held-out 5-9", ylim=(0, 1.02))
    axes.set_title("Each run thin, their mean thick")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def draw_predictions(model, images, labels, path):
    """A page of held-out digits with the model's prediction; mistakes in red."""
    probabilities = keras.ops.softmax(model.predict(images, verbose=0))
    probabilities = keras.ops.convert_to_numpy(probabilities)
    figure, grid = plt.subplots(5, 8, figsize=(8, 6), layout="constrained")
    for axes, image, label, p in zip(grid.flat, images, labels, probabilities, strict=True):
        axes.imshow(image[..., 0], cmap="gray_r")
        color = "black" if p.argmax() == label else "red"
        axes.set_title(f"{p.argmax()}: {p.max():.0%}", color=color, fontsize=10)
        axes.axis("off")
    figure.suptitle("Held-out digits, prediction and its probability; mistakes in red")
    figure.savefig(path, dpi=120)


def main():
    """Runs the demonstration and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="draws of the examples")
    parser.add_argument("--shots", type=int, default=5, help="examples of a new digit")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each training")
    parser.add_argument("--precision", default="float32", help="e.g. mixed_bfloat16")
    parser.add_argument("--output", type=Path, default=Path("outputs/digits"))
    args = parser.parse_args()
    keras.config.set_dtype_policy(args.precision)
    keras.config.set_image_data_format("channels_last")
    args.output.mkdir(parents=True, exist_ok=True)
    pretrained = args.output / "pretrained.keras"

    print("Pre-training on the digits 0-4 at 16 x 16 pixels")
    keras.utils.set_random_seed(0)
    small = keras_vit.VisionTransformer(16, **NETWORK, classes=5, input_shape=(16, 16, 1))
    train(small, *augment(*load(range(5), pixels=16), copies=4), args.epochs)
    small.save(pretrained)

    images, labels = load(range(5, 10), pixels=24)
    new = {"classes": 10, "input_shape": (24, 24, 1)}
    curves = {"fine-tuned": [], "from scratch": []}
    for seed in range(args.seeds):
        keras.utils.set_random_seed(seed)
        order = np.random.permutation(len(labels))
        few = [order[labels[order] == digit][: args.shots] for digit in range(5, 10)]
        few, test = np.ravel(few), np.setdiff1d(order, few)
        examples = augment(images[few], labels[few], copies=40)
        models = {
            "fine-tuned": keras_vit.from_pretrained(pretrained, **new),
            "from scratch": keras_vit.VisionTransformer(24, **NETWORK, **new),
        }
        for name, model in models.items():
            print(f"\nDraw {seed}, {name}: {args.shots} examples of each of 5-9, 24 x 24")
            held_out = images[test], labels[test]
            history = train(model, *examples, args.epochs, validation_data=held_out)
            curves[name].append(history["val_accuracy"])

    finetuned, page = models["fine-tuned"], test[:40]
    finetuned.save(args.output / "finetuned.keras")
    draw_curves(curves, args.output / "learning_curves.png")
    draw_predictions(finetuned, images[page], labels[page], args.output / "predictions.png")
    print(f"\nAccuracy on {len(test)} held-out digits 5-9 after the last epoch, by draw:")
    for name, runs in curves.items():
        last = np.array(runs)[:, -1]
        by_draw = "  ".join(f"{accuracy:.1%}" for accuracy in last)
        print(f"  {name:12}  mean {last.mean():.1%}   {by_draw}")
    print(f"Models and pictures are in {args.output}/:")
    print(*sorted(path.name for path in args.output.iterdir()), sep=", ")


if __name__ == "__main__":
    main()
