"""What devices exchange in a step, read off its compiled program."""

import re
from dataclasses import dataclass
from math import prod

from keras_vit.planning.hlo import Program, arrays

KINDS = (
    *("all-gather", "all-reduce", "reduce-scatter", "all-to-all"),
    *("ragged-all-to-all", "collective-permute", "collective-broadcast"),
)
_SCALAR = 4  # bytes, of a loss or a norm
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")


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


def collectives(program: Program, num_devices: int) -> list[Collective]:
    """The collectives of a program, in the order of its text.

    Where the TPU's compiler has spread one over several fusions, these are one.

    Args:
        program: `Program`, of one of the devices.
        num_devices: int, for how many it is.
    """
    found = {}
    for name, lines in program.computations.items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if not match or not program.times[name]:
                continue
            times, at_least = program.times[name], name in program.uncertain
            one = _collective(line, match, times, num_devices, at_least)
            # The parts of one that is spread have its channel. The loop that one of them
            # is in does not repeat it, where another is outside.
            spread = "chain_id=" in line and re.search(r"channel_id=\d+", line)
            key = (match[2], spread[0]) if spread else len(found)
            if key not in found or one.times < found[key].times:
                found[key] = one
    return list(found.values())


def _collective(line, match, times, num_devices, at_least):
    shape, kind, is_start = match.groups()
    devices = _group_size(line, num_devices)
    size = sum(size for size, _ in arrays(shape)) or _SCALAR
    if is_start and kind == "all-gather":  # operands stand beside the results
        size = size * devices // (devices + 1)
    elif is_start and kind == "reduce-scatter":
        size //= devices + 1
    elif is_start and kind == "collective-permute":
        size //= 2
    if kind == "reduce-scatter":
        size *= devices
    operation = re.search(r'op_name="(.*?)"', line)
    return Collective(
        *(kind, times, size, devices, operation[1] if operation else ""), at_least
    )


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
