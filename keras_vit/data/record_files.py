"""Files of records, read by the number of a record: TFRecord and ArrayRecord.

Libraries read such files from the first record on. Here each record is found by its place
in the file: an epoch may have any order, a training stream can start anywhere, and no
buffer of records is in memory.
"""

import mmap
import os
import struct
from pathlib import Path

import numpy as np

from keras_vit.data.packages import require

HEADER, FOOTER = 12, 4  # bytes before and after a TFRecord


class TFRecordFile:
    """File of TFRecords, read by the number of a record.

    Raises:
        ValueError: if the file ends within a record.
    """

    def __init__(self, path: Path):
        self.path = path
        self._spans = np.array(list(self._found()), np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._spans)

    def read(self, number: int) -> bytes:
        """Reads one record."""
        start, length = self._spans[number]
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)

    def _found(self):
        """Yields (start, length) of each record, from the lengths in the file."""
        size, place = self.path.stat().st_size, 0
        if not size:
            return
        with (
            open(self.path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents,
        ):
            while place < size:
                length = contents[place : place + 8]
                length = struct.unpack("<Q", length)[0] if len(length) == 8 else size
                start = place + HEADER
                place = start + length + FOOTER
                if place > size:
                    raise ValueError(
                        f"The file {os.fspath(self.path)!r} ends within a record; "
                        "prepare the data set again"
                    )
                yield start, length


class ArrayRecordFile:
    """File of ArrayRecords, the format of TFDS for access by number."""

    def __init__(self, path: Path):
        self.path = path
        module = require("array_record.python.array_record_data_source")
        self._source = module.ArrayRecordDataSource([os.fspath(path)])

    def __len__(self) -> int:
        return len(self._source)

    def read(self, number: int) -> bytes:
        """Reads one record."""
        return self._source[int(number)]


FILE_FORMATS: dict[str, type[TFRecordFile | ArrayRecordFile]] = {
    "tfrecord": TFRecordFile,
    "array_record": ArrayRecordFile,
}
