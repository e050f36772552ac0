"""The files of a training."""

import csv
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit._version import __version__
from keras_vit.training.resume.checkpoint_files import CheckpointFolder

CONFIG, BEST, LAST = "config.json", "best.keras", "last.keras"
METRICS, TENSORBOARD = "metrics.csv", "tensorboard"
EXAMPLES = "examples.npz"
REPORT, RESULTS = "report", "results.json"
RESUME = "resume"
_WRITTEN = (CONFIG, EXAMPLES, METRICS, TENSORBOARD, BEST, LAST, RESUME, REPORT, RESULTS)
_MARK = "keras_vit"  # the key of a run's configuration that no other config.json has


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training: where its files lie.

    `config.json` (what was asked for and with what), `examples.npz` (which image was in
    which split), `metrics.csv` (a line for each evaluation), `tensorboard/`, `best.keras`
    (of the best validation accuracy), `last.keras` (with the optimizer), `results.json` and
    `report/index.html`; until it is finished `resume/`, from which it goes on.

    Args:
        path: of the folder.
    """

    path: Path

    @classmethod
    def check(
        cls,
        path: str | os.PathLike,
        overwrite: bool = False,
        arguments: Mapping | None = None,
    ) -> "RunFolder":
        """A folder that a training may write to; nothing is written yet.

        Args:
            path: of the folder.
            overwrite: whether a training that is in it is to be replaced.
            arguments: of the command. An unfinished training of the same may be in it, to
                go on, or one of others that has no step yet; `None` if none may.

        Raises:
            ValueError: if there is something else in it and `overwrite` is not set, if
                another process begins a training in it, or if it is no folder.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise ValueError(
                f"A training writes to a folder of its own. Received: {os.fspath(path)!r}, "
                "which is a file. Choose another path."
            )
        run = cls(path)
        if overwrite or not run._is_in_use():
            return run
        if arguments is None or not run._is_begun():
            raise ValueError(
                f"The folder {os.fspath(path)!r} is not empty. Choose another one, or give "
                "`--overwrite` to replace the training in it."
            )
        if run._has_steps():
            run._check_same(arguments)
        elif run._checkpoints().is_in_use():
            raise ValueError(
                f"Another process begins a training in {os.fspath(path)!r}. Wait for it "
                "or end it, or choose another folder."
            )
        return run

    def _is_in_use(self):
        # A process may have been killed as it wrote the first file.
        first = f"{CONFIG}.part"
        return self.path.is_dir() and any(p.name != first for p in self.path.iterdir())

    def is_unfinished(self) -> bool:
        """True if it holds a training that has steps and no results."""
        return self._is_begun() and self._has_steps()

    def _is_begun(self):
        if not self.file(CONFIG).is_file() or self.file(RESULTS).exists():
            return False
        return _MARK in self.config()

    def _has_steps(self):
        """True if there is a step to go on from; a refused command leaves none."""
        if any(self.file(name).exists() for name in (BEST, LAST)) or self.history():
            return True
        checkpoints = self._checkpoints()
        checkpoints.wait()  # of a training of this process that has failed
        return any(step > 0 for step in checkpoints.steps())

    def _checkpoints(self):
        return CheckpointFolder(self.file(RESUME), keep=2)

    def take(self) -> None:
        """Keeps other processes from training in it, until this one has trained or ends.

        Raises:
            ValueError: if another one does.
        """
        self._checkpoints().open()

    def _check_same(self, arguments):
        before, now = self.config().get("arguments", {}), _as_json(arguments)
        different = [
            f"{_option(name)}: {_value(before, name)} before, {_value(now, name)} now"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]
        if different:
            raise ValueError(
                f"The training in {os.fspath(self.path)!r} is not finished, and was begun "
                f"with other arguments: {'; '.join(different)}. Give the same to go on "
                "with it, `--overwrite` to replace it, or choose another folder."
            )

    def create(self, config: dict) -> None:
        """Makes the folder with its configuration; what another training left goes.

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

    def config(self) -> dict:
        """The configuration.

        Raises:
            ValueError: if it is damaged.
        """
        try:
            return json.loads(self.file(CONFIG).read_text("utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{os.fspath(self.file(CONFIG))!r} is damaged: {error}"
            ) from error

    def keep_examples(self, digests: Mapping[str, np.ndarray]) -> None:
        """Writes `examples.npz`, an array for each split."""
        part = self.path / f"{EXAMPLES}.part"
        with part.open("wb") as file:
            np.savez(file, **digests)
        os.replace(part, self.file(EXAMPLES))

    def examples(self) -> dict[str, np.ndarray] | None:
        """The arrays of `keep_examples`; `None` if the training kept none.

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
        """What `metrics.csv` holds, a list for each column; empty without the file."""
        path = self.file(METRICS)
        if not path.is_file():
            return {}
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in (rows or [{}])[0]}

    def finish(self, results: dict) -> None:
        """Writes `results.json`; there is nothing to go on with any more."""
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


def find_run(path: str | os.PathLike) -> tuple[RunFolder, str] | None:
    """The training and its checkpoint that a path stands for.

    Args:
        path: of the folder, which stands for its best checkpoint, or of a `.keras` file
            in it.

    Returns:
        The folder and the checkpoint's path, or `None` where it is no training.

    Raises:
        FileNotFoundError: if the training has no such checkpoint yet.
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


def _option(name):
    """The command line's name of an argument."""
    names = {"data": "DATA", "flip": "--no-flip"}
    return names.get(name, f"--{name.replace('_', '-')}")


def _value(arguments, name):
    value = arguments.get(name)
    if value is None:
        return "not given"
    return "given" if isinstance(value, bool) else repr(value)


def _text(content):
    return json.dumps(content, indent=2, ensure_ascii=False, default=_plain)


def _as_json(content):
    """As it is read again."""
    return json.loads(_text(content))


def _plain(value):
    """What JSON has no form for."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no place in a configuration: {value!r}")
