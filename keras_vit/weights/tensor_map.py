"""The tensors of a file under our names, by the rows of its layout's table."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple

import numpy as np

from keras_vit.weights.architecture import Shapes
from keras_vit.weights.files.tensor_file import TensorFile
from keras_vit.weights.layouts.layout import POSITIONS, Layout, TensorRow, numbers_in
from keras_vit.weights.layouts.moves import MOVES, Dims
from keras_vit.weights.vit_in_file import ViTInFile, foreign_error

MAX_BLOCKS = 999
_INTEGERS = ("int", "uint", "bool", "I", "U", "BOOL")  # beginnings of dtypes' names


class NamedRow(NamedTuple):
    """A row of a conversion table with the names of a file's tensors and our variables.

    Attributes:
        row: the row of the table.
        sources: names of the tensors in the file.
        targets: paths of our variables.
        index: number of the block whose tensors these are along an axis, where the
            blocks of a file are stacked; None elsewhere.
    """

    row: TensorRow
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    index: int | None


class TensorMap:
    """The tensors of a ViT or BiT in a file, matched with the rows of its layout's table.

    Args:
        file: the open file.
        vit: the tensors of the model in it.

    Attributes:
        layout: layout of the names.
        names: canonical name of a tensor → its name in the file.
        shapes: canonical name of a tensor → its shape in the file.
        rows: the rows of the table that apply, in order.
        unused: names in the file of the tensors that no row takes.
        dropped: name in the file of a tensor that the model does not need → the reason.

    Raises:
        ValueError: if two tensors have one canonical name, or a stack has too many blocks.
    """

    def __init__(self, file: TensorFile, vit: ViTInFile):
        self.file = file
        self.layout: Layout = vit.layout
        self.dropped: dict[str, str] = {**file.beside, **vit.dropped}
        self.names: dict[str, str] = {}
        for name, raw in vit.names.items():
            canonical = self.layout.canonical_name(name)
            if reason := self._reason_to_drop(canonical, raw):
                self.dropped[raw] = reason
            elif canonical in self.names:
                both = f"{raw!r} and {self.names[canonical]!r}"
                raise self.foreign_error(f"{both} are the same tensor")
            else:
                self.names[canonical] = raw
        self.shapes: Shapes = {n: file.shapes[raw] for n, raw in self.names.items()}
        self.rows: tuple[NamedRow, ...] = tuple(self._named_rows())
        used = {raw for row in self.rows for raw in row.sources}
        self.unused: tuple[str, ...] = tuple(sorted(set(self.names.values()) - used))

    def _reason_to_drop(self, canonical, name) -> str | None:
        if reason := self.layout.reason_to_drop(canonical):
            return reason
        is_integer = self.file.dtypes[name].startswith(_INTEGERS)
        if is_integer and not self.layout.has_row(canonical):
            return "it counts, and is no weight"
        return None

    def _named_rows(self) -> Iterator[NamedRow]:
        for row in self.layout.rows:
            for numbers, is_stacked in self._numbers(row):
                names = [
                    (name.replace("_{i}", "") if is_stacked else name).format(**numbers)
                    for name in row.sources
                ]
                ours = self.layout.our_numbers(numbers)
                if row.unless and row.unless.format(**numbers) in self.names:
                    continue
                if all(name in self.names for name in names) and -1 not in ours.values():
                    yield NamedRow(
                        row,
                        tuple(self.names[name] for name in names),
                        tuple(target.format(**ours) for target in row.targets),
                        numbers["i"] if is_stacked else None,
                    )

    def _numbers(self, row):
        """(numbers in its names, whether blocks are stacked) for each use of a row."""
        template = row.sources[0]
        stacked = template.replace("_{i}", "")
        if "_{i}" in template and stacked in self.names:
            shape, axis = self.shapes[stacked], row.axis or 0
            depth = shape[axis] if len(shape) > axis else 0
            if depth > MAX_BLOCKS:
                raise self.foreign_error(f"{stacked!r} is of {depth:,} blocks")
            return [({"i": i}, True) for i in range(depth)]
        return [(numbers, False) for numbers in numbers_in(template, self.names)]

    def foreign_error(self, reason: str) -> ValueError:
        """The error for a file that is no checkpoint of its layout."""
        return foreign_error(self.file, reason, self.layout)

    @cached_property
    def targets(self) -> dict[str, tuple[str, ...]]:
        """Name of a tensor in the file → paths of our variables that it becomes."""
        targets: dict[str, tuple[str, ...]] = {}
        for row in self.rows:
            for name in row.sources:
                targets[name] = (*targets.get(name, ()), *row.targets)
        return targets

    @cached_property
    def variables(self) -> set[str]:
        """Paths of our variables that the file fills."""
        return {target for row in self.rows for target in row.targets}

    def source_shape(self, target: str) -> tuple[int, ...]:
        """Shape in the file of the tensor for one of our variables; () without one."""
        row = next((row for row in self.rows if target in row.targets), None)
        return self.file.shapes[row.sources[0]] if row else ()

    def variable_shapes(self, dims: Dims) -> Shapes:
        """Path of our variable → its shape; no tensor is read."""
        shapes = {}
        for row in self.rows:
            # Of a dtype without bytes: moves then shape arrays that take no memory.
            arrays = [np.empty(self.file.shapes[n], dtype=[]) for n in row.sources]
            for target, array in zip(
                row.targets, self._move(row, arrays, dims), strict=True
            ):
                if target in shapes:
                    raise self.foreign_error(f"{', '.join(row.sources)} is there twice")
                if array.size or target not in POSITIONS:
                    shapes[target] = array.shape
        return shapes

    def _move(self, row, arrays, dims):
        try:
            if row.index is not None:
                axis = row.row.axis or 0
                arrays = [np.take(array, row.index, axis) for array in arrays]
            return MOVES[row.row.move].forward(dims.at(row.targets[0]), *arrays)
        except (ValueError, IndexError, TypeError) as error:
            shapes = ", ".join(f"{n!r} {self.file.shapes[n]}" for n in row.sources)
            raise self.foreign_error(
                f"{shapes} cannot become {', '.join(row.targets)}: {error}"
            ) from error

    def check(self, targets: set[str]) -> None:
        """Reads the tensors for some variables only to raise the errors of `read`."""
        rows = [row for row in self.rows if targets & set(row.targets)]
        names = dict.fromkeys(name for row in rows for name in row.sources)
        # Reading, checksums and sums leave Python to other threads meanwhile.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for _ in pool.map(self.file.check, names):
                pass

    def read(self, targets: set[str], dims: Dims) -> Iterator[tuple[str, np.ndarray]]:
        """(path, array in our shape) for each of some variables."""
        sources, arrays = None, []
        for row in self.rows:
            if not targets & set(row.targets):
                continue
            if row.sources != sources:  # stacked tensors are read once
                sources, arrays = row.sources, [self.file.read(n) for n in row.sources]
            for target, array in zip(
                row.targets, self._move(row, arrays, dims), strict=True
            ):
                if target in targets:
                    yield target, array
