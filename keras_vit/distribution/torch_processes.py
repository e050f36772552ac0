"""Process groups and collective operations of the processes of `torchrun`.

torch is imported where it is used. Without `torchrun` there is one process, rank 0.
"""

import atexit
import contextlib
import datetime
import os
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    import torch

TIMEOUT = 600  # seconds
BUCKET = 2**24  # elements of an all-reduce
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
contexts = []  # the `TorchProcesses` that the program is in
_groups = {}  # process groups by the type of device whose tensors they exchange
_timeouts = []  # the timeout of the groups, once there are some


def num_launched() -> int:
    """Number of processes that `torchrun` has started; 1 without it.

    Raises:
        ValueError: if WORLD_SIZE is above 1 and other variables of `torchrun` are missing.
    """
    if keras.backend.backend() != "torch":
        return 1
    given = os.environ.get("WORLD_SIZE", "1")
    if not given.isdigit() or given == "0":
        raise ValueError(f"WORLD_SIZE must be a positive int. Received: {given!r}")
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if int(given) > 1 and missing:
        raise ValueError(
            "Several processes need all variables that `torchrun` sets. Received: "
            f"WORLD_SIZE={given} in the environment without {', '.join(missing)}. Start "
            "the program with torchrun, or unset WORLD_SIZE."
        )
    return int(given)


def num_processes() -> int:
    """Number of processes that train together: 1 outside of `TorchProcesses`."""
    return num_launched() if contexts else 1


def process_index() -> int:
    """Rank of this process, from 0."""
    return int(os.environ["RANK"]) if num_launched() > 1 else 0


def start_groups(timeout: float) -> None:
    """Creates the process groups, once; see `TorchProcesses`."""
    import torch.distributed as dist

    if has_group():
        return
    if dist.is_initialized():
        raise RuntimeError(
            "`keras_vit.distribution` creates the process group itself. Received: a "
            "program that called torch.distributed.init_process_group. Leave that out."
        )
    device, wait = _device(), datetime.timedelta(seconds=timeout)
    kind = {"cpu": "gloo", "cuda": "nccl"}[device]
    store, rank, number = next(dist.rendezvous("env://", timeout=wait))
    # torchrun keeps its store when it restarts processes: with torch 2.13 they would look
    # for each other at the old addresses.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)
    dist.init_process_group(kind, store=store, rank=rank, world_size=number, timeout=wait)
    # Otherwise gloo's running thread sometimes aborts a program at its end.
    atexit.register(dist.destroy_process_group)
    _groups[device] = dist.group.WORLD
    if device != "cpu":
        _groups["cpu"] = dist.new_group(backend="gloo", timeout=wait)
    _timeouts.append(timeout)


def has_group() -> bool:
    """True if this process has entered `TorchProcesses` before."""
    return bool(_groups)


def _device():
    """Type of Keras' device, `"cpu"` or `"cuda"`; selects the GPU of this process."""
    import torch

    device = keras.ops.zeros(()).device.type
    if device == "cpu":
        return device
    if device != "cuda":
        raise ValueError(
            "Several processes need CUDA GPUs or the CPU. Received: Keras on "
            f"{device!r}. Use one process, or keras.device('cpu')."
        )
    index, number = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if index >= number:
        raise ValueError(
            "Each process needs a GPU of its own. Received: LOCAL_RANK="
            f"{index} on a machine with {number}. Start torchrun with --nproc-per-node "
            f"{number}."
        )
    torch.cuda.set_device(index)
    return device


@contextlib.contextmanager
def _exchange():
    """Explains an error of torch in a collective operation."""
    import torch.distributed as dist

    try:
        yield dist
    except RuntimeError as error:
        raise RuntimeError(
            f"Process {process_index()} of {num_processes()} lost the others: one has "
            f"ended, took longer than {_timeouts[0]:g} seconds, or has batches of another "
            "size. See its messages. A training with `ExactResume` resumes when it is "
            f"started again. ({error})"
        ) from error


def broadcast(content: Any) -> Any:
    """The object of rank 0; it can be any that pickles."""
    contents = [content]
    with _exchange() as dist:
        dist.broadcast_object_list(contents, src=0, group=_groups["cpu"])
    return contents[0]


def broadcast_bytes(numbers: np.ndarray) -> np.ndarray:
    """The uint8 array of rank 0, written into the arrays of the others."""
    import torch

    if numbers.size:
        with _exchange() as dist:
            dist.broadcast(torch.from_numpy(numbers), src=0, group=_groups["cpu"])
    return numbers


def all_gather(content: Any) -> list[Any]:
    """The objects of all processes; they can be any that pickle."""
    contents = [None] * num_processes()
    with _exchange() as dist:
        dist.all_gather_object(contents, content, group=_groups["cpu"])
    return contents


def any_process(truth: bool) -> bool:
    """True if it is true in any process."""
    import torch

    number = torch.tensor(int(truth))
    with _exchange() as dist:
        dist.all_reduce(number, dist.ReduceOp.MAX, group=_groups["cpu"])
    return bool(number)


def gather_rows(tensor: "torch.Tensor") -> "torch.Tensor":
    """Concatenates (n, …) of each process to (processes · n, …), by rank; any dtype."""
    import torch

    # As bytes: gloo and NCCL do not support every dtype.
    own = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    parts = [torch.empty_like(own) for _ in range(num_processes())]
    with _exchange() as dist:
        dist.all_gather(parts, own, group=_groups[own.device.type])
    return torch.cat(parts).view(tensor.dtype).reshape(-1, *tensor.shape[1:])


def mean_over_processes(tensors: list) -> list:
    """The mean over the processes of each tensor; `None` stays `None`."""
    import torch

    means = list(tensors)
    for indices in _buckets(tensors):
        parts = [tensors[i] for i in indices]
        exact = torch.promote_types(parts[0].dtype, torch.float32)
        flat = torch.cat([part.reshape(-1).to(exact) for part in parts])
        with _exchange() as dist:
            dist.all_reduce(flat, group=_groups[flat.device.type])
        flat /= num_processes()
        for i, mean in zip(indices, flat.split([p.numel() for p in parts]), strict=True):
            means[i] = mean.reshape(tensors[i].shape).to(tensors[i].dtype)
    return means


def _buckets(tensors):
    """Yields indices of tensors of one dtype: at most `BUCKET` elements, or one tensor."""
    open_, sizes = {}, {}
    for i, tensor in enumerate(tensors):
        if tensor is None:
            continue
        kind, size = tensor.dtype, tensor.numel()
        if kind in open_ and sizes[kind] + size > BUCKET:
            yield open_.pop(kind)
        if kind not in open_:
            open_[kind], sizes[kind] = [], 0
        open_[kind].append(i)
        sizes[kind] += size
    yield from open_.values()


def broadcast_tensor(tensor: "torch.Tensor") -> None:
    """Copies the values of rank 0 into a tensor."""
    import torch

    numbers = tensor.detach().contiguous()
    with _exchange() as dist:
        group = _groups[numbers.device.type]
        dist.broadcast(numbers.reshape(-1).view(torch.uint8), src=0, group=group)
    tensor.detach().copy_(numbers)
