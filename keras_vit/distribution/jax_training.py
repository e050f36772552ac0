"""`fit`, `evaluate` and `predict` of Keras on JAX, by several processes together.

Keras takes what each process yields for its part of a batch: NumPy arrays that all were
given would be trained on once in each. Here every process is given the same data, as on
torch, and hands on the rows that its devices compute.

`predict` of Keras 3.15 fails where other processes have some of the outputs, and on any
number of devices where the last batch does not divide; here it does neither.
"""

import contextlib
import inspect

import keras
import numpy as np

from keras_vit.distribution import jax_processes
from keras_vit.distribution.fitting import of_this_process, replace_method
from keras_vit.distribution.processes import (
    barrier,
    is_first_process,
    num_processes,
)
from keras_vit.distribution.rows import SHARD, check_first

EXAMPLES = "keras_vit_examples"  # the attribute of a stream: how many, without the padding
_installed = []
_predictions = []  # of the calls of `predict` that are running, the sizes of their batches


def install() -> None:
    """Has Keras' trainer do this under a distribution of ours; once is enough."""
    if _installed:
        return
    from keras.src.backend.jax import trainer

    _installed.append(True)
    for name in ("fit", "evaluate"):
        replace_method(trainer.JAXTrainer, name, _call)
    replace_method(trainer.JAXTrainer, "predict", _predict)
    replace_method(trainer.JAXTrainer, "make_predict_function", _make_predict_function)
    for name in ("train_on_batch", "test_on_batch", "predict_on_batch"):
        replace_method(trainer.JAXTrainer, name, _refused)
    replace_method(trainer.JAXEpochIterator, "__init__", _init_iterator)
    for name in ("save", "save_weights"):
        replace_method(keras.Model, name, _save)


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
    if distribution is None:
        return original(iterator, x, *arguments, **named)
    part = distribution.own_part()
    stream, rows = x, None
    if part[1] > 1 and hasattr(x, SHARD):
        stream, rows = getattr(x, SHARD)(*part)
    if rows is not None:
        original(iterator, stream, *arguments, **named)
        return None
    original(iterator, x, *arguments, **named)
    adapter = iterator.data_adapter
    batches = adapter.get_jax_iterator
    sizes = _predictions[-1] if _predictions else None
    if num_processes() > 1 or sizes is not None:
        adapter.get_jax_iterator = lambda: _own(batches(), part, sizes)
    return None


def _own(batches, part, sizes):
    """The own rows of each batch; in `predict`, where they need not divide, filled up."""
    index, count = part
    number = _ours().num_model_replicas
    for batch in check_first(batches) if num_processes() > 1 else batches:
        rows = len(next(leaf for leaf in keras.tree.flatten(batch) if leaf is not None))
        padded = -(-rows // number) * number
        if sizes is not None:
            sizes.append((rows, padded))
        elif padded != rows:
            raise ValueError(
                f"The rows of a batch must be divisible by {number}, the devices that "
                f"divide it. Received: a batch of {rows}. Leave out the last one "
                "(drop_remainder=True), or evaluate streams of keras_vit.data, which fill "
                "it up with images that do not count."
            )
        own = np.arange(index * padded // count, (index + 1) * padded // count)
        own = np.minimum(own, rows - 1)
        yield keras.tree.map_structure(
            lambda leaf, own=own: None if leaf is None else np.asarray(leaf)[own], batch
        )


# A call of `fit`, `evaluate` or `predict`.


def _refused(original, model, *arguments, **named):
    if _is_divided():
        raise RuntimeError(
            f"`{original.__name__}` does not divide a batch over the processes. Use "
            "`fit`, `evaluate` or `predict`."
        )
    return original(model, *arguments, **named)


def _call(original, model, *arguments, **named):
    if named.get("_use_cached_eval_dataset") or not _is_divided():
        if original.__name__ == "fit":
            _check_alone()
        return original(model, *arguments, **named)
    given = inspect.signature(original).bind(model, *arguments, **named)
    callbacks = given.arguments.get("callbacks")
    _check_savers(model, callbacks)
    given.arguments["callbacks"] = of_this_process(callbacks)
    if not is_first_process():
        given.arguments["verbose"] = 0
    with jax_processes.connected():
        result = original(*given.args, **given.kwargs)
    barrier()  # what the first process writes is there
    return result


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
    with _predicting(sizes), jax_processes.connected():
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
