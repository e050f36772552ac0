"""Checkpoints of a training: files that are whole or are not there."""

import contextlib
import json
import os
import re
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit.log import log
from keras_vit.weights.files.safetensors_files import CHECKSUMS, checksum

RECORD = "keras_vit.training"  # the key of the metadata under which the record lies
ENDING, PART, DAMAGED = ".safetensors", ".part", ".damaged"
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
_locks = {}  # by path, of the folders in which this process trains


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Args:
        path: of the file.
        record: what JSON can say.
        tensors: arrays by name.
    """

    path: Path
    record: dict
    tensors: dict[str, np.ndarray]


class CheckpointFolder:
    """A folder of files `step-00001200.safetensors`, and of no other training.

    A file is written under another name, flushed to the disk and then renamed, so that one
    with the right name is whole whatever happens; older ones go only after that. It holds
    a CRC-32 of each tensor and of the record. `step-00001200.orbax` are folders, see
    `split_checkpoints`.

    Args:
        path: of the folder.
        keep: int, how many files are kept.
    """

    def __init__(self, path: str | os.PathLike, keep: int):
        self.path = Path(path)
        self.keep = keep

    def open(self) -> None:
        """Makes the folder, takes it for this process, and clears what was left half.

        Raises:
            OSError: if it cannot be written to.
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
                f"{str(self.path)!r}, in which another one does. Wait for it or end it, or "
                "choose another `directory`."
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
            lock.acquire(timeout=1)  # others may be asking just now
        except filelock.Timeout:
            return True
        lock.release()
        return False

    def write_beside(self, write) -> None:
        """Has a thread call a function that writes to the folder.

        No daemon: the last checkpoint of a program that ends is written.
        """
        threading.Thread(target=write, name=self._thread_name()).start()

    def wait(self) -> None:
        """Returns when no thread of this process writes to the folder.

        Also none of a training that has failed since.
        """
        for thread in threading.enumerate():
            if thread.name == self._thread_name():
                thread.join()

    def _thread_name(self):
        return f"keras_vit checkpoint {self.path.resolve()}"

    def close(self) -> None:
        """Lets other processes train in it."""
        lock = _locks.pop(str(self.path.resolve()), None)
        if lock is not None:
            lock.release(force=True)

    def steps(self) -> dict[int, Path]:
        """The files by their step, in order."""
        if not self.path.is_dir():
            return {}
        names = {path: _NAME.fullmatch(path.name) for path in self.path.iterdir()}
        return dict(sorted((int(m[1]), path) for path, m in names.items() if m))

    def step_path(self, step: int, ending: str = ENDING) -> Path:
        """Of the checkpoint of a step."""
        return self.path / f"step-{step:08d}{ending}"

    def newest_path(self) -> Path | None:
        """Of the newest file, read or not."""
        return next(reversed(self.steps().values()), None)

    def newest(self, paths: list[Path], read) -> Checkpoint | None:
        """The newest whole checkpoint, with a warning of those that are not.

        Args:
            paths: of the checkpoints, as `steps` has them.
            read: a function of a path that returns a `Checkpoint`, or raises a ValueError
                of one that is damaged.

        Raises:
            ValueError: if there are some, and all are damaged.
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
                    "The checkpoint %s is damaged (%s). The one before is used: %s",
                    *(other, error, path),
                )
                # Out of the way of `prune`, which keeps the newest.
                with contextlib.suppress(OSError):
                    other.rename(other.with_name(other.name + DAMAGED))
            return checkpoint
        if damaged:
            reasons = "; ".join(f"{path}: {error}" for path, error in damaged)
            raise ValueError(
                f"Every checkpoint in {str(self.path)!r} is damaged: {reasons}. To begin "
                "anew, delete the folder or choose another `directory`."
            )
        return None

    def write(self, step: int, tensors: Mapping[str, np.ndarray], record: dict) -> Path:
        """Writes a checkpoint, and then deletes those that are too old.

        Raises:
            OSError: if it cannot be written; those that were there stay.
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
        """Deletes what is too old, or damaged."""
        for path in list(self.steps().values())[: -self.keep]:
            _delete(path)
        for path in self.path.glob(f"*{DAMAGED}"):
            _delete(path)


def _delete(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_array(file, array: np.ndarray) -> None:
    """The numbers of an array, as they lie in memory."""
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
    """Has the disk know the new name, too; Windows has no way to, and no need."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: Path) -> Checkpoint:
    """A checkpoint, each tensor compared with its checksum.

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
        raise ValueError(f"{names[0]!r} is not what was written")
    return Checkpoint(Path(path), json.loads(record), tensors)
