"""The processes that `torchrun` starts: their group, and what they exchange.

torch is imported where it is used; without `torchrun` there is one process, number 0.
"""

import atexit
import contextlib
import datetime
import os

import keras
import numpy as np

TIMEOUT = 600  # seconds
BUCKET = 2**24  # numbers that are summed at a time
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_open = []  # the contexts that the program is in
_groups = {}  # of processes, by the kind of device whose tensors they exchange
_waits = []  # the timeout, once there are groups


def num_launched() -> int:
    """How many processes `torchrun` has started for this training; 1 without it.

    Raises:
        ValueError: if the environment says that there are several, but not how they find
            each other.
    """
    if keras.backend.backend() != "torch":
        return 1
    given = os.environ.get("WORLD_SIZE", "1")
    if not given.isdigit() or given == "0":
        raise ValueError(f"WORLD_SIZE must be a positive int. Received: {given!r}")
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if int(given) > 1 and missing:
        raise ValueError(
            "Several processes are started by `torchrun`, which says to each how to find "
            f"the others. Received: WORLD_SIZE={given} in the environment without "
            f"{', '.join(missing)}. Start the program with torchrun, or unset WORLD_SIZE."
        )
    return int(given)


def num_processes() -> int:
    """How many processes train together here and now."""
    return num_launched() if _open else 1


def process_index() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if num_launched() > 1 else 0


class TorchProcesses(contextlib.AbstractContextManager):
    """A context in which the processes of `torchrun` train as one.

    Args:
        timeout: float, seconds that a process waits for the others before it ends with an
            error.

    Raises:
        ValueError: on entering, if there are more processes than GPUs on this machine, or
            Keras computes on something else than GPUs of CUDA or the CPU.
        RuntimeError: on entering, if the program has made a process group itself.
    """

    def __init__(self, timeout: float = TIMEOUT):
        self.timeout = timeout

    def scope(self) -> "TorchProcesses":
        """The context, as the strategies of other backends have it."""
        return self

    def __enter__(self):
        from keras_vit.distribution import torch_training

        if not _open:
            _start(self.timeout)
            torch_training.install()
        _open.append(self)
        return self

    def __exit__(self, *error):
        _open.pop()


def _start(timeout):
    import torch.distributed as dist

    if has_group():
        return
    if dist.is_initialized():
        raise RuntimeError(
            "The process group is made by `keras_vit.distribution`. Received: a program "
            "that has called torch.distributed.init_process_group. Leave that out."
        )
    device, wait = _device(), datetime.timedelta(seconds=timeout)
    kind = {"cpu": "gloo", "cuda": "nccl"}[device]
    store, rank, number = next(dist.rendezvous("env://", timeout=wait))
    # torchrun keeps its store when it restarts the processes, and torch 2.13 would have
    # them look for each other at the addresses of those before.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)
    dist.init_process_group(kind, store=store, rank=rank, world_size=number, timeout=wait)
    # Else gloo's thread, still running, now and then aborts a program that has ended well.
    atexit.register(dist.destroy_process_group)
    _groups[device] = dist.group.WORLD
    if device != "cpu":
        _groups["cpu"] = dist.new_group(backend="gloo", timeout=wait)
    _waits.append(timeout)


def has_group() -> bool:
    """Whether this process has been in such a context."""
    return bool(_groups)


def _device():
    """`"cpu"` or `"cuda"`, of which this process then has one of its own."""
    import torch

    device = keras.ops.zeros(()).device.type
    if device == "cpu":
        return device
    if device != "cuda":
        raise ValueError(
            "Processes train together on GPUs of CUDA or on the CPU. Received: Keras on "
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
    """Says what it means where the others do not answer."""
    import torch.distributed as dist

    try:
        yield dist
    except RuntimeError as error:
        raise RuntimeError(
            f"Process {process_index()} of {num_processes()} has lost the others: one has "
            f"ended, or did not come within {_waits[0]:g} seconds, or was "
            "given batches of another size. See what that one says; a training with "
            f"`ExactResume` goes on when it is started again. ({error})"
        ) from error


def share(content):
    """What the first process gave; anything that can be pickled."""
    box = [content]
    with _exchange() as dist:
        dist.broadcast_object_list(box, src=0, group=_groups["cpu"])
    return box[0]


def share_bytes(numbers: np.ndarray) -> np.ndarray:
    """The first process' uint8 array; that of the others is written to."""
    import torch

    if numbers.size:
        with _exchange() as dist:
            dist.broadcast(torch.from_numpy(numbers), src=0, group=_groups["cpu"])
    return numbers


def everyones(content) -> list:
    """What each process gave; anything that can be pickled."""
    contents = [None] * num_processes()
    with _exchange() as dist:
        dist.all_gather_object(contents, content, group=_groups["cpu"])
    return contents


def any_process(truth: bool) -> bool:
    """Whether it is true in one of them."""
    import torch

    number = torch.tensor(int(truth))
    with _exchange() as dist:
        dist.all_reduce(number, dist.ReduceOp.MAX, group=_groups["cpu"])
    return bool(number)


def gathered(tensor):
    """(n, …) of each process as (processes · n, …), in their order; of any dtype."""
    import torch

    # As bytes: the libraries do not know every dtype.
    own = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    parts = [torch.empty_like(own) for _ in range(num_processes())]
    with _exchange() as dist:
        dist.all_gather(parts, own, group=_groups[own.device.type])
    return torch.cat(parts).view(tensor.dtype).reshape(-1, *tensor.shape[1:])


def averaged(tensors: list) -> list:
    """Means over the processes, of each tensor that is not `None`."""
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
    """Indices of tensors of one dtype, of `BUCKET` numbers together or a single one."""
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


def share_in_place(tensor) -> None:
    """Gives a tensor the first process' numbers."""
    import torch

    numbers = tensor.detach().contiguous()
    with _exchange() as dist:
        group = _groups[numbers.device.type]
        dist.broadcast(numbers.reshape(-1).view(torch.uint8), src=0, group=group)
    tensor.detach().copy_(numbers)
