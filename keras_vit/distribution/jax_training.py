"""Keras' training and prediction on JAX, on several devices and processes.

Keras takes the data of each process for its shard of a batch, and so would train on equal
NumPy arrays once per process. Here every process is given the same data, as on torch, and
takes the rows that its devices compute.

Keras fails on a batch that the devices do not divide, and loses the weights. Here each
device is given the complete batch, and XLA divides it within the step, where shards may
have different sizes. The step computes no row twice.

`predict` of Keras 3.15 also fails if other processes have some of the outputs. Here it
pads such a batch and removes the padding from the outputs.
"""

import contextlib
import inspect

import keras
import numpy as np

from keras_vit.distribution import jax_processes
from keras_vit.distribution.batch_rows import (
    EXAMPLES,
    PADDING,
    SHARD,
    check_first_batch,
    num_batch_shards,
)
from keras_vit.distribution.fit_arguments import process_callbacks
from keras_vit.distribution.jax_distributions import MultiProcessDistribution
from keras_vit.distribution.processes import (
    barrier,
    is_first_process,
    num_processes,
)
from keras_vit.keras_internals.jax_data import on_devices
from keras_vit.keras_internals.jax_state import keep_state, synchronize
from keras_vit.keras_internals.replaced_methods import replace_methods
from keras_vit.keras_internals.trainers import is_validation, replace_trainer

_installed = []
_predictions = []  # sizes of the batches of each running call of `predict`


def install() -> None:
    """Replaces methods of Keras' trainer for distributions of this package, once.

    On other backends they only describe layouts, and nothing is replaced.
    """
    if _installed or keras.backend.backend() != "jax":
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
    current = keras.distribution.distribution()
    return current if isinstance(current, MultiProcessDistribution) else None


def _is_divided():
    return num_processes() > 1 and _ours() is not None


# Rows of a batch.


def _init_iterator(original, iterator, x=None, *arguments, **named):
    distribution = _ours()
    iterator.keras_vit_has_own_rows = False
    if distribution is not None:
        part = distribution.batch_shard()
        if part[1] > 1 and hasattr(x, SHARD):
            stream, rows = getattr(x, SHARD)(*part)
            # Otherwise the last process would have copies of the last row.
            if rows is not None and rows % num_batch_shards(distribution) == 0:
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
        batches = check_first_batch(batches)
    return (_distributed(batch, iterator.keras_vit_sizes) for batch in batches)


def _distributed(batch, sizes):
    """A batch on the devices: sharded, or replicated if the devices do not divide it.

    Args:
        batch: all rows, in every process.
        sizes: list to which (rows, padded rows) is appended in `predict`, which pads
            batches; `None` elsewhere.
    """
    rows, parts = _rows(batch), num_batch_shards(_ours())
    padded = -(-rows // parts) * parts
    if sizes is not None:
        sizes.append((rows, padded))
    elif padded != rows:
        return _map(lambda leaf: _put(leaf, _replicated(leaf.shape)), batch)
    index, count = _ours().batch_shard()
    if padded != rows or count > 1:
        own = np.arange(index * padded // count, (index + 1) * padded // count)
        own = np.minimum(own, rows - 1)
        batch = _map(lambda leaf: np.asarray(leaf)[own], batch)
    return _divided(batch)


def _divided(batch):
    """This process' rows of a batch, on the devices that compute them."""
    return _map(
        lambda leaf: _put(leaf, _ours().get_data_layout(leaf.shape).backend_layout), batch
    )


def _put(leaf, layout):
    return on_devices(leaf, layout, _ours().batch_dim_name)


def _replicated(shape):
    """The layout of an array that is complete on each device."""
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
    """Shards a batch of any size over the devices within the step."""
    distribution = _ours()
    if distribution is None or _rows(data) % num_batch_shards(distribution) == 0:
        return original(model, state, data)
    return original(model, state, _map(_divided_in_step, data))


def _divided_in_step(leaf):
    import jax

    if not isinstance(leaf, jax.core.Tracer):
        return leaf  # outside of a trace JAX has no arrays with uneven shards
    distribution = _ours()
    axes = (distribution.batch_dim_name, *(None,) * (leaf.ndim - 1))
    layout = keras.distribution.TensorLayout(axes, distribution.device_mesh)
    return jax.lax.with_sharding_constraint(leaf, layout.backend_layout)


def _get_state(original, model, *arguments, **named):
    """Keeps the weights that Keras moves out of the model, for an error of the data."""
    state = original(model, *arguments, **named)
    if _ours() is not None:
        keep_state(model, state, named)
    return state


@contextlib.contextmanager
def _weights_kept(model):
    """Puts the weights back into the model if a call of Keras ends with an error."""
    try:
        yield
    except BaseException:
        synchronize(model)
        raise


# A call of `fit`, `evaluate` or `predict`.


def _refused(original, model, *arguments, **named):
    if _is_divided():
        raise RuntimeError(
            f"`{original.__name__}` does not shard a batch over processes. Received: a "
            "call in one of several. Use `fit`, `evaluate` or `predict`."
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
    given.arguments["callbacks"] = process_callbacks(callbacks)
    if not is_first_process():
        given.arguments["verbose"] = 0
    with jax_processes.connected(), _weights_kept(model):
        result = original(*given.args, **given.kwargs)
    barrier()  # rank 0 has written its files
    return result


def _check_metrics(model, data):
    """Raises a ValueError if metrics would count the rows that pad the last batch."""
    config = model.get_compile_config() or {}
    if getattr(data, PADDING, 0) and config.get("metrics"):
        raise ValueError(
            "`metrics` would count the images of weight 0 that pad the last batch on "
            f"several devices, here {getattr(data, PADDING)}. Received: a model compiled "
            "with `metrics`. Compile it with `weighted_metrics` instead."
        )


def _check_alone():
    if num_processes() > 1:
        raise RuntimeError(
            "Several processes must train together. Received: `fit` in one of "
            f"{num_processes()} processes outside of a strategy. Build the model and call "
            "`fit` in `with keras_vit.distribution.strategy(…):`."
        )


def _check_savers(model, callbacks):
    """Raises a ValueError if a callback would save sharded weights in one process."""
    callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    if any(isinstance(c, keras.callbacks.ModelCheckpoint) for c in callbacks):
        _check_complete(model, "ModelCheckpoint")


def _check_complete(model, name):
    if all(jax_processes.is_complete(variable.value) for variable in model.variables):
        return
    raise ValueError(
        f"`{name}` needs complete weights in one process. Received: a model that is "
        "sharded over several. Use keras_vit.training.ExactResume or "
        "keras.callbacks.OrbaxCheckpoint; or save it on rank 0 while all processes are in "
        "`with keras_vit.distribution.gather_weights(model):`."
    )


def _save(original, model, *arguments, **named):
    """Saves without a distribution: Keras builds an optimizer, in one process only."""
    if not _is_divided():
        return original(model, *arguments, **named)
    _check_complete(model, original.__name__)
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
        return keras.tree.map_structure(jax_processes.gather_array, outputs), state

    model.predict_function = gathering
