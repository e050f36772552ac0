"""Chips by name, with the peak rates that their makers publish."""

from dataclasses import dataclass

GB, GIB, TERA = 10**9, 2**30, 10**12
_CLOUD = "docs.cloud.google.com/tpu/docs, read in November 2026"
_TPU_V4 = "TPU v4 (arXiv 2304.01433), table 4"


@dataclass(frozen=True)
class Chip:
    """What a chip can do at best.

    Attributes:
        name: as in the name of a topology, such as `"v5e"`.
        flops: of matrix products in bfloat16, a second.
        memory: bytes of its HBM.
        memory_rate: bytes a second that HBM reads and writes.
        link_rate: bytes a second that it sends to its neighbours, over all its links
            together; half of what is published as "bidirectional".
        topology: a valid topology of several chips.
        source: where the figures are published.
    """

    name: str
    flops: float
    memory: int
    memory_rate: float
    link_rate: float
    topology: str
    source: str


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v3", 123 * TERA, 32 * GIB, 900 * GB, 280 * GB, "4x4", _TPU_V4),
        Chip("v4", 275 * TERA, 32 * GIB, 1200 * GB, 300 * GB, "2x2x4", _TPU_V4),
        Chip("v5e", 197 * TERA, 16 * GIB, 819 * GB, 200 * GB, "4x4", f"{_CLOUD}: v5e"),
        Chip("v5p", 459 * TERA, 95 * GIB, 2765 * GB, 600 * GB, "2x2x4", f"{_CLOUD}: v5p"),
        Chip("v6e", 918 * TERA, 32 * GIB, 1638 * GB, 400 * GB, "4x4", f"{_CLOUD}: tpu7x"),
        Chip(
            *("tpu7x", 2307 * TERA, 192 * GIB, 7380 * GB, 600 * GB, "2x2x2"),
            f"{_CLOUD}: tpu7x",
        ),
    )
}
