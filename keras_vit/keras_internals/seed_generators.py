"""Assumption: Keras keeps one seed generator for calls without a seed, and a named state.

`keras.random` functions without a seed share one `SeedGenerator`. `set_random_seed` makes
a new one, and nothing public reads its state, or tells whether there is one yet, or which
seed was set. The states of the generators inside a model are its variables with the name
`"seed_generator_state"`.

Seen to hold in Keras 3.13, 3.14 and 3.15.
"""

import functools
from collections.abc import Callable

import keras

from keras_vit.keras_internals.assumption import internal, private

_STATE = "seed_generator_state"


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """The states of the generators inside a model, and of the global one."""
    states = [v for v in model.variables if v.name == _STATE]
    state = global_state()
    return states if state is None else [*states, state]


def global_state() -> keras.Variable | None:
    """The state of the global generator; `None` if nothing has drawn from it yet."""
    generator = _attribute("global_seed_generator")
    return None if generator is None else generator.state


def made_global_state() -> keras.Variable:
    """The state of the global generator, which is made if there is none."""
    name = "global_seed_generator"
    return internal("random.seed_generator", name, "Resuming a training")().state


def random_seed() -> int | None:
    """The seed that `keras.utils.set_random_seed` was given, or `None`."""
    return _attribute("global_random_seed")


def replace_draws(function: Callable) -> None:
    """Has each generator return `function(seed)` where it would return `seed`.

    Args:
        function: of a tensor with two numbers, to one.
    """
    generator = keras.random.SeedGenerator
    draw = private(generator, "next", "Randomness of each replica")

    @functools.wraps(draw)
    def drawn(self, ordered=True):
        return function(draw(self, ordered))

    generator.next = drawn


def _attribute(name):
    feature = "Resuming and distributing a training"
    return internal("backend.common.global_state", "get_global_attribute", feature)(name)
