"""Initial values of weights: drawn by NumPy, and zeros where a checkpoint follows."""

import contextlib
import contextvars
import functools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import initializers

from keras_vit.layers import kernels
from keras_vit.types import Initializer

_BLOCK, _PIECE = 2**20, 2**15  # numbers
_WAITS = contextvars.ContextVar("waits_for_values", default=False)


@contextlib.contextmanager
def waiting_for_values() -> Iterator[None]:
    """Layers built inside start with zeros instead of drawing random numbers.

    For models that a checkpoint fills next: drawing can take longer than reading one.
    """
    token = _WAITS.set(True)
    try:
        yield
    finally:
        _WAITS.reset(token)


def initializer(usual: Initializer) -> initializers.Initializer:
    """The initializer `usual`, or zeros inside `waiting_for_values`."""
    return initializers.get("zeros" if _WAITS.get() else usual)


class ValuesByNumPy:
    """A base, before `keras.layers.Layer`, of layers whose weights start by NumPy.

    NumPy makes the values where a backend is slower or needs more memory, see
    `kernels.has_numpy_weights`. The layer's own initializers, and so its config, stay
    Keras'.
    """

    def add_weight(
        self, *args: Any, initializer: Initializer | None = None, **kwargs: Any
    ) -> keras.Variable:
        return super().add_weight(*args, initializer=by_numpy(initializer), **kwargs)


def by_numpy(usual: Initializer) -> Initializer:
    """The initializer `usual`, with values from NumPy where that is better.

    Args:
        usual: initializer, its name, or `None`.

    Returns:
        A `ByNumPy` of `usual`, or `usual` where `VALUES` does not know it or the backend
        does as well with it.
    """
    usual = initializers.get(usual)
    # By method: a subclass with its own computes something else.
    if type(usual).__call__ not in VALUES:
        return usual
    seed = getattr(usual, "seed", None)
    # A `SeedGenerator` steps on at each draw, which is left to Keras.
    if not isinstance(seed, int | None):
        return usual
    return ByNumPy(usual) if kernels.has_numpy_weights(seed is not None) else usual


class ByNumPy(initializers.Initializer):
    """Initial values of the distribution of a Keras initializer, but other numbers.

    They follow from its seed, which `keras.utils.set_random_seed` determines, and are the
    same at each call, as Keras' are. They do not depend on how a weight is split.

    Args:
        usual: initializer that `VALUES` knows.
    """

    def __init__(self, usual: initializers.Initializer):
        self.usual = usual

    # Keras gives a layout to initializers that take one, and compiles the others for each
    # weight that is large.
    def __call__(self, shape, dtype=None, layout=None):
        values = functools.partial(VALUES[type(self.usual).__call__], self.usual)
        return kernels.weight_from_numpy(values, self.usual, tuple(shape), dtype, layout)

    def get_config(self) -> dict[str, Any]:
        return {"usual": initializers.serialize(self.usual)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ByNumPy":
        return cls(initializers.deserialize(config["usual"]))


def _uniform(usual, shape, low, high):
    def draw(generator, out):
        generator.random(out=out, dtype="float32")

    return _drawn(usual, shape, draw, high - low, low)


def _normal(usual, shape, mean, stddev):
    def draw(generator, out):
        generator.standard_normal(out=out, dtype="float32")

    return _drawn(usual, shape, draw, stddev, mean)


def _truncated_normal(usual, shape, mean, stddev):
    """Normal within two standard deviations: numbers outside are drawn again."""

    def draw(generator, out):
        generator.standard_normal(out=out, dtype="float32")
        outside = np.flatnonzero(np.abs(out) > 2)
        while outside.size:
            again = generator.standard_normal(outside.size, dtype="float32")
            out[outside] = again
            outside = outside[np.abs(again) > 2]

    return _drawn(usual, shape, draw, stddev, mean)


def _drawn(usual, shape, draw, scale, shift):
    """An array of random numbers, `scale` times those of `draw`, plus `shift`.

    Threads fill it block by block, each block by a generator of its own, so that the
    numbers do not depend on the number of threads. A block is filled in pieces that the
    caches hold.
    """
    values = kernels.array_for_weights(shape)

    def fill(start):
        # The quickest of NumPy's generators.
        bits = np.random.SFC64([usual.seed % 2**64, start // _BLOCK])
        generator = np.random.Generator(bits)
        block = values[start : start + _BLOCK]
        for begin in range(0, block.size, _PIECE):
            piece = block[begin : begin + _PIECE]
            draw(generator, piece)
            piece *= np.float32(scale)
            piece += np.float32(shift)

    starts = range(0, values.size, _BLOCK)
    if len(starts) > 1:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(fill, starts))
    elif starts:
        fill(0)
    return values.reshape(shape)


def _fans(usual, shape):
    """(inputs, outputs) of a weight, as Keras counts them.

    An initializer has the axes of both from Keras 3.15 on. Without them the last two are
    taken, and those before for the places of a convolution.
    """
    inputs, outputs = (getattr(usual, n, None) for n in ("input_axes", "output_axes"))
    if inputs is not None and outputs is not None:
        return tuple(math.prod(shape[i] for i in axes) for axes in (inputs, outputs))
    if len(shape) < 2:
        return (math.prod(shape),) * 2
    places = math.prod(shape[:-2])
    return places * shape[-2], places * shape[-1]


def _variance_scaling(usual, shape):
    fan_in, fan_out = _fans(usual, shape)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    stddev = math.sqrt(usual.scale / max(1.0, fans[usual.mode]))
    if usual.distribution == "uniform":
        limit = math.sqrt(3) * stddev
        return _uniform(usual, shape, -limit, limit)
    if usual.distribution == "untruncated_normal":
        return _normal(usual, shape, 0, stddev)
    # A normal distribution that is cut off at 2 has 0.88 of its standard deviation.
    return _truncated_normal(usual, shape, 0, stddev / 0.87962566103423978)


# By the method that computes them, which subclasses such as `GlorotUniform` have too.
VALUES: dict[Callable, Callable] = {
    initializers.Zeros.__call__: lambda usual, shape, dtype: np.zeros(shape, dtype),
    initializers.Ones.__call__: lambda usual, shape, dtype: np.ones(shape, dtype),
    initializers.Constant.__call__: lambda usual, shape, dtype: np.full(
        shape, usual.value, dtype
    ),
    initializers.RandomUniform.__call__: lambda usual, shape, _: _uniform(
        usual, shape, usual.minval, usual.maxval
    ),
    initializers.RandomNormal.__call__: lambda usual, shape, _: _normal(
        usual, shape, usual.mean, usual.stddev
    ),
    initializers.TruncatedNormal.__call__: lambda usual, shape, _: _truncated_normal(
        usual, shape, usual.mean, usual.stddev
    ),
    initializers.VarianceScaling.__call__: lambda usual, shape, _: _variance_scaling(
        usual, shape
    ),
}
