"""Assumption: on JAX `fit` keeps a model's arrays in `_jax_state` while it runs.

Keras takes the arrays out of a model and donates them to the compiled step. There is no
public way to have the model hold them in between, or to the step and its arguments.
`_get_jax_state` gives the arrays of the groups that are asked for, in the order of
`_GROUPS`; `jax_state_sync` puts them back.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_vit.keras_internals.assumption import private

_GROUPS = (
    *("trainable_variables", "non_trainable_variables"),
    *("optimizer_variables", "metrics_variables"),
)


def synchronize(model: keras.Model) -> None:
    """Has the variables hold what they are: on JAX `fit` keeps it to itself."""
    if keras.backend.backend() == "jax":
        private(model, "jax_state_sync", "Reading a model while `fit` runs")()


def keep_state(model: keras.Model, state: Sequence, asked: Mapping[str, Any]) -> None:
    """Notes arrays that Keras has taken out, so that `synchronize` finds them.

    Args:
        model: the model.
        state: what `_get_jax_state` returned.
        asked: the named arguments that it was given.
    """
    if asked.get("purge_model_variables"):
        taken = [name for name in _GROUPS if asked.get(name)]
        model._jax_state = dict(zip(taken, state, strict=True))


def lowered_train_step(model: keras.Model, batch: tuple) -> Any:
    """The step that `fit` compiles, as a `jax.stages.Lowered`.

    Args:
        model: a compiled model, whose optimizer and metrics are built.
        batch: `jax.ShapeDtypeStruct` of images and labels.
    """
    feature = "The plan of a training"
    private(model, "_make_function", feature)
    # Keras wraps its compiled step in one that asks an iterator for the batch.
    model._make_function = lambda step, **_: step
    model.make_train_function()
    get_state = private(model, "_get_jax_state", feature)
    state = get_state(**dict.fromkeys(_GROUPS, True))
    return model.train_function.lower(state, batch)
