"""`fit`, `evaluate` and `predict` of Keras on torch, by several processes together.

Keras 3.15 has no distribution on torch, and what `DistributedDataParallel` does begins in
its `forward`, which `fit` never calls: nothing is averaged, and nobody says so. Here each
process computes the model on its own rows of a batch. The outputs of all of them are
gathered, so that each has the loss and the metrics of the whole batch, whatever they are;
back go the gradients of its own rows, and those of the weights are averaged.
"""

import contextlib
import functools
import inspect
import random

import keras
import numpy as np

from keras_vit.distribution import torch_processes
from keras_vit.distribution.fitting import (
    call_options,
    has_added_losses,
    of_this_process,
)
from keras_vit.distribution.processes import (
    barrier,
    everyones,
    is_first_process,
    num_processes,
    process_index,
    same_everywhere,
    share,
)
from keras_vit.distribution.rows import SHARD, check_first, own_rows
from keras_vit.distribution.torch_processes import (
    averaged,
    gathered,
    has_group,
    share_in_place,
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
    """Has Keras' trainer do this in the context of `TorchProcesses`.

    It stays in place after it, to refuse a `fit` by each process for itself.
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
        model.optimizer.apply(averaged([w.value.grad for w in weights]), weights)
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
    """The outputs for all rows, of which the gradients of its own come back here."""
    options = call_options(model, training)
    return keras.tree.map_structure(
        lambda output: _whole_output(output, rows), model(x, **options)
    )


def _loss(model, x, y, y_pred, sample_weight, rows, training):
    loss = model.compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
    )
    if rows % num_processes():
        _check_added(model, rows)
    # What layers add to the loss is of each process' own rows.
    value = averaged([loss.detach()])[0] if model.losses else loss
    track_loss(model, value, rows)
    return loss


def _check_added(model, rows):
    """Refuses losses that layers add, as the copies that fill a batch up would count."""
    if has_added_losses(model):
        number = num_processes()
        raise ValueError(
            "The rows of a batch must be divisible by the number of processes, as layers "
            f"add losses of their own rows. Received: a batch of {rows} for {number} "
            f"processes. Take a multiple of {number}, and leave out the rows that are left "
            "at the end (drop_remainder=True), or use one process."
        )


def _whole_output(output, rows):
    whole = _gather_function().apply(output)[:rows]
    own = mask(output)
    if own is not None:
        set_mask(whole, gathered(own)[:rows])
    return whole


@functools.cache
def _gather_function():
    import torch

    class Gather(torch.autograd.Function):
        """Outputs of all processes; back, times their number, the gradients of its own.

        Times their number since the gradients of the weights are averaged, which leaves
        as they are those that every process has: of a regularizer's loss.
        """

        @staticmethod
        def forward(ctx, own):
            ctx.rows = own.shape[0]
            return gathered(own)

        @staticmethod
        def backward(ctx, gradient):
            own = gradient.narrow(0, process_index() * ctx.rows, ctx.rows)
            return own * num_processes()

    return Gather


# Rows of a batch. The copies of the last one with which each process has as many are cut
# off the outputs.


def _own(data):
    """The own rows of a batch, and how many it has in all."""
    data = tuple(data) if isinstance(data, tuple | list) else (data,)
    first = keras.tree.flatten(data)[0]
    if hasattr(first, ROWS):
        return data, getattr(first, ROWS)
    rows = first.shape[0]
    indices = own_rows(rows, process_index(), num_processes())
    return _map(lambda leaf: keras.ops.convert_to_tensor(leaf)[indices], data), rows


def _whole(data, rows):
    return _map(lambda tensor: gathered(tensor)[:rows], data)


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
    # Begun now, as Keras begins it: a loader draws a seed then.
    return check_first(iter(batches))


# Randomness. The state of all generators is the same in each process, at any time; while
# gradients are computed, each has numbers of its own.


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
            "`train_on_batch` does not give every process the same weights first. "
            "Train with `fit`."
        )
    return original(model, *arguments, **named)


def _call(original, model, *arguments, **named):
    is_fit = original.__name__ == "fit"
    if num_processes() == 1:
        if is_fit and has_group():
            raise RuntimeError(
                "Outside of the context each process would train for itself. Received: "
                f"`fit` in one of {torch_processes.num_launched()} processes. Call it "
                "in `with keras_vit.distribution.data_parallel():`."
            )
        return original(model, *arguments, **named)
    if is_validation(named):
        return original(model, *arguments, **named)
    given = inspect.signature(original).bind(model, *arguments, **named)
    check_model(model)
    given.arguments["callbacks"] = of_this_process(given.arguments.get("callbacks"))
    if not is_first_process():
        given.arguments["verbose"] = 0
    _synchronize(model, always=is_fit)
    result = original(*given.args, **given.kwargs)
    if is_fit:
        _check_weights(model)
        barrier()  # what the first process writes is there
    return result


def check_model(model) -> None:
    """Raises a ValueError for a model that processes cannot train together."""
    import torch

    own = overridden(model, _STEPS)
    if own:
        raise ValueError(
            "Processes take the steps of keras.Model together. Received: "
            f"{type(model).__name__} with a {', '.join(own)} of its own. Leave it out, or "
            "write the loop in torch."
        )
    layers = list(all_layers(model))
    parallel = torch.nn.parallel.DistributedDataParallel
    if any(isinstance(m, parallel) for layer in layers for m in layer.modules()):
        raise ValueError(
            "Keras' `fit` does not use what torch's DistributedDataParallel is given. "
            "Received: a model with one in it. Take the module out of it: gradients are "
            "averaged here anyway."
        )
    norms = [
        layer.name
        for layer in layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    if norms:
        raise ValueError(
            "BatchNormalization has in each process the statistics of its own rows. "
            f"Received: {', '.join(norms[:5])}. Freeze it (layer.trainable = False), or "
            "use GroupNormalization or LayerNormalization."
        )
    if not all(layer.built for layer in layers):
        raise ValueError(
            "A model must be built before each process can be given the same weights. "
            "Received: one without. Begin it with keras.Input, or call it on a batch."
        )
    if getattr(model, "jit_compile", None) is True:
        raise ValueError(
            "torch.compile does not know how processes exchange outputs. Received: a "
            "model compiled with jit_compile=True. Leave it out."
        )
    _check_devices(model)


def _check_devices(model):
    here = keras.ops.zeros(()).device
    others = {str(v.value.device) for v in model.variables if v.value.device != here}
    if others:
        raise ValueError(
            "Build the model in the context, where each process has its own device. "
            f"Received: weights on {', '.join(sorted(others))} in a process that has {here}"
        )


def _synchronize(model, always):
    """Gives each process the first one's weights, optimizer and randomness.

    Args:
        model: the model.
        always: whether also where sums say that they are the same.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    variables = _variables(model)
    # Processes may have built other numbers of models before, which Keras counts.
    paths = inner_paths(model)
    names = [paths[id(variable)] for variable in model.variables]
    names += [] if optimizer is None else slot_paths(model)
    facts = [(tuple(v.shape), v.dtype) for v in variables]
    if not same_everywhere([*zip(names, facts, strict=True)]):
        raise ValueError(
            "Each process must build the same model with the same optimizer. Received: "
            "variables of other names, shapes or dtypes in some."
        )
    if always or not same_everywhere(_fingerprints(variables)):
        for variable in variables:
            share_in_place(variable.value)
    _set_random_states(share(_random_states()))


def _variables(model):
    optimizer = getattr(model, "optimizer", None)
    return [*model.variables, *(optimizer.variables if optimizer is not None else ())]


def _fingerprints(variables):
    """Two sums over each variable, as bytes, so that NaN equals NaN."""
    import torch

    sums = []
    for variable in variables:
        numbers = variable.value.detach().double().reshape(-1)
        places = torch.linspace(1, 2, len(numbers), dtype=torch.float64)
        sums += [numbers @ places.to(numbers.device), torch.linalg.vector_norm(numbers)]
    return [total.cpu().numpy().tobytes() for total in sums]


def _check_weights(model):
    variables = _variables(model)
    everyone = everyones(_fingerprints(variables))
    for i, sums in enumerate(zip(*everyone, strict=True)):
        if len(set(sums)) > 1:
            raise RuntimeError(
                "The processes have come apart: after `fit` "
                f"{variables[i // 2].path!r} is not the same in all of them. A callback or "
                "a layer changes it by what only one of them knows."
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
