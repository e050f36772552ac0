"""Collectives of a compiled program: the data that devices exchange in a step."""

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
        times: number of times in a step: several within a loop.
        bytes: bytes on each device after the exchange; for a reduce-scatter before it.
        devices: number of devices that exchange with each other.
        operation: JAX' name of the model's operation.
        at_least: `True` within a loop whose number of iterations is not known; such a loop
            counts as one iteration.
    """

    kind: str
    times: int
    bytes: int
    devices: int
    operation: str = ""
    at_least: bool = False

    @property
    def sent_bytes(self) -> int:
        """Bytes that each device sends in a step, by ring algorithms.

        An all-reduce is a reduce-scatter followed by an all-gather. In each, a device sends
        all parts but one.
        """
        rounds = {"all-reduce": 2}.get(self.kind, 1)
        share = (self.devices - 1) / self.devices
        if self.kind.startswith("collective-"):
            share = 1
        return round(self.times * rounds * share * self.bytes)


def collectives(program: Program, num_devices: int) -> list[Collective]:
    """Returns the collectives of a program, in the order of its text.

    The TPU's compiler may spread a collective over several fusions; these count as one.

    Args:
        program: the program of one device.
        num_devices: number of devices that run it.
    """
    found = {}
    for name, lines in program.computations.items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if not match or not program.times[name]:
                continue
            times, at_least = program.times[name], name in program.uncertain
            one = _collective(line, match, times, num_devices, at_least)
            # The parts of a spread collective share its channel. If one part is outside of
            # the loop that holds another, the loop does not repeat the collective.
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
    """Size of a replica group: the number of devices that exchange with each other."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2])
        return prod(int(part or sizes[axis]) for axis, part in axes)
    return num_devices
