"""Keras' training and prediction on JAX, on several devices of one process or more.

Keras takes what each process yields for its part of a batch: NumPy arrays that all were
given would be trained on once in each. Here every process is given the same data, as on
torch, and hands on the rows that its devices compute.

Keras fails on a batch whose rows the devices do not divide, and loses the weights. Here
each device is given the whole batch, and XLA divides it within the step, where parts may
be of different sizes. The step computes exactly the rows that there are.

`predict` of Keras 3.15 also fails where other processes have some of the outputs. Here it
fills such a batch up, and cuts off what it has added.
"""

import contextlib
import inspect

import keras
import numpy as np

from keras_vit.distribution import jax_processes
from keras_vit.distribution.fitting import of_this_process
from keras_vit.distribution.processes import (
    barrier,
    is_first_process,
    num_processes,
)
from keras_vit.distribution.rows import SHARD, check_first, num_parts
from keras_vit.keras_internals.jax_data import on_devices
from keras_vit.keras_internals.jax_state import keep_state, synchronize
from keras_vit.keras_internals.replaced_methods import replace_methods
from keras_vit.keras_internals.trainers import is_validation, replace_trainer

# Attributes of a stream: how many examples it has, and how many rows that fill it up.
EXAMPLES, PADDING = "keras_vit_examples", "keras_vit_padding"
_installed = []
_predictions = []  # of the calls of `predict` that are running, the sizes of their batches


def install() -> None:
    """Has Keras' trainer do this under a distribution of ours; once is enough."""
    if _installed:
        return
    on_batch = ("train_on_batch", "test_on_batch", "predict_on_batch")
    replace_trainer(
        {
            **dict.fromkeys(("fit", "evaluate"), _call),
            **dict.fromkeys(("train_step", "test_step"), _step),
            "get_state": _get_state,
            "predict": _predict,
            "make_predict_function": _make_predict_function,
            **dict.fromkeys(on_batch, _refused),
        },
        iterator={"__init__": _init_iterator, "distributed_batches": _distributed_batches},
    )
    saving = dict.fromkeys(("save", "save_weights"), _save)
    replace_methods({keras.Model: saving}, "Saving a model that is split")
    _installed.append(True)


def _ours():
    """The distribution in use, if it is of this package."""
    from keras_vit.distribution.parts import ProcessParts

    current = keras.distribution.distribution()
    return current if isinstance(current, ProcessParts) else None


def _is_divided():
    return num_processes() > 1 and _ours() is not None


# Rows of a batch.


def _init_iterator(original, iterator, x=None, *arguments, **named):
    distribution = _ours()
    iterator.keras_vit_has_own_rows = False
    if distribution is not None:
        part = distribution.own_part()
        if part[1] > 1 and hasattr(x, SHARD):
            stream, rows = getattr(x, SHARD)(*part)
            # Else the last process would have copies of the last row.
            if rows is not None and rows % num_parts(distribution) == 0:
                x, iterator.keras_vit_has_own_rows = stream, True
    iterator.keras_vit_sizes = _predictions[-1] if _predictions else None
    original(iterator, x, *arguments, **named)


def _distributed_batches(original, iterator, distribution):
    if _ours() is None:
        return original(iterator, distribution)
    batches = iterator.data_adapter.get_jax_iterator()
    if iterator.keras_vit_has_own_rows:
        return map(_divided, batches)
    if num_processes() > 1:
        batches = check_first(batches)
    return (_distributed(batch, iterator.keras_vit_sizes) for batch in batches)


def _distributed(batch, sizes):
    """A batch on the devices: divided, or where it does not divide whole on each.

    Args:
        batch: all rows, in every process.
        sizes: list to which `predict`, whose batches are filled up, has the rows of each
            added, and those with the copies that fill it up; else `None`.
    """
    rows, parts = _rows(batch), num_parts(_ours())
    padded = -(-rows // parts) * parts
    if sizes is not None:
        sizes.append((rows, padded))
    elif padded != rows:
        return _map(lambda leaf: _put(leaf, _whole(leaf.shape)), batch)
    index, count = _ours().own_part()
    if padded != rows or count > 1:
        own = np.arange(index * padded // count, (index + 1) * padded // count)
        own = np.minimum(own, rows - 1)
        batch = _map(lambda leaf: np.asarray(leaf)[own], batch)
    return _divided(batch)


def _divided(batch):
    """The own rows of a batch, on the devices that compute them."""
    return _map(
        lambda leaf: _put(leaf, _ours().get_data_layout(leaf.shape).backend_layout), batch
    )


def _put(leaf, layout):
    return on_devices(leaf, layout, _ours().batch_dim_name)


def _whole(shape):
    """The layout of an array that each device has all of."""
    layout = keras.distribution.TensorLayout((None,) * len(shape), _ours().device_mesh)
    return layout.backend_layout


def _rows(batch):
    return len(next(leaf for leaf in keras.tree.flatten(batch) if leaf is not None))


def _map(function, batch):
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else function(leaf), batch
    )


# A step.


def _step(original, model, state, data):
    """Divides the rows of any batch over the devices within the step."""
    distribution = _ours()
    if distribution is None or _rows(data) % num_parts(distribution) == 0:
        return original(model, state, data)
    return original(model, state, _map(_divided_in_step, data))


def _divided_in_step(leaf):
    import jax

    if not isinstance(leaf, jax.core.Tracer):
        return leaf  # step by step JAX has no arrays of uneven parts
    distribution = _ours()
    axes = (distribution.batch_dim_name, *(None,) * (leaf.ndim - 1))
    layout = keras.distribution.TensorLayout(axes, distribution.device_mesh)
    return jax.lax.with_sharding_constraint(leaf, layout.backend_layout)


def _get_state(original, model, *arguments, **named):
    """Keras takes the weights out of the model, and here does not lose them on an error
    of the data that comes before the first step.
    """
    state = original(model, *arguments, **named)
    if _ours() is not None:
        keep_state(model, state, named)
    return state


@contextlib.contextmanager
def _weights_kept(model):
    """Gives the model its weights back where a call of Keras ends with an error."""
    try:
        yield
    except BaseException:
        synchronize(model)
        raise


# A call of `fit`, `evaluate` or `predict`.


def _refused(original, model, *arguments, **named):
    if _is_divided():
        raise RuntimeError(
            f"`{original.__name__}` does not divide a batch over the processes. Use "
            "`fit`, `evaluate` or `predict`."
        )
    return original(model, *arguments, **named)


def _call(original, model, *arguments, **named):
    is_fit = original.__name__ == "fit"
    if is_validation(named):
        return original(model, *arguments, **named)
    given = inspect.signature(original).bind(model, *arguments, **named)
    _check_metrics(model, given.arguments.get("validation_data" if is_fit else "x"))
    if not _is_divided():
        if is_fit:
            _check_alone()
        with _weights_kept(model):
            return original(model, *arguments, **named)
    callbacks = given.arguments.get("callbacks")
    _check_savers(model, callbacks)
    given.arguments["callbacks"] = of_this_process(callbacks)
    if not is_first_process():
        given.arguments["verbose"] = 0
    with jax_processes.connected(), _weights_kept(model):
        result = original(*given.args, **given.kwargs)
    barrier()  # what the first process writes is there
    return result


def _check_metrics(model, data):
    """That no metric counts the rows that fill up the last batch."""
    config = model.get_compile_config() or {}
    if getattr(data, PADDING, 0) and config.get("metrics"):
        raise ValueError(
            "On several devices the last batch of an evaluation is filled up with images "
            f"of weight 0, here {getattr(data, PADDING)}, which `metrics` count as others. "
            "Received: a model compiled with `metrics`. Compile it with the same as "
            "`weighted_metrics`."
        )


def _check_alone():
    if num_processes() > 1:
        raise RuntimeError(
            "Outside of a strategy each process would train for itself. Received: `fit` "
            f"in one of {num_processes()} processes. Build the model and call it in `with "
            "keras_vit.distribution.strategy(…):`."
        )


def _check_savers(model, callbacks):
    """That no callback of one process saves weights of which it has but a part."""
    callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    if any(isinstance(c, keras.callbacks.ModelCheckpoint) for c in callbacks):
        _check_whole(model, "ModelCheckpoint")


def _check_whole(model, name):
    if all(jax_processes.is_whole(variable.value) for variable in model.variables):
        return
    raise ValueError(
        f"`{name}` writes weights that one process has all of. Received: a model that is "
        "split over several. Use keras_vit.training.ExactResume or "
        "keras.callbacks.OrbaxCheckpoint; or save it in every process in `with "
        "keras_vit.distribution.whole_weights(model):`, where the first one writes."
    )


def _save(original, model, *arguments, **named):
    """To save a model, Keras makes an optimizer, of which each process needs its part."""
    if not _is_divided():
        return original(model, *arguments, **named)
    _check_whole(model, original.__name__)
    current = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        return original(model, *arguments, **named)
    finally:
        keras.distribution.set_distribution(current)


def _predict(original, model, x, *arguments, **named):
    if _ours() is None:
        return original(model, x, *arguments, **named)
    given = inspect.signature(original).bind(model, x, *arguments, **named)
    if not is_first_process():
        given.arguments["verbose"] = 0
    total, sizes = getattr(x, EXAMPLES, None), []
    with _predicting(sizes), jax_processes.connected(), _weights_kept(model):
        outputs = original(*given.args, **given.kwargs)
    chosen = slice(None)
    if sizes:
        chosen = np.concatenate([np.arange(padded) < rows for rows, padded in sizes])
    return keras.tree.map_structure(lambda array: array[chosen][:total], outputs)


@contextlib.contextmanager
def _predicting(sizes):
    _predictions.append(sizes)
    try:
        yield
    finally:
        _predictions.pop()


def _make_predict_function(original, model, force=False):
    before = model.predict_function
    original(model, force)
    function = model.predict_function
    if function is before or num_processes() == 1:
        return

    def gathering(state, iterator):
        outputs, state = function(state, iterator)
        return keras.tree.map_structure(jax_processes.whole, outputs), state

    model.predict_function = gathering
