"""Chips by name, with the peak rates that their makers publish."""

from dataclasses import dataclass

GB, GIB, TERA = 10**9, 2**30, 10**12
_CLOUD = "docs.cloud.google.com/tpu/docs, read in November 2026"
_NVIDIA = "NVIDIA's data sheet"
_TPU_V4 = "TPU v4 (arXiv 2304.01433), table 4"


@dataclass(frozen=True)
class Gpu:
    """Facts of a GPU that XLA needs to compile for it where it is absent.

    Source: NVIDIA's *CUDA C++ Programming Guide*, "Compute Capabilities", and data sheets.

    Attributes:
        title: the driver's name of the GPU.
        compute_capability: (major, minor).
        num_multiprocessors: number of streaming multiprocessors.
        cores_per_multiprocessor: number of float32 cores of each.
        shared_memory: bytes of shared memory of a multiprocessor.
        cache: bytes of the L2 cache.
        clock_ghz: highest clock rate.
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
    """Peak rates and memory of a chip.

    Attributes:
        name: the name in a topology, such as `"v5e"`.
        flops: floating-point operations per second of bfloat16 matrix products.
        memory: bytes of HBM; for a GPU about what its driver leaves free.
        memory_rate: bytes per second that HBM reads and writes.
        link_rate: bytes per second that the chip sends to its neighbours over all links;
            half of the published "bidirectional" rate.
        topology: a valid topology of several chips; for GPUs the number in one machine.
        source: publication of the figures.
        gpu: `Gpu`; `None` for a TPU.
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
