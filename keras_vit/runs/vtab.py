"""`evaluate_vtab`: a checkpoint judged on VTAB-1k, task by task, into a folder."""

import datetime
import gc
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras

from keras_vit import arguments
from keras_vit.distribution import is_first_process
from keras_vit.distribution import strategy as strategy_by_name
from keras_vit.evaluation.feature_key import model_digest
from keras_vit.evaluation.vtab import Scores, Task, TaskScore
from keras_vit.evaluation.vtab.data import is_prepared, prepare_command
from keras_vit.evaluation.vtab.protocols import (
    PROTOCOLS,
    TaskFeatures,
    check_protocol,
    score_features,
    score_tasks,
)
from keras_vit.evaluation.vtab.tasks import chosen
from keras_vit.log import log
from keras_vit.runs.classifier import load_model
from keras_vit.runs.descriptions import recipe_fields
from keras_vit.runs.results import model_name
from keras_vit.runs.scores_folder import FEATURES, REPORT, RESULTS, ScoresFolder
from keras_vit.runs.vtab_report import write_vtab_report
from keras_vit.runs.vtab_training import fine_tune_on_task
from keras_vit.tables import percent
from keras_vit.training import VTAB, Recipe

FINETUNE = "finetune"
VTAB_PROTOCOLS: tuple[str, ...] = (*PROTOCOLS, FINETUNE)


@dataclass(frozen=True, eq=False)
class VtabResult:
    """Scores on VTAB's tasks, and the folder that holds them.

    Attributes:
        path: path of the folder.
        scores: accuracies and means; which tasks have none, and why.
    """

    path: Path
    scores: Scores

    @property
    def report(self) -> Path:
        """Path of the HTML report."""
        return self.path / REPORT / "index.html"

    @property
    def results(self) -> Path:
        """Path of the JSON file with all scores and means."""
        return self.path / RESULTS


def evaluate_vtab(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    tasks: str | Iterable[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    protocol: str = "linear",
    layer: str = "pooled",
    cache_dir: str | os.PathLike[str] | None = None,
    recipe: Recipe | None = None,
    batch_size: int | None = None,
    dtype: str = "float32",
    strategy: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
    verbose: str | int = "auto",
    say: Callable[[str], None] = log.info,
    **overrides: Any,
) -> VtabResult:
    """Judges a checkpoint on the tasks of VTAB-1k, as `keras-vit vtab` does.

    Each finished task is a JSON file in the folder. Called again, finished tasks are read
    and the others are run, so an evaluation that was killed is resumed; a training is
    resumed bit for bit. A task whose data is not prepared, or that fails, is listed and
    does not end the others.

    Args:
        source: the folder of a run, or anything that `keras_vit.from_pretrained` takes.
        output: folder for the results of one checkpoint and one protocol.
        tasks: names of tasks in `keras_vit.evaluation.vtab.TASKS`, or of groups; `None`
            for all nineteen.
        data_dir: folder of TensorFlow Datasets' data; `None` for its default. Nothing is
            downloaded.
        protocol: `"linear"` or `"few-shot"`, classifiers on fixed features, see
            `keras_vit.evaluation.vtab.evaluate`; or `"finetune"`, which trains the whole
            model on the 1,000 examples and tests its last state, as the papers do.
        layer: output of the model whose features are classified, see
            `keras_vit.evaluation.extract_features`.
        cache_dir: folder in which features stay; `None` for `features` in the output.
        recipe: recipe of the fine-tuning; `None` for `keras_vit.training.VTAB()`.
        batch_size: images in a batch of features (32), or in each update of the recipe.
        dtype: name of the dtype policy, such as `"mixed_bfloat16"`.
        strategy: name for `keras_vit.distribution.strategy`.
        seed: random seed of the fine-tuning.
        overwrite: whether to run tasks again that are finished.
        verbose: as in `predict` and `fit` of Keras.
        say: called with a line of text on each task; by default it goes to the log.
        **overrides: arguments of `keras_vit.from_pretrained`. With `image_size` features
            and training are of that size; else features of the checkpoint's, and training
            of the recipe's.

    Returns:
        A `VtabResult`.

    Raises:
        FileNotFoundError: if the checkpoint does not exist.
        ValueError: if an argument is refused, or the folder holds results of other
            settings.

    Example:

    >>> result = keras_vit.runs.evaluate_vtab("ViTB16.imagenet21k", "vtab/b16")
    >>> print(result.scores)
    """
    rows = chosen(tasks)
    options = {name: v for name, v in overrides.items() if v is not None}
    if arguments.one_of(protocol, VTAB_PROTOCOLS, "protocol") == FINETUNE:
        recipe = _recipe(recipe, batch_size, options)
        options |= {"image_size": recipe.image_size, "classes": 0, "trainable": True}
    else:
        check_protocol(protocol)
        if recipe is not None:
            raise ValueError(
                "`recipe` is for protocol='finetune'. Received: a recipe with "
                f"protocol={protocol!r}. Leave it out."
            )
    output = Path(output)
    with strategy_by_name(strategy):
        model, _, _ = load_model(source, dtype=dtype, **options)
        settings = {"protocol": protocol, "model": _fingerprint(model)}
        if protocol == FINETUNE:
            settings |= {"recipe": recipe_fields(recipe), "seed": seed}
        else:
            settings["layer"] = layer
        folder = ScoresFolder(output, settings)
        folder.create()
        done = {} if overwrite else _finished(folder, rows)
        if protocol == FINETUNE:
            run = partial(
                fine_tune_on_task,
                *(model, recipe, folder),
                data_dir=data_dir,
                seed=seed,
                verbose=verbose,
            )
        else:
            cache = output / FEATURES if cache_dir is None else cache_dir
            pipeline = {"batch_size": batch_size} if batch_size else {}
            reading = (data_dir, layer, cache, verbose, pipeline)
            run = partial(score_features, protocol, TaskFeatures(model, *reading))
        if overwrite:
            for task in rows:
                folder.delete(task.name)
        score = partial(_score, run, folder, source, say)
        rest = [task for task in rows if task.name not in done]
        for name in done:
            say(f"{name}: finished earlier")
        new = score_tasks(rest, data_dir, protocol, score, say)
    scores = Scores(protocol, {**done, **new.scores}, new.missing, new.failed)
    return _finish(folder, scores, source, model)


def _recipe(recipe, batch_size, options) -> Recipe:
    """The recipe of a fine-tuning, changed by options, of which it takes `image_size`."""
    recipe = VTAB() if recipe is None else recipe
    changes = {"batch_size": batch_size, "image_size": options.pop("image_size", None)}
    return recipe.replace(**{name: v for name, v in changes.items() if v is not None})


def _fingerprint(model):
    """Name of the size of a model, and a digest of its config and weights."""
    return f"{model_name(model.get_config())} {model_digest(model)[:16]}"


def _finished(folder, tasks) -> dict[str, TaskScore]:
    found = {task.name: folder.read(task.name) for task in tasks}
    return {name: score for name, score in found.items() if score is not None}


def _score(run, folder, source, say, task: Task) -> TaskScore:
    """Scores a task, and keeps the score in the folder."""
    say(f"{task.name}: {task.data_set}, {task.num_classes} classes")
    start = time.monotonic()
    score = run(task)
    gc.collect()  # a trained model has circles
    if is_first_process():
        facts = {
            "source": os.fspath(source),
            "seconds": round(time.monotonic() - start, 1),
            "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "backend": keras.backend.backend(),
            "machine": platform.platform(),
        }
        folder.write(task.name, score, facts)
    say(f"{task.name}: accuracy {percent(score.accuracy)}")
    return score


def _finish(folder, scores, source, model) -> VtabResult:
    """Writes the results of all tasks, and the report."""
    result = VtabResult(folder.path, scores)
    if is_first_process():
        folder.write_results({"source": os.fspath(source), **scores.summary()})
        name = model_name(model.get_config())
        settings = {"source": os.fspath(source), **folder.settings}
        write_vtab_report(folder.path / REPORT, scores, name, settings)
    return result


# What would be run.


@dataclass(frozen=True)
class TaskState:
    """State of a task before an evaluation.

    Attributes:
        task: the task.
        state: `"finished"`, if the folder has a result; `"ready"`, if its data is
            prepared; `"missing"`, if it is not.
        command: the command that prepares the data.
    """

    task: Task
    state: str
    command: str


def vtab_states(
    output: str | os.PathLike[str] | None = None,
    *,
    tasks: str | Iterable[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> list[TaskState]:
    """The tasks that `evaluate_vtab` would run, and those whose data is not there.

    Nothing is loaded but the names of files. Results in the folder count as finished,
    whatever their settings.

    Args:
        output: see `evaluate_vtab`.
        tasks: see `evaluate_vtab`.
        data_dir: see `evaluate_vtab`.

    Raises:
        ValueError: if a task is unknown.
    """
    folder = None if output is None else ScoresFolder(Path(output), {})
    states = []
    for task in chosen(tasks):
        state = "ready" if is_prepared(task, data_dir) else "missing"
        if folder is not None and folder.task_path(task.name).exists():
            state = "finished"
        states.append(TaskState(task, state, prepare_command(task, data_dir)))
    return states
