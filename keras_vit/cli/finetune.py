"""`keras-vit finetune`: images in, a trained model and a report out."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shlex
import signal
import sys
import threading

import keras
import numpy as np

import keras_vit
from keras_vit.cli.choices import NO_WEIGHTS, RECIPES, build, known_model, recipe_of
from keras_vit.cli.options import (
    DATA,
    OK,
    add_command,
    add_data_options,
    data_arguments,
    found_again,
    load_data,
    settings_of,
)
from keras_vit.cli.results import (
    accuracy_name,
    listed,
    loss_note,
    model_name,
    print_result,
    result_of,
    write_report_of,
)
from keras_vit.data.augment import CROPS, EVALUATION_CROPS
from keras_vit.distribution import (
    STRATEGIES,
    barrier,
    check_batches,
    initialize,
    is_asked_for,
    is_first_process,
    strategy,
)
from keras_vit.runs import (
    Checkpoints,
    EventFiles,
    Progress,
    RunFolder,
    digests,
    image_fields,
    load_classifier,
)
from keras_vit.runs.folder import BEST, EXAMPLES, METRICS, REPORT, RESUME, TENSORBOARD
from keras_vit.tables import table
from keras_vit.training.finetune import configured, finetune
from keras_vit.training.recipe import Recipe
from keras_vit.training.resume.signals import EXIT_CODES

# Settings of the model by which it takes other sizes than its name says.
RESIZING = {"image_size", "input_shape", "patch_size", "stem"}
_PACKAGES = ("keras", "numpy", "tensorflow", "jax", "torch", "pillow", "keras-cv")


def add_to(commands) -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands, "finetune", _finetune, "train a model on images of your own"
    )
    parser.add_argument("data", metavar="DATA", help=DATA)
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="where all is written"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the training in that folder, also one that is not finished and "
        "would go on",
    )
    _add_data(parser)
    _add_model(parser)
    _add_recipe(parser)
    _add_machine(parser)


def _add_data(parser):
    group = parser.add_argument_group("the images")
    add_data_options(group)
    group.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME=PART",
        help="what is train, validation or test: train=train[:90%%] of TensorFlow "
        "Datasets, the name of a sub-folder, a value in the CSV file; may be repeated, "
        "also for several parts of one split",
    )
    for split, default in (("validation", 0.2), ("test", 0.0)):
        group.add_argument(
            f"--{split}-split",
            type=float,
            metavar="SHARE",
            help=f"of the training images, for {split} where there are none ({default})",
        )
    group.add_argument(
        "--no-flip",
        dest="flip",
        action="store_false",
        default=None,
        help="never mirror an image: for classes that differ in left and right, and text",
    )
    group.add_argument(
        "--crop",
        choices=CROPS,
        help="of an image to train on: inception, a random part of any shape; random, of "
        "the smaller side or less; square, of the whole image made square; resize, "
        "the whole image, for what lies at its edges (by default the recipe's)",
    )
    group.add_argument(
        "--evaluation-crop",
        choices=EVALUATION_CROPS,
        help="of all others: center, or resize for the whole image (the recipe's)",
    )


def _add_model(parser):
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--model", metavar="NAME", help="an architecture, such as ViTB16; see the README"
    )
    group.add_argument(
        "--weights",
        metavar="WEIGHTS",
        help="with --model a tag, such as augreg_imagenet21k, by default the model's first "
        "(see `keras-vit list`), or none for a training from scratch; without --model "
        "a checkpoint's file or address, the name of a preset or the folder of a training",
    )
    group.add_argument(
        "--resolution",
        type=int,
        nargs="+",
        metavar=("H", "W"),
        help="pixels of the images, by default the recipe's",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of VisionTransformer, such as drop_path_rate=0.1",
    )


def _add_recipe(parser):
    group = parser.add_argument_group("the recipe")
    group.add_argument(
        "--recipe",
        choices=RECIPES,
        default="auto",
        help="auto (the default): bit for the ResNets, else small; small: Adam, numbers by "
        "how many images there are; vit, vtab, bit, bigvision: of the papers",
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="updates of the weights")
    length.add_argument("--epochs", type=float, metavar="N", help="passes over the images")
    numbers = {
        "batch-size": (int, "images of an update"),
        "micro-batch-size": (int, "images in memory at a time; gradients are accumulated"),
        "learning-rate": (float, "the highest, after the warm-up"),
        "warmup-steps": (int, "in which the learning rate rises"),
        "weight-decay": (float, "a part of each weight, times the learning rate"),
        "label-smoothing": (float, "spread from the label over all classes"),
        "layerwise-decay": (float, "of the learning rate, by layer from the head"),
        "lora-rank": (int, "train LoRA's low-rank updates and the head alone"),
    }
    for name, (kind, text) in numbers.items():
        group.add_argument(f"--{name}", type=kind, metavar="N", help=text)
    group.add_argument(
        "--ema",
        type=float,
        metavar="M",
        help="use a moving average of the weights with this momentum, such as 0.999",
    )
    group.add_argument(
        "--freeze",
        metavar="WHAT",
        help="train alone: linear (the head), norms, or a number of last blocks",
    )
    group.add_argument(
        "--evaluations", type=int, metavar="N", help="on the validation images, in all"
    )


def _add_machine(parser):
    group = parser.add_argument_group("the machine")
    group.add_argument(
        "--precision",
        default="float32",
        metavar="POLICY",
        help="such as mixed_bfloat16 (%(default)s)",
    )
    group.add_argument(
        "--rematerialize",
        action="store_true",
        default=None,
        help="compute activations again for the gradients: slower, less memory",
    )
    group.add_argument(
        "--strategy",
        default="auto",
        metavar="NAME",
        help="auto (the default): all accelerators, on torch the processes of torchrun; "
        f"{', '.join(STRATEGIES[1:])}; with the devices that share a layer "
        "tensor_parallel:4, fully_sharded:4; fsdp is fully_sharded",
    )
    group.add_argument(
        "--multi-process",
        action="store_true",
        help="this is one of several processes of JAX, which Cloud TPU, SLURM (srun), Open "
        "MPI or Kubernetes have started, or KERAS_DISTRIBUTION_JOB_ADDRESSES, "
        "_NUM_PROCESSES and _PROCESS_ID describe",
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of all that is random (0)"
    )
    group.add_argument(
        "--save-freq",
        type=int,
        metavar="N",
        help="batches between the checkpoints from which the same command goes on when it "
        "is killed, beside one at each evaluation",
    )


def _finetune(args):
    if args.multi_process or is_asked_for():
        initialize()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_terminated_to_go_on())
        if not is_first_process():
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        return _trained(args)


@contextlib.contextmanager
def _terminated_to_go_on():
    """SIGTERM ends with the status for "run it again", also before and after `fit`."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit_to_go_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit_to_go_on(number, frame):
    raise SystemExit(EXIT_CODES[number])


def _trained(args):
    # In the order of what it costs: arguments, images, weights, training.
    run = RunFolder.check(args.output, args.overwrite, _given(args))
    goes_on = run.is_unfinished() and not args.overwrite
    settings, known = settings_of(args.set), known_model(args)
    keras.dtype_policies.get(args.precision)
    devices = strategy(args.strategy)
    data_given = data_arguments(
        args,
        found_again(args.data),
        splits=_splits(args.split) or None,
        validation_split=args.validation_split,
        test_split=args.test_split,
        seed=args.seed,
    )
    data = _checked(load_data(data_given))
    if goes_on:
        _check_same_images(run, data)
    recipe = recipe_of(args, data, settings, known)
    if known and not settings.keys() & RESIZING:
        keras_vit.describe(known, image_size=recipe.resolution)  # or an error
    print(_about_data(data))
    print(_about_recipe(recipe), flush=True)
    keras.utils.set_random_seed(args.seed)
    with devices:
        check_batches(recipe.micro_batch_size or recipe.batch_size)
        model = build(args, data, recipe, settings)
        recipe = _of_the_size(model, recipe, settings)
        data = configured(data, model, recipe)
        barrier()  # each has seen that it may write to the folder
        if is_first_process() and not goes_on:
            run.create(_config(args, data_given, data, model, recipe))
        if is_first_process():
            run.take()
            _keep_examples(run, data)
        finetune(
            model,
            data,
            recipe,
            evaluations=args.evaluations,
            resume=run.file(RESUME),
            save_freq="epoch" if args.save_freq is None else args.save_freq,
            callbacks=_callbacks(run, args.weights),
            verbose=1 if sys.stdout.isatty() else 2,
        )
    del model
    if is_first_process():
        _finish(run, data)
    barrier()  # where one ends, JAX ends the others
    return OK


def _keep_examples(run, data):
    """Also where the process was killed before; of other images that will be an error."""
    if (
        run.file(EXAMPLES).exists()
        or run.config()["data"]["fingerprint"] != data.fingerprint
    ):
        return
    if (found := digests(data)) is not None:
        run.keep_examples(found)


def _finish(run, data):
    """The result of the best checkpoint, its report, and where all is."""
    split = "test" if "test" in data.splits else "validation"
    classifier = load_classifier(run.path, data.pipeline.batch_size)
    evaluation = classifier.evaluate(data, split)
    report = write_report_of(classifier, evaluation, data, split, run.file(REPORT))
    run.finish(result_of(classifier, evaluation, split))
    print()
    print_result(evaluation, accuracy_name(data, split), loss_note(classifier))
    facts = [
        ("report", report),
        ("model", os.fspath(run.file(BEST))),
        ("predict", f"keras-vit predict {shlex.quote(os.fspath(run.path))} IMAGE …"),
    ]
    print(table(facts, left=(0, 1)))


def _splits(texts):
    """The parts of each split: one, or a list where it is named several times."""
    splits = {}
    for name, part in map(_split, texts):
        splits.setdefault(name, []).append(part)
    return {name: p[0] if len(p) == 1 else p for name, p in splits.items()}


def _split(text):
    name, equals, part = text.partition("=")
    if not equals or name not in ("train", "validation", "test") or not part:
        raise ValueError(
            "`--split` takes NAME=PART, where NAME is train, validation or test. "
            f"Received: {text!r}"
        )
    return name, part


def _checked(data):
    if "validation" not in data.splits:
        raise ValueError(
            "The best checkpoint is chosen on validation images. Received: "
            f"{data.name!r} without any. Give --split validation=…, or without --split "
            "--validation-split 0.2, or more images."
        )
    return data


def _check_same_images(run, data):
    """Raises a ValueError if the images of an unfinished training have changed."""
    before = run.config()["data"]
    if before["fingerprint"] == data.fingerprint:
        return
    counts = [_counts(examples) for examples in (before["examples"], data.num_examples)]
    changed = f"{counts[0]} before, {counts[1]} now"
    if counts[0] == counts[1]:
        changed = "as many, but some are others"
    raise ValueError(
        f"The training in {os.fspath(run.path)!r} is not finished, and the images are not "
        f"those that it was begun with: {changed}. Bring them back to go on with it, or "
        "give `--overwrite` to train anew."
    )


def _of_the_size(model, recipe, settings):
    """The recipe for the size that `--set` gave the model."""
    size = model.get_config()["image_size"]
    if settings.keys() & {"image_size", "input_shape"} and None not in size:
        return recipe.replace(resolution=size)
    return recipe


# What is written and printed.


def _callbacks(run, weights):
    """The files of the run, and a line on the model once the recipe has prepared it."""

    class Announcement(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            print(f"{_about_model(self.model, weights)}\n", flush=True)

        def resume(self, state, epochs):
            print(f"goes on after step {int(self.model.optimizer.iterations):,}\n")

    return [
        Announcement(),
        Progress(),
        Checkpoints(run.path),
        keras.callbacks.CSVLogger(run.file(METRICS)),
        EventFiles(run.file(TENSORBOARD)),
    ]


def _about_data(data):
    names = listed(data.class_names, most=6)
    return (
        f"data    {data.name}: {data.num_classes} classes ({names}); images: "
        f"{_counts(data.num_examples)}"
    )


def _counts(examples):
    return ", ".join(f"{n:,} {split}" for split, n in examples.items())


def _about_recipe(recipe):
    parts = [
        f"{type(recipe).__name__}: {recipe.steps:,} steps of {recipe.batch_size} images",
        f"{recipe.algorithm} with a learning rate of {recipe.base_learning_rate:g}",
    ]
    if recipe.gradient_accumulation_steps > 1:
        parts[0] += f" ({recipe.micro_batch_size} at a time)"
    options = ("weight_decay", "layerwise_decay", "label_smoothing", "ema_momentum")
    for name in (*options, "freeze", "lora_rank", "rematerialize"):
        value, default = getattr(recipe, name), Recipe.__dataclass_fields__[name].default
        if value != default:
            parts.append(f"{name.replace('_', ' ')} {value}")
    if not recipe.augmentation.flip:
        parts.append("no mirroring")
    return f"recipe  {', '.join(parts)}"


def _about_model(model, weights):
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    total = model.count_params()
    some = "all trained" if trainable == total else f"{trainable:,} of them trained"
    height, width = model.get_config()["image_size"]
    origin = {None: "from its default weights", NO_WEIGHTS: "from scratch"}
    origin = origin.get(weights, f"from {weights}")
    return (
        f"model   {model_name(model.get_config())} {origin}, images of {height} × "
        f"{width}; {total:,} parameters, {some}"
    )


def _config(args, data_given, data, model, recipe):
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "arguments": _given(args),
        "seed": args.seed,
        "class_names": data.class_names,
        "data": {
            "arguments": data_given,
            "name": data.name,
            "examples": data.num_examples,
            "fingerprint": data.fingerprint,
        },
        "images": image_fields(data.pipeline),
        "activation": recipe.loss,
        "recipe": {"name": type(recipe).__name__, **dataclasses.asdict(recipe)},
        "model": {
            "weights": args.weights,
            "parameters": model.count_params(),
            "config": model.get_config(),
        },
        "backend": keras.backend.backend(),
        "machine": platform.platform(),
        "packages": _versions(),
    }


def _given(args):
    """The arguments that say what is trained."""
    others = ("argv", "run", "command", "traceback", "overwrite", "save_freq")
    others += ("multi_process",)
    return {
        name: value
        for name, value in vars(args).items()
        if value is not None and name not in others
    }


def _versions():
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
