"""Fine-tune a Vision Transformer on Oxford Flowers-102, or on images of one's own.

    python examples/finetune_flowers.py --model ViTL16 --weights imagenet21k \
        --resolution 384 --precision mixed_bfloat16 --strategy auto

TFDS fetches the flowers and keras_vit the weights, once. Without network, or for other
images, `--data_dir` takes a folder of images (`<class>/<image>`, also below `train` and
`test`) or a TFDS directory that holds the prepared flowers, and `--weights` a file.
"""

import argparse
from pathlib import Path

import keras

import keras_vit

FLOWERS = "oxford_flowers102"


def load(data_dir):
    """The flowers of TFDS, or the images of a folder."""
    if data_dir and not Path(data_dir, FLOWERS).is_dir():
        return keras_vit.data.load(data_dir)
    return keras_vit.data.load(FLOWERS, data_dir=data_dir)


def build(name, weights, **arguments):
    """A model of the zoo from published weights or, with no name, from a file alone."""
    if name is None:
        return keras_vit.from_pretrained(weights, **arguments)
    return getattr(keras_vit, name)(weights=weights, **arguments)


def main():
    """Fine-tunes, tests and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", help="as ViTB16; default: read from the file of --weights"
    )
    parser.add_argument("--weights", default="imagenet21k", help="tag, file or address")
    parser.add_argument("--data_dir", help="image folder, or TFDS directory")
    parser.add_argument("--resolution", type=int, default=384)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch_size", type=int, default=512)
    parser.add_argument("--micro_batch_size", type=int, help="what fits into memory")
    parser.add_argument("--learning_rate", type=float, default=0.003)
    parser.add_argument("--precision", default="float32", help="as mixed_bfloat16")
    parser.add_argument("--strategy", default="auto", help="as fully_sharded; see README")
    parser.add_argument("--multi_process", action="store_true", help="of JAX; see README")
    parser.add_argument("--resume", help="folder of checkpoints to go on from if killed")
    parser.add_argument("--output", default="outputs/flowers.keras", type=Path)
    args = parser.parse_args()

    if args.multi_process:
        keras_vit.distribution.initialize()
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(args.precision)
    data = load(args.data_dir)
    print(data)
    recipe = keras_vit.training.ViTFineTuning(  # Table 4 of the paper
        steps=args.steps,
        warmup_steps=args.steps // 5,
        base_learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        micro_batch_size=args.micro_batch_size,
        image_size=args.resolution,
    )
    with keras_vit.distribution.strategy(args.strategy):
        model = build(
            args.model,
            args.weights,
            input_shape=(args.resolution, args.resolution, 3),
            classes=data.num_classes,
            classifier_activation=None,
        )
        keras_vit.training.finetune(model, data, recipe, resume=args.resume, save_freq=100)
        test = keras_vit.training.prepare_data(data, model, recipe)
        results = model.evaluate(test.test or test.validation, return_dict=True)
        first = keras_vit.distribution.is_first_process()
        with keras_vit.distribution.gather_weights(model):  # where processes share them
            if first:
                args.output.parent.mkdir(parents=True, exist_ok=True)
                model.save(args.output)

    if first:
        split = "test" if test.test else "validation"
        print(f"Accuracy on the {split} images: {100 * results['accuracy']:.2f} %")
        print(f"Saved as {args.output}")


if __name__ == "__main__":
    main()
