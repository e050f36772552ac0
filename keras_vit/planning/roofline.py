"""Lower bounds on the time of a step, from the peak rates of a chip."""

from dataclasses import dataclass

from keras_vit.planning.targets import Target


@dataclass(frozen=True)
class Roofline:
    """Seconds of a step on a device at peak rates, which no program reaches.

    Source: Williams, Waterman, Patterson, *Roofline* (CACM 52(4), 2009).

    Attributes:
        compute: seconds of floating-point operations, as if all were matrix products.
        memory: seconds of reading from and writing to HBM.
        links: seconds of sending to other devices, over all links at once.
    """

    compute: float
    memory: float
    links: float

    @property
    def step(self) -> float:
        """Seconds if all three overlap: the longest of them."""
        return max(self.compute, self.memory, self.links)

    @property
    def in_turn(self) -> float:
        """Seconds if none overlap: the sum."""
        return self.compute + self.memory + self.links


def roofline(
    target: Target, flops: float, moved_bytes: float, sent_bytes: float
) -> Roofline | None:
    """Computes the `Roofline` of a step; `None` for the CPU, which has no published rates.

    Args:
        target: devices of the step.
        flops: floating-point operations of a device.
        moved_bytes: bytes that a device reads from and writes to its memory.
        sent_bytes: bytes that a device sends to others.
    """
    chip, share = target.chip, target.devices_per_chip
    if chip is None:
        return None
    return Roofline(
        compute=flops * share / chip.flops,
        memory=moved_bytes * share / chip.memory_rate,
        links=sent_bytes * share / chip.link_rate,
    )
