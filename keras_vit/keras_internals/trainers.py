"""Assumption: `fit` calls the methods of a trainer and an epoch iterator of the backend.

Keras has no public way to divide the rows of a batch in `fit`, `evaluate` and `predict`:
`train_step` alone can be overridden, by a subclass, and neither the data before it nor the
function around it. Each backend has two classes for it in
`keras.src.backend.<backend>.trainer`, whose methods are listed in `_HOOKS`.

Seen to hold in Keras 3.13, 3.14 and 3.15. Distribution for torch in Keras itself, which
would make that part superfluous: https://github.com/keras-team/keras/issues/23418.
"""

from collections.abc import Callable, Iterable, Mapping

import keras

from keras_vit.keras_internals.assumption import internal
from keras_vit.keras_internals.replaced_methods import replace_methods

_CLASSES = {
    "jax": ("JAXTrainer", "JAXEpochIterator"),
    "tensorflow": ("TensorFlowTrainer", "TFEpochIterator"),
    "torch": ("TorchTrainer", "TorchEpochIterator"),
}
# Methods that are not public, by what they do. A trainer's:
_HOOKS = {
    "get_state": "_get_jax_state",  # takes a model's arrays out, on JAX
    "make_function": "_make_function",  # makes a step a `tf.function`
    "build": "_maybe_symbolic_build",  # before the first step, on TensorFlow
    # An epoch iterator's:
    "batches": "_get_iterator",
    "distributed_batches": "_get_distributed_iterator",  # on JAX
}
_FEATURE = "Training on several devices"
_MARK = "keras_vit_for_several_devices"


def replace_trainer(
    trainer: Mapping[str, Callable], iterator: Mapping[str, Callable]
) -> None:
    """Replaces methods of the backend's trainer and of its iterator over an epoch.

    Args:
        trainer: functions by the name of a public method or by a name of `_HOOKS`, which
            are called with the original method before its arguments.
        iterator: the same, of the iterator.

    Raises:
        AssumptionError: if a class or a method does not exist; then nothing is replaced.
    """
    methods = {
        _class(i): {_HOOKS.get(name, name): function for name, function in given.items()}
        for i, given in enumerate((trainer, iterator))
    }
    replace_methods(methods, _FEATURE)


def for_several_devices(method: Callable) -> Callable:
    """Marks a method of a model, which may take the place of a trainer's on any device.

    It is for methods that are right where devices divide a batch.
    """
    setattr(method, _MARK, True)
    return method


def overridden(model: keras.Model, names: Iterable[str]) -> list[str]:
    """The methods that are not the trainer's in a model, of those with these names.

    Methods of `for_several_devices` are left out.
    """
    trainer = _class(0)
    # Keras calls `compute_loss` through the second one.
    return [
        name
        for name in (*names, "_compute_loss")
        if not _is_of(trainer, getattr(type(model), name, None), name)
        or name in vars(model)
    ]


def _is_of(trainer, method, name):
    return method is getattr(trainer, name, None) or hasattr(method, _MARK)


def is_validation(arguments: Mapping) -> bool:
    """True for the named arguments of the `evaluate` that `fit` calls."""
    return bool(arguments.get("_use_cached_eval_dataset"))


def _class(index):
    backend = keras.backend.backend()
    return internal(f"backend.{backend}.trainer", _CLASSES[backend][index], _FEATURE)
