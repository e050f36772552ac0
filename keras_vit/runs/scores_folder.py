"""The files of an evaluation on several tasks: a result for each task."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_vit._version import __version__
from keras_vit.evaluation.vtab.scores import TaskScore
from keras_vit.output_paths import check_kind, partial_path
from keras_vit.runs.folder import differences
from keras_vit.runs.results import flatten

RESUME, FEATURES, REPORT, RESULTS = "resume", "features", "report", "results.json"


@dataclass(frozen=True)
class ScoresFolder:
    """Folder with `TASK.json` for each finished task, and `results.json` of all.

    Until a training is finished, `resume/TASK/` holds its checkpoints.

    Args:
        path: path of the folder.
        settings: what decides the scores, by name, for JSON; a folder holds scores of the
            same settings only.
    """

    path: Path
    settings: Mapping[str, Any]

    def create(self) -> None:
        """Creates the folder if it is missing.

        Raises:
            ValueError: if there is a file of that name.
        """
        check_kind(os.fspath(self.path), is_folder=True)
        self.path.mkdir(parents=True, exist_ok=True)

    def read(self, task: str) -> TaskScore | None:
        """The score of a finished task; `None` if it is not finished.

        Raises:
            ValueError: if the file is damaged, or of other settings.
        """
        path = self.task_path(task)
        try:
            record = json.loads(path.read_text("utf-8"))
            before, score = flatten(record["settings"]), TaskScore(**record["score"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{os.fspath(path)!r} is damaged ({type(error).__name__}: {error}). Delete "
                "it, or pass `overwrite=True`."
            ) from error
        self._check_same(path, before)
        return score

    def _check_same(self, path, before):
        now = flatten(json.loads(json.dumps(self.settings)))
        if different := differences(before, now):
            raise ValueError(
                f"{os.fspath(path)!r} is of other settings: {different}. Give the same, "
                "choose another `output`, or pass `overwrite=True` to replace the results "
                "in it."
            )

    def write(self, task: str, score: TaskScore, facts: Mapping[str, Any]) -> None:
        """Writes the score of a task, and deletes the checkpoints of its training.

        Args:
            task: name of the task.
            score: its score.
            facts: what else is to be known, for JSON, such as the machine.
        """
        record = {
            "keras_vit": __version__,
            "task": task,
            "accuracy": score.accuracy,
            "score": vars(score),
            "settings": dict(self.settings),
            **facts,
        }
        write_json(self.task_path(task), record)
        shutil.rmtree(self.resume_path(task), ignore_errors=True)

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes `results.json`."""
        write_json(self.path / RESULTS, results)

    def delete(self, task: str) -> None:
        """Deletes the score of a task, and the checkpoints of its training."""
        self.task_path(task).unlink(missing_ok=True)
        shutil.rmtree(self.resume_path(task), ignore_errors=True)

    def task_path(self, task: str) -> Path:
        """Path of the file of a task."""
        return self.path / f"{task}.json"

    def resume_path(self, task: str) -> Path:
        """Folder of the checkpoints of a task's training."""
        return self.path / RESUME / task


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    with partial_path(os.fspath(path)) as part:
        Path(part).write_text(f"{text}\n", "utf-8")
