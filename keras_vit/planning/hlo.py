"""The text of a compiled program: HLO, as XLA prints it."""

import re
from collections.abc import Iterator
from math import prod

# Whatever an instruction may hand on, with the layout that says in which memory it is.
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
    """Computations of a program, and how often each runs.

    What is called counts as often as it is, and the body of a loop as often as that runs;
    of the branches of a condition each counts.

    Args:
        text: HLO of a compiled program.

    Attributes:
        computations: lines of each, by its name.
        instructions: lines by the name of their instruction.
        times: how often each computation runs.
        uncertain: names of those in a loop of which nobody knows how often it runs; it is
            counted as one.
        inner: names of those that are part of a single instruction, such as a fusion.

    Raises:
        ValueError: if the text is no compiled HLO.
    """

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
        """(computation, how often, whether it is inner) of each that is called."""
        trips = 1
        if loop := _LOOP.search(line):
            known = _TRIPS.search(line)
            trips = int(known[1]) if known else self._trips(*loop.groups())
        for role, many, one in _CALLED.findall(line):
            for name in (many or one).split(","):
                yield name.strip().lstrip("%"), trips, role in _INSIDE

    def _trips(self, state, condition, body) -> int | None:
        """How often a loop runs that counts up to a constant; `None` of others."""
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
    """Names of the operands of an instruction."""
    after = line[INSTRUCTION.match(line).end() :]
    return re.findall(r"%([\w.\-]+)", after.split(")", 1)[0])


def arrays(shape: str) -> list[tuple[int, str]]:
    """Bytes and layout of each array in the type of an instruction, scalars left out."""
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
    """Lines of each computation, and the name of the one that is the program."""
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
    """The computations that are called, each after all that call it."""
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
