"""What devices exchange in a step, read off its compiled program."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

KINDS = (
    *("all-gather", "all-reduce", "reduce-scatter", "all-to-all"),
    *("ragged-all-to-all", "collective-permute", "collective-broadcast"),
)
_BITS = {"pred": 8, "bf16": 16, "s4": 4, "u4": 4, "s2": 2, "u2": 2}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|called_computations|branch_computations|"
    r"true_computation|false_computation)=(?:\{([^}]*)\}|(%?[\w.\-]+))"
)
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = ")
_LOOP = re.compile(r"[)}\]] while\(%([\w.\-]+)\), condition=%([\w.\-]+), body=%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclass(frozen=True)
class Collective:
    """An exchange between devices.

    Attributes:
        kind: one of `KINDS`.
        times: int, how often in a step: more than once in a loop.
        bytes: int, of what each device has when it is done, or in a reduce-scatter had
            before it.
        devices: int, how many exchange with each other.
        operation: of the model, as JAX names it.
        at_least: bool, whether it is in a loop of which nobody knows how often it runs,
            and which is counted as one.
    """

    kind: str
    times: int
    bytes: int
    devices: int
    operation: str = ""
    at_least: bool = False

    @property
    def sent_bytes(self) -> int:
        """What each device sends in a step, where they pass on in a ring what they have.

        An all-reduce is a reduce-scatter and an all-gather, in each of which a device
        sends all parts but one.
        """
        rounds = {"all-reduce": 2}.get(self.kind, 1)
        share = (self.devices - 1) / self.devices
        if self.kind.startswith("collective-"):
            share = 1
        return round(self.times * rounds * share * self.bytes)


def collectives(program: str, num_devices: int) -> list[Collective]:
    """The collectives of a program, in the order of its text.

    What a computation holds counts as often as it is called, and what the body of a loop
    holds as often as that runs. Of the branches of a condition each counts. Where the
    TPU's compiler has spread one over several fusions, these are one.

    Args:
        program: `compiled.as_text()` of JAX: HLO, for one of the devices.
        num_devices: int, for how many it is.

    Raises:
        ValueError: if the text is no compiled HLO.
    """
    computations, entry = _computations(program)
    times, uncertain = _times(computations, entry)
    found = {}
    for name, lines in computations.items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if not match or not times[name]:
                continue
            at_least = name in uncertain
            one = _collective(line, match, times[name], num_devices, at_least)
            # The parts of one that is spread have its channel. The loop that one of them
            # is in does not repeat it, where another is outside.
            spread = "chain_id=" in line and re.search(r"channel_id=\d+", line)
            key = (match[2], spread[0]) if spread else len(found)
            if key not in found or one.times < found[key].times:
                found[key] = one
    return list(found.values())


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


def _times(computations, entry) -> tuple[dict[str, int], set[str]]:
    """How often each computation runs in a step, and those that may more often."""
    instructions = {
        match[1]: line
        for lines in computations.values()
        for line in lines
        if (match := _INSTRUCTION.match(line))
    }
    calls = {
        name: [call for line in lines for call in _calls(line, computations, instructions)]
        for name, lines in computations.items()
    }
    times, uncertain = dict.fromkeys(computations, 0), set()
    times[entry] = 1
    for name in _callers_first(calls, entry):
        for called, trips in calls[name]:
            times[called] += times[name] * (trips or 1)
            if trips is None or name in uncertain:
                uncertain.add(called)
    return times, uncertain


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
            stack += [(called, False) for called, _ in calls[name]]
    return order[::-1]


def _calls(line, computations, instructions) -> Iterator[tuple[str, int | None]]:
    """(computation, how often) of each that an instruction calls."""
    trips = 1
    if loop := _LOOP.search(line):
        known = _TRIPS.search(line)
        trips = (
            int(known[1]) if known else _trips(*loop.groups(), computations, instructions)
        )
    for many, one in _CALLED.findall(line):
        for name in (many or one).split(","):
            yield name.strip().lstrip("%"), trips


def _trips(state, condition, body, computations, instructions) -> int | None:
    """How often a loop runs that counts up to a constant; `None` of others."""

    def operands(line, operation):
        return re.findall(r"%([\w.\-]+)", line.split(f" {operation}(", 1)[-1])

    def constant(name):
        line = instructions.get(name, "")
        while " copy(" in line:
            line = instructions[operands(line, "copy")[0]]
        value = re.search(r"constant\((\d+)\)", line)
        return int(value[1]) if value else None

    roots = [
        next(line for line in computations[name] if line.lstrip().startswith("ROOT"))
        for name in (condition, body)
    ]
    start = instructions[state]
    if not (
        re.search(r"compare\(.*direction=LT", roots[0])
        and " tuple(" in roots[1]
        and " tuple(" in start
    ):
        return None
    counter, limit = operands(roots[0], "compare")[:2]
    index = re.search(r"get-tuple-element\(.*index=(\d+)", instructions[counter])
    if not index:
        return None
    index = int(index[1])
    step = instructions[operands(roots[1], "tuple")[index]]
    added = [constant(name) for name in operands(step, "add")[:2] if " add(" in step]
    step = next((number for number in added if number), None)
    first, last = constant(operands(start, "tuple")[index]), constant(limit)
    if None in (step, first, last):
        return None
    return max(0, -(-(last - first) // step))


def _collective(line, match, times, num_devices, at_least):
    shape, kind, is_start = match.groups()
    devices = _group_size(line, num_devices)
    arrays = [a for a in _ARRAY.findall(shape) if not is_start or a != ("u32", "")]
    size = sum(_size(*array) for array in arrays)
    if is_start and kind == "all-gather":  # operands stand beside the results
        size = size * devices // (devices + 1)
    elif is_start and kind == "collective-permute":
        size //= 2
    if kind == "reduce-scatter":
        size *= devices
    operation = re.search(r'op_name="(.*?)"', line)
    return Collective(
        *(kind, times, size, devices, operation[1] if operation else ""), at_least
    )


def _size(dtype, dimensions):
    digits = re.search(r"\d+", dtype)
    bits = _BITS.get(dtype) or int(digits[0])
    numbers = prod(int(n.lstrip("<=")) for n in dimensions.split(",") if n)
    return -(-numbers * bits // 8)


def _group_size(line, num_devices) -> int:
    """How many devices exchange with each other: the size of a replica group."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2])
        return prod(int(part or sizes[axis]) for axis, part in axes)
    return num_devices
