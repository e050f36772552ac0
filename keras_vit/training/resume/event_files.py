"""Truncation of TensorBoard's event files to the position of a checkpoint."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from keras_vit.data.ending import untuned
from keras_vit.data.packages import tensorflow


def truncate(folder: str | os.PathLike[str], stays: Callable[[str, int], bool]) -> None:
    """Drops points that a resumed training will write again.

    Files that keep all points are not rewritten: they may be open.

    Args:
        folder: folder that is searched for event files, with its subfolders.
        stays: function of (tag, step) that returns whether a point is kept.
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
    """The records up to the end, or to where a killed process stopped writing."""
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
