"""Cells of the table: what a cell runs, what it costs, and what it has measured."""

import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import keras_vit
from benchmarks.paper.rows import COLUMNS, IMAGENET, REAL, VTAB, Column, Model
from keras_vit import runs
from keras_vit.cost import cost
from keras_vit.data.tfds import find_prepared
from keras_vit.evaluation.imagenet import TEST_SETS
from keras_vit.evaluation.vtab import TASKS
from keras_vit.output_paths import partial_path
from keras_vit.presets import UnknownPresetError, find_preset
from keras_vit.runs.folder import RESULTS
from keras_vit.training import VTAB as VTAB_RECIPE
from keras_vit.training import BiTHyperRule, Recipe, ViTFineTuning

BACKWARD = 2  # times the forward pass
UNTRAINED = "the paper does not fine-tune this network"


@dataclass(frozen=True)
class Setting:
    """The machine and the folders of all cells.

    Attributes:
        output: folder of the runs.
        data_dir: folder of TensorFlow Datasets' data; `None` for its default.
        seeds: random seeds of each fine-tuning.
        options: further arguments of `runs.fine_tune` and of `runs.evaluate_vtab`:
            `dtype` and `strategy`.
        recipe_options: fields of the recipes, such as `steps`, for a trial.
    """

    output: Path
    data_dir: str | None = None
    seeds: Sequence[int] = (0, 1, 2)
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A model and a data set.

    Args:
        model: the row.
        column: the column.
        setting: the machine and the folders.
    """

    model: Model
    column: Column
    setting: Setting

    @property
    def title(self) -> str:
        """The row and the column in print."""
        return f"{self.model.name} ({self.model.data}), {self.column.title}"

    @property
    def published(self) -> float | None:
        """The paper's accuracy in percent, or `None`."""
        return self.model.published.get(self.column.name)

    @property
    def is_trained(self) -> bool:
        """True if the model is fine-tuned for this cell."""
        return self.model.recipe is not None and self.column.name != REAL

    @property
    def seeds(self) -> Sequence[int]:
        """Seeds of the cell: a checkpoint that is not fine-tuned is evaluated once."""
        return self.setting.seeds if self.model.recipe else self.setting.seeds[:1]

    def folder(self, seed: int) -> Path:
        """Folder of a run, or of the result of an evaluation."""
        row = file_name(f"{self.model.name} {self.model.data}")
        return self.setting.output / row / self.column.name / f"seed-{seed}"

    def missing(self) -> str:
        """Names the weights or the data that are not there; `""` if nothing is missing."""
        if self.model.preset is None:
            return "weights are not published"
        if self.model.recipe is None and self.column.name not in TEST_SETS:
            return UNTRAINED
        if self.column.name == VTAB:
            states = runs.vtab_states(data_dir=self.setting.data_dir)
            absent = [state.task.name for state in states if state.state == "missing"]
            return f"data not prepared: {', '.join(absent)}" if absent else ""
        name = TEST_SETS[REAL].tfds if self.column.name == REAL else self.column.data
        if os.path.exists(name) or find_prepared(name, self.setting.data_dir) is not None:
            return self._missing_runs()
        return f"data not prepared: tfds build {name}"

    def _missing_runs(self) -> str:
        if self.column.name != REAL or self.model.recipe is None:
            return ""
        trained = self._imagenet()
        absent = [seed for seed in self.seeds if trained._accuracy(seed) is None]
        return "needs the runs of ImageNet" if absent else ""

    def _imagenet(self) -> "Cell":
        column = next(column for column in COLUMNS if column.name == IMAGENET)
        return Cell(self.model, column, self.setting)

    def accuracies(self) -> list[float]:
        """Accuracies in percent that were measured, in the order of the seeds."""
        found = [self._accuracy(seed) for seed in self.seeds]
        return [100 * accuracy for accuracy in found if accuracy is not None]

    def _accuracy(self, seed: int) -> float | None:
        path = self.folder(seed) / RESULTS
        if not path.exists():
            return None
        results = json.loads(path.read_text("utf-8"))
        if self.column.name == VTAB:  # no mean of some of the tasks
            mean = results["means"]["all"]
            return mean["accuracy"] if mean["tasks"] == mean["of"] else None
        return results["accuracy"]

    def run(self, seed: int, say: Any = print) -> None:
        """Measures the accuracy with a seed; resumes what was killed, repeats nothing.

        Raises:
            ValueError: if the model, the data or the folder do not fit.
            OSError: if weights cannot be downloaded, or a file cannot be written.
        """
        if self._accuracy(seed) is not None:
            return
        folder, setting = self.folder(seed), self.setting
        if self.column.name == VTAB:
            recipe = self.recipe().replace(**setting.recipe_options)
            runs.evaluate_vtab(
                self.model.preset,
                folder,
                protocol="finetune",
                recipe=recipe,
                seed=seed,
                data_dir=setting.data_dir,
                say=say,
                **setting.options,
            )
        elif self.is_trained:
            runs.fine_tune(
                self.column.data,
                folder,
                weights=self.model.preset,
                recipe=self.model.recipe,
                seed=seed,
                data_dir=setting.data_dir,
                say=say,
                **self._options(),
            )
        else:
            trained = self._imagenet().folder(seed)
            result = runs.evaluate_imagenet(
                trained if self.model.recipe else self.model.preset,
                self.column.name,
                data_dir=setting.data_dir,
            )
            folder.mkdir(parents=True, exist_ok=True)
            with partial_path(folder / RESULTS) as part:
                Path(part).write_text(json.dumps(result.summary()), "utf-8")

    def _options(self) -> dict[str, Any]:
        options = {**self.column.options, **self.setting.options}
        size = self.model.image_size
        if self.column.name == IMAGENET:
            size = self.model.imagenet_size
        if size is not None:
            options["image_size"] = size
        if self.model.recipe == "bit":  # averaged weights are the ViT paper's
            options.pop("ema_momentum", None)
        return {**options, **self.setting.recipe_options}

    def recipe(self) -> Recipe:
        """The recipe of fine-tuning, with the paper's hyperparameters for the data."""
        if self.model.recipe == "bit":
            column = self.column
            return BiTHyperRule.for_data(column.num_examples, column.image_size)
        recipe: Recipe = VTAB_RECIPE()
        if self.column.name != VTAB:
            recipe = ViTFineTuning.for_data(self.column.name)
        size = self._options().get("image_size", recipe.image_size)
        return recipe.replace(image_size=size)

    def command(self, seed: int) -> str:
        """The command that measures the same."""
        folder, preset = self.folder(seed), self.model.preset
        if self.column.name == VTAB and self.model.recipe == "bit":
            # `keras-vit vtab` has the ViT paper's recipe alone.
            words = ["--row", self.model.name, "--column", VTAB, "--seeds", seed]
            words = ["python", "-m", "benchmarks.paper", self.setting.output, *words]
            return shlex.join(map(str, words))
        if self.column.name == VTAB:
            words = ["vtab", "--model", preset, "--protocol", "finetune", "--seed", seed]
            words += ["--output", folder]
            if self.model.image_size:
                words += ["--image-size", self.model.image_size]
            words += _as_options(self.setting.options)
        elif self.is_trained:
            words = ["finetune", self.column.data, "--weights", preset]
            words += ["--recipe", self.model.recipe, "--seed", seed, "--output", folder]
            words += _as_options(self._options())
        else:
            source = self._imagenet().folder(seed) if self.model.recipe else preset
            words = ["evaluate", source, "--imagenet", self.column.name]
        if self.setting.data_dir is not None:
            words += ["--data-dir", self.setting.data_dir]
        return shlex.join(["keras-vit", *map(str, words)])

    def exaflops(self) -> float:
        """Compute of all runs of the cell, in 10^18 operations, without evaluations."""
        if not self.is_trained:
            return 0.0
        recipe = self.recipe().replace(**self.setting.recipe_options)
        config = _config(self.model.preset)
        image = 2 * cost(config, image_size=recipe.image_size).multiply_accumulates
        images = recipe.steps * recipe.batch_size * (1 + BACKWARD)
        tasks = len(TASKS) if self.column.name == VTAB else 1
        return len(self.seeds) * tasks * images * image / 1e18


def file_name(name: str) -> str:
    """A name in print as part of a path."""
    return re.sub(r"\W+", "-", name).lower()


def _config(source: str) -> Mapping[str, Any]:
    """Arguments of the model of a preset, or of a file."""
    try:
        return find_preset(source).config()
    except UnknownPresetError:
        return keras_vit.from_pretrained(source).get_config()


def _as_options(options: Mapping[str, Any]) -> Iterable[str]:
    """Options of the command line for arguments of `runs.fine_tune`."""
    for name, value in options.items():
        if name == "splits":
            for split, expression in value.items():
                yield from ("--split", f"{split}={expression}")
        else:
            yield from (f"--{name.replace('_', '-')}", str(value))


def mean_and_deviation(accuracies: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation of two or more accuracies."""
    return fmean(accuracies), stdev(accuracies) if len(accuracies) > 1 else None
