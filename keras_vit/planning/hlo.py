"""Parser of compiled programs: HLO, as XLA prints it."""

import re
from collections.abc import Iterator
from math import prod

# An array in the type of an instruction: dtype, dimensions, layout with the memory.
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?")
_BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(
    r"(calls|to_apply|body|condition|called_computations|branch_computations|"
    r"true_computation|false_computation)=(?:\{([^}]*)\}|(%?[\w.\-]+))"
)
_INSIDE = ("calls", "to_apply")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(")
_LOOP = re.compile(r"[)}\]] while\(%([\w.\-]+)\), condition=%([\w.\-]+), body=%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Program:
    """Computations of a program and the number of times that each runs.

    A computation counts once per call, the body of a loop once per iteration, and every
    branch of a condition as if it were taken.

    Args:
        text: HLO of a compiled program.

    Attributes:
        computations: lines of each computation, by its name.
        instructions: line of each instruction, by its name.
        times: number of runs of each computation.
        uncertain: names of computations within a loop whose number of iterations is not
            known; such a loop counts as one iteration.
        inner: names of computations that are a part of one instruction, such as a fusion.

    Raises:
        ValueError: if the text is not compiled HLO.
    """

    computations: dict[str, list[str]]
    instructions: dict[str, str]
    times: dict[str, int]
    uncertain: set[str]
    inner: set[str]

    def __init__(self, text: str):
        self.computations, entry = _computations(text)
        self.instructions = {
            match[1]: line
            for lines in self.computations.values()
            for line in lines
            if (match := INSTRUCTION.match(line))
        }
        calls = {
            name: [call for line in lines for call in self._calls(line)]
            for name, lines in self.computations.items()
        }
        self.times, self.uncertain = dict.fromkeys(self.computations, 0), set()
        self.inner = set()
        self.times[entry] = 1
        for name in _callers_first(calls, entry):
            for called, trips, is_inner in calls[name]:
                self.times[called] += self.times[name] * (trips or 1)
                if trips is None or name in self.uncertain:
                    self.uncertain.add(called)
                if is_inner or name in self.inner:
                    self.inner.add(called)

    def _calls(self, line) -> Iterator[tuple[str, int | None, bool]]:
        """Yields (computation, number of calls, whether it is inner) for each call."""
        trips = 1
        if loop := _LOOP.search(line):
            known = _TRIPS.search(line)
            trips = int(known[1]) if known else self._trips(*loop.groups())
        for role, many, one in _CALLED.findall(line):
            for name in (many or one).split(","):
                yield name.strip().lstrip("%"), trips, role in _INSIDE

    def _trips(self, state, condition, body) -> int | None:
        """Number of iterations of a loop that counts up to a constant, else `None`."""
        start = self.instructions[state]
        test, after = (
            next(line for line in self.computations[name] if line.lstrip()[:4] == "ROOT")
            for name in (condition, body)
        )
        is_count = re.search(r" compare\(.*direction=LT", test)
        if not is_count or " tuple(" not in after or " tuple(" not in start:
            return None
        counter, limit = operands(test)[:2]
        index = re.search(r"get-tuple-element\(.*index=(\d+)", self.instructions[counter])
        if not index:
            return None
        index = int(index[1])
        step = self.instructions[operands(after)[index]]
        added = map(self._constant, operands(step)[:2]) if " add(" in step else ()
        step = next((number for number in added if number), None)
        first, last = map(self._constant, (operands(start)[index], limit))
        if None in (step, first, last):
            return None
        return max(0, -(-(last - first) // step))

    def _constant(self, name) -> int | None:
        line = self.instructions[name]
        while " copy(" in line:
            line = self.instructions[operands(line)[0]]
        value = re.search(r" constant\((\d+)\)", line)
        return int(value[1]) if value else None


def operands(line: str) -> list[str]:
    """Returns the names of the operands of an instruction."""
    after = line[INSTRUCTION.match(line).end() :]
    return re.findall(r"%([\w.\-]+)", after.split(")", 1)[0])


def arrays(shape: str) -> list[tuple[int, str]]:
    """Returns (bytes, layout) of each array in an instruction's type, without scalars."""
    return [
        (_bytes(dtype, dimensions), layout)
        for dtype, dimensions, layout in _ARRAY.findall(shape)
        if dimensions
    ]


def _bytes(dtype, dimensions):
    bits = _BITS.get(dtype)
    if bits is None:
        bits = int(re.search(r"\d+", dtype)[0])
    return -(-prod(int(n.lstrip("<=")) for n in dimensions.split(",")) * bits // 8)


def _computations(program) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of each computation, and the name of the entry computation."""
    computations, entry, lines = {}, None, []
    for line in program.splitlines():
        if match := _COMPUTATION.match(line):
            lines = computations[match[2]] = []
            entry = match[2] if match[1] else entry
        elif line.startswith(" "):
            lines.append(line)
    if entry is None:
        raise ValueError("A program must be compiled HLO. Received: text without ENTRY")
    return computations, entry


def _callers_first(calls, entry) -> list[str]:
    """Returns the computations that are called, each after all its callers."""
    done, order, stack = set(), [], [(entry, False)]
    while stack:
        name, seen = stack.pop()
        if seen:
            order.append(name)
        elif name not in done:
            done.add(name)
            stack.append((name, True))
            stack += [(called, False) for called, *_ in calls[name]]
    return order[::-1]
