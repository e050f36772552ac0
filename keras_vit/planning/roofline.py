"""How long a step takes at the least, by the peak rates of a chip."""

from dataclasses import dataclass

from keras_vit.planning.targets import Target


@dataclass(frozen=True)
class Roofline:
    """Seconds that a step takes a device at peak rates, which no program reaches.

    Source: Williams, Waterman, Patterson, *Roofline* (CACM 52(4), 2009).

    Attributes:
        compute: of its floating-point operations, as if all were matrix products.
        memory: of the bytes that it reads from and writes to HBM.
        links: of the bytes that it sends to others, over all its links at once.
    """

    compute: float
    memory: float
    links: float

    @property
    def step(self) -> float:
        """The longest of the three, as if they were all at the same time."""
        return max(self.compute, self.memory, self.links)

    @property
    def in_turn(self) -> float:
        """Their sum, as if none were at the time of another."""
        return self.compute + self.memory + self.links


def roofline(
    target: Target, flops: float, moved_bytes: float, sent_bytes: float
) -> Roofline | None:
    """The `Roofline` of a step; `None` for the CPU, of which no rates are published.

    Args:
        target: `Target`.
        flops: of a device.
        moved_bytes: from and to its memory.
        sent_bytes: to other devices.
    """
    chip, share = target.chip, target.devices_per_chip
    if chip is None:
        return None
    return Roofline(
        compute=flops * share / chip.flops,
        memory=moved_bytes * share / chip.memory_rate,
        links=sent_bytes * share / chip.link_rate,
    )
