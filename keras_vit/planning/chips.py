"""Chips by name, with the peak rates that their makers publish."""

from dataclasses import dataclass

GB, GIB, TERA = 10**9, 2**30, 10**12
_CLOUD = "docs.cloud.google.com/tpu/docs, read in November 2026"
_NVIDIA = "NVIDIA's data sheet"
_TPU_V4 = "TPU v4 (arXiv 2304.01433), table 4"


@dataclass(frozen=True)
class Gpu:
    """What XLA must know of a GPU to compile for it where there is none.

    NVIDIA's *CUDA C++ Programming Guide*, "Compute Capabilities", and the data sheets.

    Attributes:
        title: as its driver names it.
        compute_capability: (major, minor).
        num_multiprocessors: int.
        cores_per_multiprocessor: int, for float32.
        shared_memory: bytes of a multiprocessor.
        cache: bytes of the L2 cache.
        clock_ghz: at most.
    """

    title: str
    compute_capability: tuple[int, int]
    num_multiprocessors: int
    cores_per_multiprocessor: int
    shared_memory: int
    cache: int
    clock_ghz: float


@dataclass(frozen=True)
class Chip:
    """What a chip can do at best.

    Attributes:
        name: as in the name of a topology, such as `"v5e"`.
        flops: of matrix products in bfloat16, a second.
        memory: bytes of its HBM; of a GPU about what its driver leaves of them.
        memory_rate: bytes a second that HBM reads and writes.
        link_rate: bytes a second that it sends to its neighbours, over all its links
            together; half of what is published as "bidirectional".
        topology: a valid topology of several chips; of GPUs, as many as one machine has.
        source: where the figures are published.
        gpu: `Gpu`, and `None` of a TPU.
    """

    name: str
    flops: float
    memory: int
    memory_rate: float
    link_rate: float
    topology: str
    source: str
    gpu: Gpu | None = None


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
        Chip(
            *("a100", 312 * TERA, 79 * GIB, 2039 * GB, 300 * GB, "8"),
            f"{_NVIDIA}: A100 80GB SXM, dense",
            Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 164 * 2**10, 40 * 2**20, 1.41),
        ),
        Chip(
            *("h100", 989 * TERA, 79 * GIB, 3350 * GB, 450 * GB, "8"),
            f"{_NVIDIA}: H100 SXM, dense",
            Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 228 * 2**10, 50 * 2**20, 1.98),
        ),
        Chip(
            *("h200", 989 * TERA, 139 * GIB, 4800 * GB, 450 * GB, "8"),
            f"{_NVIDIA}: H200 SXM, dense",
            Gpu("NVIDIA H200", (9, 0), 132, 128, 228 * 2**10, 50 * 2**20, 1.98),
        ),
    )
}
