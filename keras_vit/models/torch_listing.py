"""A check that a model around one of ours lists all of its weights for torch.

Keras lists a model's parameters by path, and clears the gradients of the listed ones. If
two weights have one path, gradients of the unlisted one accumulate over steps.
"""

import weakref

import keras

from keras_vit.keras_internals.call_context import outermost_training_layer
from keras_vit.keras_internals.variable_values import raw_value

_checked = weakref.WeakKeyDictionary()  # models → number of weights that they had


def check_listed(model: keras.Model) -> None:
    """Checks, if the backend is torch, the model whose training step calls this one.

    Raises:
        ValueError: if it does not list all of the weights that it trains.
    """
    outer = _trained(model) if keras.backend.backend() == "torch" else None
    if outer is None or _checked.get(outer) == len(weights := outer.trainable_weights):
        return
    listed = {id(parameter) for parameter in outer.parameters()}
    missing = [weight.path for weight in weights if id(raw_value(weight)) not in listed]
    if missing:
        raise ValueError(
            "On torch, Keras trains the weights of a model by their paths, which must be "
            f"unique. Received: {outer.name!r} with {missing[0]!r} and {len(missing) - 1} "
            f"more twice, as models in it have the name {model.name!r} in common. Give "
            "each its own: from_pretrained(…, name=…), or name= where it is built."
        )
    _checked[outer] = len(weights)


def _trained(model):
    """The outermost model that is called in a step of training, if it is another one."""
    outer = outermost_training_layer()
    is_other = isinstance(outer, keras.Model) and outer is not model
    return outer if is_other else None
