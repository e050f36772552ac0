"""What a program is compiled for: chips that need not be here."""

import os
import re
from dataclasses import dataclass
from math import prod

from keras_vit.planning.chips import CHIPS, Chip

CPU = "cpu"


@dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
        name: as it was given, such as `"v5e:4x4"`.
        chip: `Chip`, or `None` for the CPU, of which no peak rates are published.
        devices: `jax.Device`s, in the order in which the machine lists them.
        devices_per_chip: int, 2 where each of a chip's cores is a device.
    """

    name: str
    chip: Chip | None
    devices: tuple
    devices_per_chip: int = 1

    @property
    def device_name(self) -> str:
        """Of one of its devices, to read."""
        if self.chip is None:
            return "virtual CPU device"
        whole = self.devices_per_chip == 1
        return f"TPU {self.chip.name} {'chip' if whole else 'core'}"


def target(name: str) -> Target:
    """The devices that a name stands for.

    Args:
        name: a kind of TPU and its topology, `"v5e:4x4"`, `"v5p:2x2x4"`, `"v5e:1x1"`; or
            `"cpu:8"`, that many devices of JAX' CPU.

    Raises:
        ValueError: if there is no such kind, or libtpu refuses the topology.
        ImportError: if libtpu, which compiles for TPUs, is not installed.
    """
    kind, _, size = name.partition(":")
    if kind == CPU and size.isdigit() and int(size):
        return Target(name, None, _cpu_devices(int(size)))
    if kind not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", size):
        valid = ", ".join(f"{chip.name}:{chip.topology}" for chip in CHIPS.values())
        raise ValueError(
            "`devices` must be a kind of TPU and its topology, such as "
            f"{valid} or v5e:1x1 for a single chip, or cpu:8 for virtual devices. "
            f"Received: {name!r}. GPUs cannot be planned for."
        )
    devices = _tpu_devices(name)
    return Target(
        name, CHIPS[kind], devices, len(devices) // prod(map(int, size.split("x")))
    )


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
            "or 'keras-vit[plan]'. It is best kept to an environment of its own: JAX looks "
            "for TPUs wherever it is installed."
        ) from error
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    # No TPU is looked for at Google Cloud, and none is kept from other processes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        return tuple(topologies.get_topology_desc(name, "tpu").devices)
    except JaxRuntimeError as error:
        raise ValueError(
            f"libtpu has no such topology. Received: {name!r}. It says: {error}"
        ) from error
