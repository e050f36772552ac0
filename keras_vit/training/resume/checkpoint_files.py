"""Checkpoint files of a training, written atomically and with checksums."""

import contextlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from keras_vit.log import log
from keras_vit.weights.files.safetensors_files import CHECKSUMS, checksum

RECORD = "keras_vit.training"  # key of the metadata for the record
SUFFIX, PART, DAMAGED = ".safetensors", ".part", ".damaged"
_NAME = re.compile(r"step-(\d{8,})\.(safetensors|orbax)")
_LOCK = ".lock"
_ORBAX_PART = ".orbax-checkpoint-tmp"
_DTYPES = {
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    "bfloat16": "BF16",
    "bool": "BOOL",
}
_locks = {}  # locks of the folders in which this process trains, by path


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint.

    Args:
        path: path of the file or folder.
        record: everything but the arrays, as JSON has it.
        tensors: arrays by name.
    """

    path: Path
    record: dict[str, Any]
    tensors: dict[str, np.ndarray]


class CheckpointFolder:
    """Folder of the checkpoints `step-00001200.safetensors` of one training.

    A file is written under another name, flushed to the disk and then renamed, so that a
    file with the right name is complete; only then are older files deleted. It holds a
    CRC-32 of each tensor and of the record. `step-00001200.orbax` are folders, see
    `sharded_checkpoints`.

    Args:
        path: path of the folder.
        keep: int, number of checkpoints to keep.
    """

    def __init__(self, path: str | os.PathLike[str], keep: int) -> None:
        self.path = Path(path)
        self.keep = keep

    def open(self) -> None:
        """Creates and locks the folder, and deletes incomplete files.

        Raises:
            OSError: if the folder cannot be written to.
            ValueError: if another process trains in it.
        """
        import filelock

        self.path.mkdir(parents=True, exist_ok=True)
        key = str(self.path.resolve())
        lock = _locks.get(key) or filelock.FileLock(self.path / _LOCK)
        try:
            if not lock.is_locked:
                lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise ValueError(
                "Only one process can train in a folder of checkpoints. Received: "
                f"{str(self.path)!r}, which another process uses. Wait for it or stop it, "
                "or choose another `directory`."
            ) from error
        _locks[key] = lock
        self.wait()
        for part in (*self.path.glob(f"*{PART}"), *self.path.glob(f"*{_ORBAX_PART}*")):
            _delete(part)

    def is_in_use(self) -> bool:
        """True if another process trains in it."""
        import filelock

        path = self.path / _LOCK
        if str(self.path.resolve()) in _locks or not path.exists():
            return False
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=1)  # another process may be testing the lock
        except filelock.Timeout:
            return True
        lock.release()
        return False

    def start_thread(self, write: Callable[[], None]) -> None:
        """Calls a function that writes to the folder in a thread.

        The thread is no daemon: a program that ends still writes its last checkpoint.
        """
        threading.Thread(target=write, name=self._thread_name()).start()

    def wait(self) -> None:
        """Waits until no thread of this process writes to the folder.

        Threads of a training that has failed count, too.
        """
        for thread in threading.enumerate():
            if thread.name == self._thread_name():
                thread.join()

    def _thread_name(self):
        return f"keras_vit checkpoint {self.path.resolve()}"

    def close(self) -> None:
        """Releases the folder for other processes."""
        lock = _locks.pop(str(self.path.resolve()), None)
        if lock is not None:
            lock.release(force=True)

    def steps(self) -> dict[int, Path]:
        """Paths of the checkpoints by step, in order."""
        if not self.path.is_dir():
            return {}
        names = {path: _NAME.fullmatch(path.name) for path in self.path.iterdir()}
        return dict(sorted((int(m[1]), path) for path, m in names.items() if m))

    def step_path(self, step: int, suffix: str = SUFFIX) -> Path:
        """Path of the checkpoint of a step."""
        return self.path / f"step-{step:08d}{suffix}"

    def newest_path(self) -> Path | None:
        """Path of the newest checkpoint, which may be damaged."""
        return next(reversed(self.steps().values()), None)

    def newest(
        self, paths: list[Path], read: Callable[[Path], Checkpoint]
    ) -> Checkpoint | None:
        """The newest intact checkpoint; warns of damaged ones.

        Args:
            paths: paths of the checkpoints, oldest first.
            read: function of a path that returns a `Checkpoint`, or raises a ValueError
                if it is damaged.

        Raises:
            ValueError: if all checkpoints are damaged.
        """
        damaged = []
        for path in reversed(paths):
            try:
                checkpoint = read(path)
            except ValueError as error:
                damaged.append((path, error))
                continue
            for other, error in damaged:
                log.warning(
                    "The checkpoint %s is damaged (%s). The older %s is used instead.",
                    *(other, error, path),
                )
                # `prune` keeps the newest: a damaged one must not count.
                with contextlib.suppress(OSError):
                    other.rename(other.with_name(other.name + DAMAGED))
            return checkpoint
        if damaged:
            reasons = "; ".join(f"{path}: {error}" for path, error in damaged)
            raise ValueError(
                f"Every checkpoint in {str(self.path)!r} is damaged: {reasons}. To start "
                "over, delete the folder or choose another `directory`."
            )
        return None

    def write(
        self, step: int, tensors: Mapping[str, np.ndarray], record: dict[str, Any]
    ) -> Path:
        """Writes a checkpoint, then deletes old ones.

        Raises:
            OSError: if it cannot be written; existing checkpoints stay.
        """
        path = self.step_path(step)
        part = self.path / f"{path.name}.{os.getpid()}{PART}"
        try:
            with open(part, "wb") as file:
                file.write(_header(tensors, record))
                for array in tensors.values():
                    write_array(file, array)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            _flush_folder(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        self.prune()
        return path

    def prune(self) -> None:
        """Deletes damaged checkpoints and all but the newest `keep`."""
        for path in list(self.steps().values())[: -self.keep]:
            _delete(path)
        for path in self.path.glob(f"*{DAMAGED}"):
            _delete(path)


def _delete(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_array(file: BinaryIO, array: np.ndarray) -> None:
    """Writes the bytes of an array."""
    file.write(_bytes(array))


def _bytes(array):
    return np.ascontiguousarray(array).reshape(-1).view("uint8").data


def _header(tensors, record):
    text = json.dumps(record)
    sums = {name: checksum(_bytes(array)) for name, array in tensors.items()}
    sums[RECORD] = checksum(text.encode())
    header = {"__metadata__": {RECORD: text, CHECKSUMS: json.dumps(sums)}}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": array.shape,
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def _flush_folder(path):
    """Flushes a renamed file's folder to the disk, which Windows does not need."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint and verifies its checksums.

    Raises:
        ValueError: if it is damaged.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            sums = json.loads(metadata[CHECKSUMS])
            record = metadata[RECORD]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = {name: checksum(_bytes(array)) for name, array in tensors.items()}
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"it is not complete: {error}") from error
    found[RECORD] = checksum(record.encode())
    if found != sums:
        names = [n for n in sorted({*found, *sums}) if found.get(n) != sums.get(n)]
        raise ValueError(f"{names[0]!r} does not match its checksum")
    return Checkpoint(Path(path), json.loads(record), tensors)
