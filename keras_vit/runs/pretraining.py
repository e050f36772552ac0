"""`pretrain`: from images, without labels, to a run folder with an encoder."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_vit import arguments as checks
from keras_vit.distribution import barrier, is_first_process
from keras_vit.distribution import strategy as strategy_by_name
from keras_vit.distribution.checks import check_batches
from keras_vit.log import log
from keras_vit.runs.callbacks import EncoderCheckpoints
from keras_vit.runs.choices import NO_WEIGHTS, find_known_name
from keras_vit.runs.descriptions import describe_data, describe_recipe, recipe_fields
from keras_vit.runs.experiment import (
    begin,
    check_same_images,
    configuration,
    run_callbacks,
    with_size_of,
)
from keras_vit.runs.folder import BEST, METRICS, REPORT, RESUME, RunFolder
from keras_vit.runs.images import absolute_source, load_data
from keras_vit.runs.neighbor_accuracy import METRIC, NeighborAccuracy
from keras_vit.runs.objectives import OBJECTIVES
from keras_vit.runs.options import Options, sort_options
from keras_vit.runs.pretraining_choices import (
    build_encoder,
    build_model,
    choose_pretraining_recipe,
)
from keras_vit.runs.pretraining_report import write_pretraining_report
from keras_vit.training.finetune import prepare_data
from keras_vit.training.pretrain import pretrain as train
from keras_vit.training.pretraining_recipes import SelfSupervisedRecipe

VALIDATION_SPLIT = 0.1  # where the data has no validation images of its own


@dataclass(frozen=True, eq=False)
class PreTrainingResult:
    """The run folder of `pretrain`, and the numbers of its best checkpoint.

    Attributes:
        run: the folder; `run.history()` and `run.config()` read its files.
        summary: the numbers by name, as `results.json` holds them; `None` on processes
            other than the first.
    """

    run: RunFolder
    summary: Mapping[str, Any] | None

    @property
    def encoder(self) -> Path:
        """Path of the encoder of the best checkpoint."""
        return self.run.file(BEST)

    @property
    def report(self) -> Path:
        """Path of the HTML report."""
        return self.run.file(REPORT) / "index.html"


def pretrain(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    objective: str = "masked_autoencoder",
    model: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    recipe: str | SelfSupervisedRecipe = "auto",
    labels: str = "optional",
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
) -> PreTrainingResult:
    """Pre-trains an encoder without labels and writes a run folder.

    It is `keras-vit pretrain` from Python.

    The folder holds the configuration, the metrics, the encoder of the best and the whole
    model of the last step, and an HTML report with pictures of what was learned. It can be
    given as `weights` to `fine_tune`, and to `keras_vit.from_pretrained`. Called again with
    the same arguments after it was killed, it resumes, bit for bit.

    Args:
        data: a folder of images, a CSV file, or the name of a data set of TensorFlow
            Datasets, as in `keras_vit.data.load`.
        output: the run folder.
        objective: `"masked_autoencoder"` (MAE, arXiv 2111.06377),
            `"masked_patch_prediction"` (ViT, arXiv 2010.11929, appendix B.1.2) or
            `"self_distillation"` (DINO, arXiv 2104.14294), whose teacher is kept, of the
            last evaluation.
        model: name of a constructor, such as `"ViTB16"`; `None` for the architecture of
            the checkpoint in `weights`.
        weights: `None` or `"none"` for new weights. With `model` one of its tags, without
            it a preset, a file, an address or another run's folder, to train further.
        recipe: `"auto"`, `SmallPreTraining` with hyperparameters chosen by the size of the
            data set; `"paper"`, the recipe of the objective's paper; or a
            `keras_vit.training.SelfSupervisedRecipe`.
        labels: `"optional"`, where labels are read if there are any, or `"none"`, see
            `keras_vit.data.load`. They are not trained on: they tell how many of the
            encoder's nearest neighbours are of the same class, at each evaluation.
        epochs: passes over the training images, instead of `steps`.
        evaluations: number of evaluations on the validation images.
        dtype: name of the dtype policy, such as `"mixed_bfloat16"`.
        strategy: name for `keras_vit.distribution.strategy`.
        seed: random seed of the splits, the order, the augmentation, new weights, and of
            what the objective hides.
        save_freq: batches between the checkpoints to resume from; `None` for one at each
            evaluation.
        overwrite: whether to replace a training that is in the folder.
        callbacks: further callbacks for `fit`.
        verbose: as in `fit`.
        say: called with a line of text on the data, the recipe and the model, and when a
            training is resumed; by default they go to the log.
        **options: arguments of `keras_vit.data.load` (`validation_split`, here 0.1 by
            default), of the objective's model (`mask_ratio`), fields of the recipe
            (`steps=500`, `image_size=96`) and of its augmentation (`flip=False`, `crop`),
            arguments of the encoder (`num_layers=6`).

    Returns:
        A `PreTrainingResult`.

    Raises:
        FileNotFoundError: if the images or the checkpoint do not exist.
        TypeError: if nothing takes one of `options`.
        ValueError: if an argument is refused, an image cannot be read, there are no
            validation images, or the folder holds something else.

    Example:

    >>> pretrained = keras_vit.runs.pretrain("photos", "runs/mae", model="ViTS16")
    >>> keras_vit.runs.fine_tune("flowers", "runs/flowers", weights="runs/mae")
    """
    # In the order of their cost: arguments, images, weights, training.
    chosen_objective = OBJECTIVES[checks.one_of(objective, tuple(OBJECTIVES), "objective")]
    checks.one_of(labels, ("optional", "none"), "labels")
    weights = None if weights is None else os.fspath(weights)
    sorted_options = sort_options(options, "pretrain", objective=chosen_objective.options)
    source = absolute_source(data)
    arguments = {
        "command": "pretrain",
        "data": source,
        "objective": objective,
        "model": model,
        "weights": weights,
        "recipe": recipe if isinstance(recipe, str) else recipe_fields(recipe),
        "labels": labels,
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
    find_known_name(model, weights)  # or an error
    keras.dtype_policies.get(dtype)  # or an error
    devices = strategy_by_name(strategy)
    data_arguments = _data_arguments(source, labels, seed, sorted_options)
    images = load_data(data_arguments)
    _check_validation(images)
    if resumes:
        check_same_images(run, images)
    is_new = weights in (None, NO_WEIGHTS)
    chosen = choose_pretraining_recipe(
        recipe, chosen_objective, images, sorted_options, epochs=epochs, is_new=is_new
    )
    say(describe_data(images))
    say(f"objective  {chosen_objective.title}, {chosen_objective.paper}")
    say(describe_recipe(chosen))
    keras.utils.set_random_seed(seed)
    with devices:
        check_batches(chosen.micro_batch_size or chosen.batch_size)
        encoder = build_encoder(
            model, weights, chosen_objective, chosen, dtype, sorted_options.model
        )
        chosen = with_size_of(encoder, chosen, sorted_options.model)
        network = build_model(
            chosen_objective, encoder, chosen, seed, sorted_options.objective
        )
        images = prepare_data(images, encoder, chosen, label_mode="int")
        if chosen_objective.streams:
            chosen_objective.streams(images, network)  # or an error, before the folder
        barrier()  # every process has checked the folder
        config = configuration(arguments, data_arguments, images, encoder, chosen)
        config["objective"] = {"name": objective, **_own_config(network)}
        begin(run, images, config, resumes)
        neighbors = [NeighborAccuracy(images)] if images.class_names else []
        checkpoints = EncoderCheckpoints(
            run.path, chosen_objective.monitor, chosen_objective.mode
        )
        train(
            network,
            images,
            chosen,
            evaluations=evaluations,
            resume=run.file(RESUME),
            save_freq="epoch" if save_freq is None else save_freq,
            callbacks=[
                *neighbors,  # first: the others write what it adds to the logs
                *run_callbacks(run, checkpoints, weights or NO_WEIGHTS, say),
                *callbacks,
            ],
            verbose=verbose,
            streams=chosen_objective.streams,
        )
    del network, encoder
    summary = None
    if is_first_process():
        before = neighbors[0].before if neighbors else None
        summary = _finish(run, images, chosen_objective, before)
    barrier()  # when one process ends, JAX ends the others
    return PreTrainingResult(run, summary)


def _data_arguments(source, labels, seed, options: Options) -> dict[str, Any]:
    given = {"source": source, "labels": labels, **options.data, "seed": seed}
    if "splits" not in given:
        given = {"validation_split": VALIDATION_SPLIT} | given
    return given


def _check_validation(data):
    if "validation" not in data.splits:
        raise ValueError(
            "The best checkpoint is chosen on validation images. Received: "
            f"{data.name!r} without any. Give splits={{'validation': …}}, or without "
            "`splits` validation_split=0.1, or more images."
        )


def _own_config(network) -> dict[str, Any]:
    """The arguments of the model around the encoder."""
    others = ("encoder", "dtype", "name", "trainable", "trainable_parts")
    return {n: v for n, v in network.get_config().items() if n not in others}


def _finish(run, data, objective, before) -> dict[str, Any]:
    """Writes the report and the results."""
    summary = _summary(run.history(), objective, before)
    write_pretraining_report(run, data, objective, summary)
    run.finish(summary)
    return summary


def _summary(history, objective, before) -> dict[str, Any]:
    """The numbers of the best evaluation by name."""
    if not history:
        raise ValueError(f"The training has no evaluation in {METRICS!r}.")
    pick = min if objective.mode == "min" else max
    values = history[objective.monitor]
    best = values.index(pick(values))
    summary = {"step": int(history["step"][best]), "steps": int(history["step"][-1])}
    summary |= {
        name.removeprefix("val_"): column[best]
        for name, column in history.items()
        if name.startswith("val_") and name != METRIC
    }
    if METRIC in history:
        summary["knn_accuracy"] = history[METRIC][best]
        summary["knn_accuracy_before"] = before
    return summary
