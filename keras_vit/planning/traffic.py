"""Traffic between a device and its memory: bytes that a program reads and writes."""

import re
from functools import cached_property

from keras_vit.planning.hlo import INSTRUCTION, Program, arrays, operands

# Operations that move no data: they pass arrays on, or end an operation begun elsewhere.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id"),
    *("while", "conditional", "call", "iota", "after-all", "opt-barrier"),
}
_ON_CHIP = "S("  # in the layout of an array that is in an on-chip memory, not in HBM
_CALLED = re.compile(r" calls=%?([\w.\-]+)")
_NUMBER = re.compile(r" parameter\((\d+)\)")
_SLICES = ("slice", "dynamic-slice")
# Operations that read as large a part of their operand as is used of their result.
_EVEN = ("bitcast", "convert", "copy", "pad", "reshape", "transpose")


def moved_bytes(program: Program) -> int:
    """Counts the bytes that the instructions of a program read from and write to HBM.

    An instruction reads its whole operands and writes its whole result. If it takes a slice
    of an operand, or changes one in place, the slice counts instead. Arrays that the
    compiler keeps in on-chip memory do not count.

    Args:
        program: the program of one device.
    """
    total = 0
    computations = {name: _Computation(program, name) for name in program.computations}
    for name, lines in program.computations.items():
        if program.times[name] and name not in program.inner:
            moved = sum(_moved(line, program.instructions, computations) for line in lines)
            total += program.times[name] * moved
    return total


def _moved(line, instructions, computations) -> int:
    match = INSTRUCTION.match(line)
    if not match:
        return 0
    _, shape, operation = match.groups()
    if operation in _FREE or operation.endswith("-done") or 'Bitcast"' in line:
        return 0
    results, called = arrays(shape), _called(line, computations)
    if operation == "copy-start":  # its results are the source and the copy
        return _in_memory(results)
    is_slice = called and called.root and _operation(called.root) in _SLICES
    if operation == "slice-start" or (operation == "async-start" and is_slice):
        # The first result is the operand; a slice of it is read.
        (_, source), *_, (size, result) = results
        return size * sum(_ON_CHIP not in layout for layout in (source, result))
    if operation.endswith("-start"):  # operands stand beside the results
        return _in_memory(results)
    read = 0
    for number, operand in enumerate(operands(line)):
        if operand in instructions:
            found = arrays(_shape(instructions[operand]))
            whole = _in_memory(found)
            if called and operation == "fusion":
                whole = min(whole, called.read(number))
            elif operation in _SLICES and not number:
                whole = min(whole, _in_memory(results))
            elif operation == "dynamic-update-slice" and not number:
                whole = 0  # changed in place
            read += whole
    if called and operation == "fusion":
        return read + sum(map(min, map(_far, results), called.written))
    if operation == "dynamic-update-slice":
        return read + min(_in_memory(results), _updated(line, instructions))
    return read + _in_memory(results)


class _Computation:
    """A fused computation: the slices of operands and results that it reads and writes."""

    def __init__(self, program, name):
        self.program, self.name = program, name

    @cached_property
    def root(self) -> str | None:
        """Line of the instruction that gives the result."""
        lines = self.program.computations[self.name]
        return next((line for line in lines if line.lstrip().startswith("ROOT")), None)

    @cached_property
    def _lines(self) -> dict[str, str]:
        found = {}
        for line in self.program.computations[self.name]:
            if match := INSTRUCTION.match(line):
                found[match[1]] = line
        return found

    @cached_property
    def _users(self) -> dict[str, list[tuple[str, int]]]:
        """(line, number of the operand) of each use of an instruction."""
        users = {}
        for line in self._lines.values():
            for number, operand in enumerate(operands(line)):
                users.setdefault(operand, []).append((line, number))
        return users

    @cached_property
    def _parameters(self) -> dict[int, str]:
        numbers = {name: _NUMBER.search(line) for name, line in self._lines.items()}
        return {int(match[1]): name for name, match in numbers.items() if match}

    def read(self, number: int) -> int:
        """Bytes of a parameter that are used, in whichever memory."""
        return self._used(self._parameters[number])

    def _used(self, name) -> int:
        line = self._lines[name]
        whole = _size(line)
        if line == self.root:
            return whole
        used = sum(self._used_by(*user, whole) for user in self._users.get(name, ()))
        return min(whole, used)

    def _used_by(self, line, number, whole) -> int:
        """Bytes, of `whole`, that an instruction uses of its operand `number`."""
        operation = _operation(line)
        if operation in _EVEN and not number and _size(line):  # scalars have no size
            return round(whole * self._used(INSTRUCTION.match(line)[1]) / _size(line))
        if operation in _SLICES and not number:
            return _size(line)
        if operation == "dynamic-update-slice" and not number:
            return 0
        if operation == "fusion":
            return _Computation(self.program, _CALLED.search(line)[1]).read(number)
        return whole

    @cached_property
    def written(self) -> list[int]:
        """Bytes of each result that are changed."""
        root = self.root
        is_tuple = _operation(root) == "tuple"
        lines = [self._lines[name] for name in operands(root)] if is_tuple else [root]
        # One entry for each array; `arrays` leaves scalars out.
        return [self._changed(line) for line in lines for _ in arrays(_shape(line))]

    def _changed(self, line) -> int:
        whole = _size(line)
        while _operation(line) == "bitcast" and operands(line)[0] in self._lines:
            line = self._lines[operands(line)[0]]
        if _operation(line) == "dynamic-update-slice":
            return min(whole, _updated(line, self.program.instructions))
        return whole


def _called(line, computations) -> _Computation | None:
    match = _CALLED.search(line)
    return computations.get(match[1]) if match else None


def _operation(line) -> str:
    return INSTRUCTION.match(line)[3]


def _shape(line) -> str:
    return INSTRUCTION.match(line)[2]


def _size(line) -> int:
    return sum(size for size, _ in arrays(_shape(line)))


def _updated(line, instructions) -> int:
    """Bytes of the slice that a dynamic-update-slice writes."""
    return _size(instructions[operands(line)[1]])


def _far(array) -> int:
    """Bytes of an array in HBM; 0 in on-chip memory."""
    size, layout = array
    return size if _ON_CHIP not in layout else 0


def _in_memory(found) -> int:
    return sum(map(_far, found))
