"""Keras' `fit`, `evaluate` and `predict` on torch in several processes.

Keras 3.15 has no distribution on torch. `DistributedDataParallel` acts in its `forward`,
which `fit` never calls, so that gradients silently stay different. Here each process
computes the model on its own rows of a batch. The outputs of all processes are gathered,
so that each computes the loss and the metrics of the complete batch. The gradients of its
own rows flow back, and the gradients of the weights are averaged.
"""

import contextlib
import functools
import inspect
import random
from typing import Self

import keras
import numpy as np

from keras_vit.distribution import torch_processes
from keras_vit.distribution.batch_rows import SHARD, check_first_batch, process_rows
from keras_vit.distribution.fit_arguments import (
    call_options,
    has_added_losses,
    process_callbacks,
)
from keras_vit.distribution.processes import (
    all_equal,
    all_gather,
    barrier,
    broadcast,
    is_first_process,
    num_processes,
    process_index,
)
from keras_vit.distribution.torch_processes import (
    broadcast_tensor,
    gather_rows,
    has_group,
    mean_over_processes,
)
from keras_vit.keras_internals.data_adapters import ROWS, shard_adapter
from keras_vit.keras_internals.loss_tracker import track_loss
from keras_vit.keras_internals.masks import mask, set_mask
from keras_vit.keras_internals.optimizer_averages import num_steps
from keras_vit.keras_internals.seed_generators import (
    global_state,
    made_global_state,
    seed_states,
)
from keras_vit.keras_internals.sublayers import all_layers
from keras_vit.keras_internals.trainers import is_validation, overridden, replace_trainer
from keras_vit.weight_paths import inner_paths, slot_paths

_STEPS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")
_installed = []


def install() -> None:
    """Replaces methods of Keras' trainer for the context of `TorchProcesses`.

    They stay replaced after the context, to refuse a `fit` of one process alone.
    """
    if _installed:
        return
    replace_trainer(
        {
            "train_step": _step(_train_step),
            "test_step": _step(_test_step),
            "predict_step": _step(_predict_step),
            **dict.fromkeys(("fit", "evaluate", "predict"), _call),
            "train_on_batch": _refused,
        },
        iterator={"__init__": _init_iterator, "batches": _first_checked},
    )
    _installed.append(True)


def _step(function):
    def step(original, model, data):
        return function(model, data) if num_processes() > 1 else original(model, data)

    return step


# A step.


def _train_step(model, data):
    import torch

    data, rows = _own(data)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    with _random_of_process(model):
        y_pred = _forward(model, x, rows, training=True)
        model.zero_grad()
        y, sample_weight = _whole((y, sample_weight), rows)
        loss = _loss(model, x, y, y_pred, sample_weight, rows, training=True)
        model.optimizer.scale_loss(loss).backward()
    weights = model.trainable_weights[:]
    with torch.no_grad():
        model.optimizer.apply(mean_over_processes([w.value.grad for w in weights]), weights)
    return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


def _test_step(model, data):
    data, rows = _own(data)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    y_pred = _forward(model, x, rows, training=False)
    y, sample_weight = _whole((y, sample_weight), rows)
    _loss(model, x, y, y_pred, sample_weight, rows, training=False)
    return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


def _predict_step(model, data):
    data, rows = _own(data)
    return _forward(model, data[0], rows, training=False)


def _forward(model, x, rows, training):
    """The outputs for all rows; the gradients of this process' rows flow back."""
    options = call_options(model, training)
    return keras.tree.map_structure(
        lambda output: _whole_output(output, rows), model(x, **options)
    )


def _loss(model, x, y, y_pred, sample_weight, rows, training):
    loss = model.compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
    )
    if has_added_losses(model):
        _check_even(rows, "layers add losses of their own rows")
    # Layers add losses of this process' rows.
    value = mean_over_processes([loss.detach()])[0] if model.losses else loss
    track_loss(model, value, rows)
    return loss


def _check_even(rows, reason):
    """Refuses a batch whose padding would count."""
    if rows % (number := num_processes()):
        raise ValueError(
            "The rows of a batch must be divisible by the number of processes, as "
            f"{reason}. Received: a batch of {rows} for {number} processes. Use a multiple "
            f"of {number} and drop_remainder=True, or one process."
        )


def _whole_output(output, rows):
    if not output.ndim:
        _check_even(rows, "the model returns a mean of its own rows")
        own = output.detach()  # of which the gradient is taken, as those are averaged
        return output + (mean_over_processes([own])[0] - own)
    whole = _gather_function().apply(output)[:rows]
    own = mask(output)
    if own is not None:
        set_mask(whole, gather_rows(own)[:rows])
    return whole


@functools.cache
def _gather_function():
    import torch

    class Gather(torch.autograd.Function):
        """Gathers the outputs of all processes; returns the gradient of its own rows.

        The gradient is multiplied by the number of processes, as the gradients of the
        weights are averaged. Those of regularizers are equal in every process and stay.
        """

        @staticmethod
        def forward(ctx, own):
            ctx.rows = own.shape[0]
            return gather_rows(own)

        @staticmethod
        def backward(ctx, gradient):
            own = gradient.narrow(0, process_index() * ctx.rows, ctx.rows)
            return own * num_processes()

    return Gather


# Rows of a batch. Copies of the last row give each process equally many; they are removed
# from the outputs.


def _own(data):
    """This process' rows of a batch, and the number of all rows."""
    data = tuple(data) if isinstance(data, tuple | list) else (data,)
    first = keras.tree.flatten(data)[0]
    if hasattr(first, ROWS):
        return data, getattr(first, ROWS)
    rows = first.shape[0]
    indices = process_rows(rows, process_index(), num_processes())
    return _map(lambda leaf: keras.ops.convert_to_tensor(leaf)[indices], data), rows


def _whole(data, rows):
    return _map(lambda tensor: gather_rows(tensor)[:rows], data)


def _map(function, data):
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else function(leaf), data
    )


def _init_iterator(original, iterator, x=None, *arguments, **named):
    if num_processes() > 1 and hasattr(x, SHARD):
        stream, rows = getattr(x, SHARD)(process_index(), num_processes())
        weights = named.get("class_weight")
        x = shard_adapter()(stream, rows, class_weight=weights)
    original(iterator, x, *arguments, **named)


def _first_checked(original, iterator):
    batches = original(iterator)
    if num_processes() == 1 or isinstance(iterator.data_adapter, shard_adapter()):
        return batches
    # Iterated now, as in Keras: a loader then draws a seed.
    return check_first_batch(iter(batches))


# Random numbers. The states of all generators are equal in all processes; only while
# gradients are computed does each process have its own.


@contextlib.contextmanager
def _random_of_process(model):
    import torch

    index, optimizer = process_index(), model.optimizer
    steps = num_steps(getattr(optimizer, "inner_optimizer", optimizer))
    entropy = [torch.initial_seed(), steps, index]
    seed = int(np.random.SeedSequence(entropy).generate_state(1, "uint64")[0] >> 1)
    seeds = [state.value.detach() for state in seed_states(model)]
    shift = np.array(index * 0x9E3779B1 % 2**32, "uint32").astype("int32").item()
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    for state in seeds:
        state[0] += shift
    try:
        with torch.random.fork_rng(gpus):
            torch.manual_seed(seed)
            yield
    finally:
        for state in seeds:
            state[0] -= shift


# A call of `fit`, `evaluate` or `predict`.


def _refused(original, model, *arguments, **named):
    if has_group():
        raise RuntimeError(
            "`train_on_batch` does not synchronize the weights of several processes. "
            "Received: a call in one of several. Train with `fit`."
        )
    return original(model, *arguments, **named)


def _call(original, model, *arguments, **named):
    is_fit = original.__name__ == "fit"
    if num_processes() == 1:
        if is_fit and has_group():
            raise RuntimeError(
                "Several processes must train together. Received: `fit` in one of "
                f"{torch_processes.num_launched()} processes outside of a strategy. Call "
                "it in `with keras_vit.distribution.data_parallel():`."
            )
        return original(model, *arguments, **named)
    if is_validation(named):
        return original(model, *arguments, **named)
    given = inspect.signature(original).bind(model, *arguments, **named)
    check_model(model)
    given.arguments["callbacks"] = process_callbacks(given.arguments.get("callbacks"))
    if not is_first_process():
        given.arguments["verbose"] = 0
    _synchronize(model, always=is_fit)
    result = original(*given.args, **given.kwargs)
    if is_fit:
        _check_weights(model)
        barrier()  # rank 0 has written its files
    return result


def check_model(model: keras.Model) -> None:
    """Raises a ValueError for a model that several processes cannot train together."""
    import torch

    own = overridden(model, _STEPS)
    if own:
        raise ValueError(
            "Several processes need the steps of keras.Model. Received: "
            f"{type(model).__name__}, which overrides {', '.join(own)}. Leave that out, "
            "or write the loop in torch."
        )
    layers = list(all_layers(model))
    parallel = torch.nn.parallel.DistributedDataParallel
    if any(isinstance(m, parallel) for layer in layers for m in layer.modules()):
        raise ValueError(
            "Keras' `fit` bypasses torch's DistributedDataParallel. Received: a model that "
            "contains one. Unwrap the module: gradients are averaged here anyway."
        )
    norms = [
        layer.name
        for layer in layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    if norms:
        raise ValueError(
            "BatchNormalization would have different statistics in each process. "
            f"Received: {', '.join(norms[:5])}. Freeze it (layer.trainable = False), or "
            "use GroupNormalization or LayerNormalization."
        )
    if not all(layer.built for layer in layers):
        raise ValueError(
            "A model must be built before its weights can be synchronized. Received: a "
            "model without weights. Start it with keras.Input, or call it on a batch."
        )
    if getattr(model, "jit_compile", None) is True:
        raise ValueError(
            "torch.compile cannot compile the exchange between processes. Received: a "
            "model compiled with jit_compile=True. Leave it out."
        )
    _check_devices(model)


def _check_devices(model):
    here = keras.ops.zeros(()).device
    others = {str(v.value.device) for v in model.variables if v.value.device != here}
    if others:
        raise ValueError(
            "The weights must be on the device of the process. Received: weights on "
            f"{', '.join(sorted(others))} in a process with {here}. Build the model in the "
            "context."
        )


def _synchronize(model, always):
    """Broadcasts rank 0's random states, and its variables if they differ or `always`."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    variables = _variables(model)
    # Keras numbers models, and processes may have built different numbers before.
    paths = inner_paths(model)
    names = [paths[id(variable)] for variable in model.variables]
    names += [] if optimizer is None else slot_paths(model)
    facts = [(tuple(v.shape), v.dtype) for v in variables]
    if not all_equal([*zip(names, facts, strict=True)]):
        raise ValueError(
            "Each process must build the same model with the same optimizer. Received: "
            "variables whose names, shapes or dtypes differ between processes."
        )
    if always or not all_equal(_fingerprints(variables)):
        for variable in variables:
            broadcast_tensor(variable.value)
    _set_random_states(broadcast(_random_states()))


def _variables(model):
    optimizer = getattr(model, "optimizer", None)
    return [*model.variables, *(optimizer.variables if optimizer is not None else ())]


def _fingerprints(variables):
    """Two sums over each variable, as bytes: NaN equals NaN."""
    import torch

    sums = []
    for variable in variables:
        numbers = variable.value.detach().double().reshape(-1)
        places = torch.linspace(1, 2, len(numbers), dtype=torch.float64)
        sums += [numbers @ places.to(numbers.device), torch.linalg.vector_norm(numbers)]
    return [total.cpu().numpy().tobytes() for total in sums]


def _check_weights(model):
    variables = _variables(model)
    everyone = all_gather(_fingerprints(variables))
    for i, sums in enumerate(zip(*everyone, strict=True)):
        if len(set(sums)) > 1:
            raise RuntimeError(
                "All processes must have the same weights after `fit`. Received: "
                f"{variables[i // 2].path!r}, which differs. Look for a callback or a "
                "layer that changes it in one process only."
            )


def _random_states():
    import torch

    gpu = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    state = global_state()
    seed = None if state is None else keras.ops.convert_to_numpy(state)
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    return (*states, None if gpu is None else gpu.cpu(), seed)


def _set_random_states(states):
    import torch

    python, numpy, torch_cpu, torch_gpu, seed = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(torch_cpu)
    if torch_gpu is not None:
        torch.cuda.set_rng_state(torch_gpu)
    if seed is not None:
        made_global_state().assign(seed)


class TorchProcesses(contextlib.AbstractContextManager):
    """Context in which the processes of `torchrun` train one model.

    Args:
        timeout: float, seconds for which a process waits for the others before it ends
            with an error.

    Raises:
        ValueError: on entering, if this machine has more processes than GPUs, or Keras
            uses other devices than CUDA GPUs or the CPU.
        RuntimeError: on entering, if the program has created a process group itself.
    """

    def __init__(self, timeout: float = torch_processes.TIMEOUT):
        self.timeout = timeout

    def scope(self) -> Self:
        """The context itself, as in the strategies of other backends."""
        return self

    def __enter__(self) -> Self:
        if not torch_processes.contexts:
            torch_processes.start_groups(self.timeout)
            install()
        torch_processes.contexts.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        torch_processes.contexts.pop()
