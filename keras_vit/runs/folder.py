"""The files of a run: one training and its results."""

import csv
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit._version import __version__
from keras_vit.training.resume.checkpoint_files import CheckpointFolder
from keras_vit.weights.files.opening import BEST

CONFIG, LAST = "config.json", "last.keras"
OBJECTIVE = "objective.keras"
METRICS, TENSORBOARD = "metrics.csv", "tensorboard"
EXAMPLES = "examples.npz"
REPORT, RESULTS = "report", "results.json"
RESUME = "resume"
_WRITTEN = (CONFIG, EXAMPLES, METRICS, TENSORBOARD, BEST, LAST, OBJECTIVE, RESUME)
_WRITTEN += (REPORT, RESULTS)
_MARK = "keras_vit"  # the key of a run's configuration that no other config.json has
# Arguments in configurations of earlier versions, and their names now.
_RENAMED = {
    "resolution": "image_size",
    "learning_rate": "base_learning_rate",
    "ema": "ema_momentum",
    "precision": "dtype",
    "split": "splits",
}


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training.

    Its files are `config.json` (arguments, recipe, versions of packages), `examples.npz`
    (digests of the images in each split), `metrics.csv` (a row for each evaluation),
    `tensorboard/`, `best.keras` (the checkpoint with the best validation result),
    `last.keras` (with the optimizer), `results.json` and `report/index.html`. After
    pre-training without labels `best.keras` is the encoder, and `objective.keras` the model
    that was trained around it. Until the training is finished `resume/` holds the
    checkpoints from which it resumes.

    Args:
        path: path of the folder.
    """

    path: Path

    @classmethod
    def check(
        cls,
        path: str | os.PathLike[str],
        overwrite: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> "RunFolder":
        """The folder, if a training may write to it; nothing is written yet.

        Args:
            path: path of the folder.
            overwrite: whether to replace a training that is in it.
            arguments: the training's arguments, to resume an unfinished training that has
                the same, or to replace one that has no step yet; `None` refuses both.

        Raises:
            ValueError: if the folder is a file, holds something else and `overwrite` is
                not set, or another process begins a training in it.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise ValueError(
                f"A training writes to a folder of its own. Received: {os.fspath(path)!r}, "
                "which is a file. Choose another path."
            )
        run = cls(path)
        if overwrite or not run._has_files():
            return run
        if arguments is None or not run._is_begun():
            raise ValueError(
                f"The folder {os.fspath(path)!r} is not empty. Choose another one, or pass "
                "`overwrite=True` to replace the training in it."
            )
        if run._has_steps():
            run._check_same(arguments)
        elif run._checkpoints().is_in_use():
            raise ValueError(
                f"Another process begins a training in {os.fspath(path)!r}. Wait for it "
                "or end it, or choose another folder."
            )
        return run

    def _has_files(self):
        # A process may have been killed as it wrote the first file.
        first = f"{CONFIG}.part"
        return self.path.is_dir() and any(p.name != first for p in self.path.iterdir())

    def is_unfinished(self) -> bool:
        """True if it holds a training with steps and without results."""
        return self._is_begun() and self._has_steps()

    def _is_begun(self):
        if not self.file(CONFIG).is_file() or self.file(RESULTS).exists():
            return False
        return _MARK in self.config()

    def _has_steps(self):
        """True if there is a step to resume from; a refused command leaves none."""
        if any(self.file(name).exists() for name in (BEST, LAST)) or self.history():
            return True
        checkpoints = self._checkpoints()
        checkpoints.wait()  # of a training of this process that has failed
        return any(step > 0 for step in checkpoints.steps())

    def _checkpoints(self):
        return CheckpointFolder(self.file(RESUME), keep=2)

    def lock(self) -> None:
        """Keeps other processes from training in it until this one is done or ends.

        Raises:
            ValueError: if another process trains in it.
        """
        self._checkpoints().open()

    def _check_same(self, arguments):
        before, now = self._arguments(), _as_json(arguments)
        if different := differences(before, now):
            raise ValueError(
                f"The training in {os.fspath(self.path)!r} is not finished, and was begun "
                f"with other arguments: {different}. Give the same arguments to "
                "resume it, pass `overwrite=True` to replace it, or choose another folder."
            )

    def _arguments(self):
        """The arguments in the configuration, by today's names."""
        config = self.config()
        given = config.get("arguments", {})
        if "output" not in given:
            return given
        # Earlier versions: as they stood on the command line.
        given = {_RENAMED.get(name, name): v for name, v in given.items() if v != []}
        del given["output"]
        given["data"] = config["data"]["arguments"]["source"]
        if len(size := given.get("image_size", ())) == 1:
            given["image_size"] = size[0]
        if str(freeze := given.get("freeze")).isdigit():
            given["freeze"] = int(freeze)
        return given

    def create(self, config: Mapping[str, Any]) -> None:
        """Creates the folder with its configuration, and deletes an earlier training.

        Files that no training writes stay.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for name in _WRITTEN:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self._write(CONFIG, {_MARK: __version__, **config})

    def config(self) -> dict[str, Any]:
        """Reads the configuration, `config.json`.

        Raises:
            ValueError: if it is damaged.
        """
        try:
            return json.loads(self.file(CONFIG).read_text("utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{os.fspath(self.file(CONFIG))!r} is damaged: {error}"
            ) from error

    def write_digests(self, digests: Mapping[str, np.ndarray]) -> None:
        """Writes the digests of images, an array for each split, to `examples.npz`."""
        part = self.path / f"{EXAMPLES}.part"
        with part.open("wb") as file:
            np.savez(file, **digests)
        os.replace(part, self.file(EXAMPLES))

    def digests(self) -> dict[str, np.ndarray] | None:
        """The digests that `write_digests` wrote; `None` if there are none.

        Raises:
            ValueError: if it is damaged.
        """
        path = self.file(EXAMPLES)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{os.fspath(path)!r} is damaged: {error}") from error

    def history(self) -> dict[str, list[float]]:
        """Columns of `metrics.csv` by name; empty without the file."""
        path = self.file(METRICS)
        if not path.is_file():
            return {}
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in (rows or [{}])[0]}

    def finish(self, results: Mapping[str, Any]) -> None:
        """Writes `results.json`, and deletes the checkpoints to resume from."""
        self._write(RESULTS, results)
        shutil.rmtree(self.file(RESUME), ignore_errors=True)

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        return self.path / name

    def _write(self, name, content):
        text = _text(content)
        part = self.path / f"{name}.part"
        part.write_text(f"{text}\n", "utf-8", errors="surrogateescape")
        os.replace(part, self.path / name)


def find_run(path: str | os.PathLike[str]) -> tuple[RunFolder, str] | None:
    """Finds the run and the checkpoint at a path.

    Args:
        path: path of a run's folder, for its best checkpoint, or of a `.keras` file in it.

    Returns:
        The run and the checkpoint's path, or `None` if the path is not in a run.

    Raises:
        FileNotFoundError: if the run has no such checkpoint yet.
    """
    path = Path(path)
    if path.suffix == ".keras":
        run, checkpoint = RunFolder(path.parent), path
    else:
        run, checkpoint = RunFolder(path), path / BEST
    if not run.file(CONFIG).is_file() or _MARK not in run.config():
        return None
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"There is no checkpoint at {os.fspath(checkpoint)!r}: the training was "
            "stopped before its first evaluation, or the file was moved."
        )
    return run, os.fspath(checkpoint)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The arguments that differ, with their values before and now; `""` if none does."""
    return "; ".join(
        f"{_argument(before, name)} before, {_argument(now, name)} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    )


def _argument(arguments, name):
    """An argument as Python writes it."""
    if (value := arguments.get(name)) is None:
        return f"`{name}` not given"
    return f"{name}={tuple(value) if isinstance(value, list) else value!r}"


def _text(content):
    return json.dumps(content, indent=2, ensure_ascii=False, default=_plain)


def _as_json(content):
    """The content as JSON returns it."""
    return json.loads(_text(content))


def _plain(value):
    """Converts a value that JSON cannot hold."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"A configuration cannot hold a {type(value).__name__}: {value!r}")
