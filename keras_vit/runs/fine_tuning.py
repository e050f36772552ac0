"""`fine_tune`: from images and a checkpoint to a run folder."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_vit.distribution import barrier, is_first_process
from keras_vit.distribution import strategy as strategy_by_name
from keras_vit.distribution.checks import check_batches
from keras_vit.log import log
from keras_vit.runs.callbacks import Checkpoints, StudentCheckpoints
from keras_vit.runs.choices import build_model, choose_recipe, find_known_name
from keras_vit.runs.classifier import load_classifier
from keras_vit.runs.descriptions import describe_data, describe_recipe, recipe_fields
from keras_vit.runs.experiment import (
    begin,
    check_same_images,
    configuration,
    run_callbacks,
    with_size_of,
)
from keras_vit.runs.folder import BEST, REPORT, RESUME, RunFolder
from keras_vit.runs.images import absolute_source, load_data
from keras_vit.runs.options import sort_options
from keras_vit.runs.results import EvaluationResult
from keras_vit.runs.teachers import check_teacher, distilled
from keras_vit.training.finetune import finetune, prepare_data
from keras_vit.training.recipe import Recipe
from keras_vit.zoo.description import describe

# Options by which a model takes other image sizes than the architecture's.
_RESIZING = {"input_shape", "patch_size", "stem"}


@dataclass(frozen=True, eq=False)
class FineTuningResult:
    """The run folder of `fine_tune`, and the result of its best checkpoint.

    Attributes:
        run: the folder; `run.history()` and `run.config()` read its files.
        result: the `EvaluationResult` on the test images, or on the validation images
            without any; `None` on processes other than the first.
    """

    run: RunFolder
    result: EvaluationResult | None

    @property
    def best_checkpoint(self) -> Path:
        """Path of the checkpoint with the best validation accuracy."""
        return self.run.file(BEST)

    @property
    def report(self) -> Path:
        """Path of the HTML report."""
        return self.run.file(REPORT) / "index.html"


def fine_tune(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    recipe: str | Recipe = "auto",
    teacher: str | os.PathLike[str] | None = None,
    distillation: str | None = None,
    epochs: float | None = None,
    evaluations: int | None = None,
    dtype: str = "float32",
    strategy: str = "auto",
    seed: int = 0,
    save_freq: int | None = None,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
    say: Callable[[str], None] = log.info,
    **options: Any,
) -> FineTuningResult:
    """Fine-tunes a model on images and writes a run folder, as `keras-vit finetune` does.

    The folder holds the configuration, the metrics, the best and the last checkpoint, the
    test result and an HTML report. Called again with the same arguments after it was
    killed, it resumes, bit for bit.

    Args:
        data: a folder of images, a CSV file, or the name of a data set of TensorFlow
            Datasets, as in `keras_vit.data.load`.
        output: the run folder.
        model: name of a constructor, such as `"ViTB16"`; `None` for the architecture of
            the checkpoint in `weights`.
        weights: with `model` one of its tags, `None` for its default or `"none"` to train
            from scratch; without it a preset, a file, an address or another run's folder.
        recipe: `"auto"` (`"bit"` for the ResNets, else `"small"`), `"small"`, `"vit"`,
            `"vtab"`, `"bit"`, `"bigvision"`, `"deit"`, or a `keras_vit.training.Recipe`.
        teacher: a classifier of the same classes from whose answers the model learns beside
            the labels: a preset, a file, an address or another run's folder; see
            `keras_vit.pretraining.Distillation`. `None` for the labels alone.
        distillation: `"hard"` (the default with a teacher) or `"soft"`.
        epochs: passes over the training images, instead of `steps`.
        evaluations: number of evaluations on the validation images.
        dtype: name of the dtype policy, such as `"mixed_bfloat16"`.
        strategy: name for `keras_vit.distribution.strategy`.
        seed: random seed of the splits, the order, the augmentation and new weights.
        save_freq: batches between the checkpoints to resume from; `None` for one at each
            evaluation.
        overwrite: whether to replace a training that is in the folder.
        callbacks: further callbacks for `fit`.
        verbose: as in `fit`.
        say: called with a line of text on the data, the recipe and the model, and when a
            training is resumed; by default they go to the log.
        **options: arguments of `keras_vit.data.load` (`validation_split=0.2`), fields of
            the recipe (`steps=500`, `base_learning_rate=0.001`, `image_size=384`) and of
            its augmentation (`flip=False`, `crop`, `evaluation_crop`), arguments of the
            model (`layer_norm_epsilon=1e-6`).

    Returns:
        A `FineTuningResult`.

    Raises:
        FileNotFoundError: if the images or the checkpoint do not exist.
        TypeError: if nothing takes one of `options`.
        ValueError: if an argument is refused, an image cannot be read, there are no
            validation images, or the folder holds something else.

    Example:

    >>> trained = keras_vit.runs.fine_tune("flowers", "runs/flowers", model="ViTB16")
    >>> trained.result.evaluation.accuracy
    """
    # In the order of their cost: arguments, images, weights, training.
    weights = None if weights is None else os.fspath(weights)
    teacher = None if teacher is None else os.fspath(teacher)
    check_teacher(teacher, distillation)
    sorted_options = sort_options(options)
    source = absolute_source(data)
    arguments = {
        "data": source,
        "model": model,
        "weights": weights,
        "recipe": recipe_fields(recipe) if isinstance(recipe, Recipe) else recipe,
        "teacher": teacher,
        "distillation": distillation,
        "epochs": epochs,
        "evaluations": evaluations,
        "dtype": dtype,
        "strategy": strategy,
        "seed": seed,
        **options,
    }
    arguments = {name: v for name, v in arguments.items() if v is not None}
    run = RunFolder.check(output, overwrite, arguments)
    resumes = run.is_unfinished() and not overwrite
    known_name = find_known_name(model, weights)
    keras.dtype_policies.get(dtype)  # or an error
    devices = strategy_by_name(strategy)
    data_arguments = {"source": source, **sorted_options.data, "seed": seed}
    images = load_data(data_arguments)
    _check_validation(images)
    if resumes:
        check_same_images(run, images)
    chosen = choose_recipe(
        recipe, images, sorted_options, epochs=epochs, known_name=known_name
    )
    if known_name and not sorted_options.model.keys() & _RESIZING:
        describe(known_name, image_size=chosen.image_size)  # or an error
    say(describe_data(images))
    say(describe_recipe(chosen))
    keras.utils.set_random_seed(seed)
    with devices:
        check_batches(chosen.micro_batch_size or chosen.batch_size)
        network = build_model(
            model, weights, images, chosen, dtype=dtype, overrides=sorted_options.model
        )
        chosen = with_size_of(network, chosen, sorted_options.model)
        images = prepare_data(images, network, chosen)
        barrier()  # every process has checked the folder
        config = configuration(arguments, data_arguments, images, network, chosen)
        trained = network
        if teacher is not None:
            trained = distilled(network, teacher, distillation, images, chosen)
        begin(run, images, config, resumes)
        checkpoints = (Checkpoints if teacher is None else StudentCheckpoints)(run.path)
        finetune(
            trained,
            images,
            chosen,
            evaluations=evaluations,
            resume=run.file(RESUME),
            save_freq="epoch" if save_freq is None else save_freq,
            callbacks=[
                *run_callbacks(run, checkpoints, weights, say),
                *callbacks,
            ],
            verbose=verbose,
        )
    del network, trained
    result = _finish(run, images) if is_first_process() else None
    barrier()  # when one process ends, JAX ends the others
    return FineTuningResult(run, result)


def _check_validation(data):
    if "validation" not in data.splits:
        raise ValueError(
            "The best checkpoint is chosen on validation images. Received: "
            f"{data.name!r} without any. Give splits={{'validation': …}}, or without "
            "`splits` validation_split=0.2, or more images."
        )


def _finish(run, data):
    """Evaluates the best checkpoint, and writes the report and the results."""
    split = "test" if "test" in data.splits else "validation"
    classifier = load_classifier(run.path, data.pipeline.batch_size)
    evaluation = classifier.evaluate(data, split)
    result = EvaluationResult(classifier, data, split, evaluation)
    result.write_report(run.file(REPORT))
    run.finish(result.summary())
    return result
