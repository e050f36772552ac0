"""TensorBoard's event files, cut to where a training goes on."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from keras_vit.data.ending import untuned
from keras_vit.data.packages import tensorflow


def cut(folder: str | os.PathLike, stays: Callable[[str, int], bool]) -> None:
    """Drops what a training that goes on will write again.

    A file of which nothing is dropped is not touched: it may be open.

    Args:
        folder: of the files, and of folders with such.
        stays: whether a point does, by its tag and its step.
    """
    for path in sorted(Path(folder).rglob("*.tfevents.*")):
        part = path.with_name(f"part.{path.name.replace('tfevents', 'cut')}")
        dropped = 0
        with tensorflow().io.TFRecordWriter(os.fspath(part)) as writer:
            for record in _records(path):
                if _stays(record, stays):
                    writer.write(record)
                else:
                    dropped += 1
        if dropped:
            os.replace(part, path)
        else:
            part.unlink()


def _records(path) -> Iterator[bytes]:
    """Up to the end, or to where a process was killed as it wrote."""
    tf = tensorflow()
    records = iter(untuned(tf.data.TFRecordDataset(os.fspath(path))))
    while True:
        try:
            yield next(records).numpy()
        except (StopIteration, tf.errors.DataLossError):
            return


def _stays(record, stays):
    event = tensorflow().compat.v1.Event.FromString(record)
    return all(stays(value.tag, event.step) for value in event.summary.value)
