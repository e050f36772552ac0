"""Targets of the compiler: accelerators by name, present or not."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from keras_vit.planning.chips import CHIPS, Chip

if TYPE_CHECKING:
    import jax

CPU = "cpu"


@dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
        name: the name given to `target`, such as `"v5e:4x4"`.
        chip: `Chip`; `None` for the CPU, which has no published peak rates.
        devices: `jax.Device`s, in the order in which the machine lists them.
        devices_per_chip: 2 where each core of a chip is a device, else 1.
    """

    name: str
    chip: Chip | None
    devices: tuple[jax.Device, ...]
    devices_per_chip: int = 1

    @property
    def device_name(self) -> str:
        """Human-readable name of one device."""
        if self.chip is None:
            return "virtual CPU device"
        if self.chip.gpu:
            return self.chip.gpu.title
        whole = self.devices_per_chip == 1
        return f"TPU {self.chip.name} {'chip' if whole else 'core'}"


def target(name: str) -> Target:
    """Returns the devices that a name stands for.

    Args:
        name: a kind of TPU and its topology, `"v5e:4x4"`, `"v5p:2x2x4"`, `"v5e:1x1"`; a
            kind of GPU and the number in one machine, `"h100:8"`; or a number of virtual
            CPU devices, `"cpu:8"`.

    Raises:
        ValueError: if the kind is unknown, or libtpu refuses the topology.
        ImportError: if the compiler for the kind is not installed.
    """
    kind, _, size = name.partition(":")
    if kind == CPU and size.isdigit() and int(size):
        return Target(name, None, _cpu_devices(int(size)))
    chip = CHIPS.get(kind)
    sizes = r"[1-8]" if chip and chip.gpu else r"[1-9]\d*(x[1-9]\d*){1,2}"
    if not chip or not re.fullmatch(sizes, size):
        valid = ", ".join(f"{chip.name}:{chip.topology}" for chip in CHIPS.values())
        raise ValueError(
            "`devices` must be a kind of TPU and its topology, a kind of GPU and the "
            f"number in one machine (at most 8), such as {valid}, v5e:1x1 for a single "
            f"chip, or cpu:8 for virtual devices. Received: {name!r}"
        )
    if chip.gpu:
        return Target(name, chip, _cuda_devices(chip, int(size)))
    devices = _tpu_devices(name)
    return Target(name, chip, devices, len(devices) // prod(map(int, size.split("x"))))


def _cpu_devices(number):
    import jax

    devices = jax.devices("cpu")
    if len(devices) < number:
        raise ValueError(
            f"JAX was started with {len(devices)} CPU devices. Received: cpu:{number}. Set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={number} before."
        )
    return tuple(devices[:number])


def _tpu_devices(name):
    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Compiling for {name} needs no TPU, but its compiler: `pip install libtpu`, "
            "or 'keras-vit[plan]'. Install it in an environment of its own: where it is "
            "installed, JAX looks for TPUs."
        ) from error
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    # Do not search Google Cloud for TPUs, nor lock a TPU for this process.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        return tuple(topologies.get_topology_desc(name, "tpu").devices)
    except JaxRuntimeError as error:
        raise ValueError(
            f"libtpu has no such topology. Received: {name!r}. It says: {error}"
        ) from error


def _cuda_devices(chip, number):
    try:
        import jax_plugins.xla_cuda12  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Compiling for {chip.name} needs no GPU, but JAX' CUDA plugin, in JAX' "
            "version, and NVIDIA's assembler: `pip install --no-deps jax-cuda12-plugin "
            "jax-cuda12-pjrt nvidia-cuda-nvcc-cu12`."
        ) from error
    from jax.experimental import topologies

    # The topology is partitions x machines x GPUs.
    options = {"target_config": _target_config(chip), "topology": f"1x1x{number}"}
    described = topologies.get_topology_desc(chip.name, "cuda", **options)
    return tuple(described.devices)


def _target_config(chip):
    """Returns XLA's description of a GPU that is absent, as text."""
    gpu = chip.gpu
    major, minor = gpu.compute_capability
    facts = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "threads_per_core_limit": 2048,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "registers_per_core_limit": 2**16,
        "registers_per_block_limit": 2**16,
        "core_count": gpu.num_multiprocessors,
        "fpus_per_core": gpu.cores_per_multiprocessor,
        "shared_memory_per_core": gpu.shared_memory,
        "shared_memory_per_block": 48 * 2**10,
        # The system reserves a kilobyte of each block.
        "shared_memory_per_block_optin": gpu.shared_memory - 2**10,
        "l2_cache_size": gpu.cache,
        "clock_rate_ghz": gpu.clock_ghz,
        "memory_bandwidth": round(chip.memory_rate),
        "device_memory_size": chip.memory,
    }
    lines = "\n".join(f"  {name}: {value}" for name, value in facts.items())
    return (
        f"gpu_device_info {{\n{lines}\n"
        f"  cuda_compute_capability {{ major: {major} minor: {minor} }}\n}}\n"
        f'platform_name: "CUDA"\ndnn_version_info {{ major: 9 minor: 8 }}\n'
        f'device_description_str: "{gpu.title}"\n'
    )
