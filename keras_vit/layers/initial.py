"""Initial values: by NumPy where that is better, and none where a model will be filled."""

import contextlib
import contextvars
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
from keras import initializers

_BLOCK, _PIECE = 2**20, 2**15  # numbers
_LINE = 64  # bytes of a processor's cache line
_WAITS = contextvars.ContextVar("waits_for_values", default=False)


@contextlib.contextmanager
def waiting_for_values():
    """Layers built inside start with zeros instead of drawing random numbers.

    For models that a checkpoint fills next: drawing can take longer than reading one.
    """
    token = _WAITS.set(True)
    try:
        yield
    finally:
        _WAITS.reset(token)


def initializer(usual) -> initializers.Initializer:
    """The initializer `usual`, or that of zeros where values are to come."""
    return initializers.get("zeros" if _WAITS.get() else usual)


class ValuesByNumPy:
    """A base, before `keras.layers.Layer`, of layers whose weights start by NumPy.

    On JAX Keras has XLA compile how values are drawn, or filled with a constant, for each
    shape: most of the time that it takes to build a model. On torch it draws in three
    arrays, and those that it frees are kept by the C library: 1.4 times the memory of
    ViT-H's weights; there large weights alone start by NumPy. TensorFlow goes Keras' way.
    The layer's own initializers, and so its config, stay Keras'.
    """

    def add_weight(self, *args, initializer=None, **kwargs):
        return super().add_weight(*args, initializer=by_numpy(initializer), **kwargs)


def by_numpy(usual):
    """The initializer `usual`, by NumPy where it is a known one and values are wanted."""
    usual = initializers.get(usual)
    # By method: a subclass with its own computes something else.
    if type(usual).__call__ not in VALUES:
        return usual
    seed = getattr(usual, "seed", None)
    # A `SeedGenerator` steps on at each draw, which is left to Keras.
    if not isinstance(seed, int | None):
        return usual
    if keras.backend.backend() == "torch":
        return usual if seed is None else ByNumPy(usual)
    is_jax = keras.backend.backend() == "jax"
    return ByNumPy(usual) if is_jax and not _is_traced() else usual


def _is_traced():
    """Whether JAX wants no values, or a program that makes them.

    There Keras cannot ask for a layout, and where it traces a layer to build it, it may
    ask within another trace.
    """
    import jax

    return isinstance(jax.device_put(np.zeros(())), jax.core.Tracer)


class ByNumPy(initializers.Initializer):
    """What an initializer of Keras gives, of the same distribution but other numbers.

    They follow from its seed, which `keras.utils.set_random_seed` determines, and are the
    same at each call, as Keras' are. They do not depend on how a weight is split.

    Args:
        usual: initializer that `VALUES` knows.
    """

    def __init__(self, usual: initializers.Initializer):
        self.usual = usual

    # Keras gives a layout to those that take one, and compiles others for each weight
    # that is large.
    def __call__(self, shape, dtype=None, layout=None):
        if keras.backend.backend() == "torch":
            return self._on_torch(tuple(shape), dtype)
        import jax
        from keras.src.backend.common.stateless_scope import in_stateless_scope

        if in_stateless_scope():  # where Keras traces with them, and never keeps them
            return self.usual(shape, dtype=dtype)
        dtype = keras.backend.standardize_dtype(dtype)
        values = VALUES[type(self.usual).__call__](self.usual, tuple(shape), dtype)
        values = values.astype(dtype, copy=False)
        if layout is not None:
            # It says how the axes of a mesh split them, and not of which devices.
            mesh = jax.sharding.get_mesh()
            layout = jax.sharding.NamedSharding(mesh, layout.spec)
            usual = jax.device_put(np.zeros(())).sharding
            if mesh.size == 1 and usual.is_equivalent_to(layout, len(shape)):
                # Keras leaves an array where it is, and warns of a model that has both.
                layout = usual
        # `convert_to_tensor` would compile a program for each shape, and copy.
        return jax.device_put(values, layout)

    def _on_torch(self, shape, dtype):
        if math.prod(shape) < _BLOCK:
            return self.usual(shape, dtype=dtype)
        import torch

        values = VALUES[type(self.usual).__call__](self.usual, shape, "float32")
        # As a tensor, which stays where it is on a CPU: Keras copies NumPy's arrays.
        return keras.ops.convert_to_tensor(torch.from_numpy(values), dtype)

    def get_config(self):
        return {"usual": initializers.serialize(self.usual)}

    @classmethod
    def from_config(cls, config):
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
    """Normal within two standard deviations: what is outside is drawn again."""

    def draw(generator, out):
        generator.standard_normal(out=out, dtype="float32")
        outside = np.flatnonzero(np.abs(out) > 2)
        while outside.size:
            again = generator.standard_normal(outside.size, dtype="float32")
            out[outside] = again
            outside = outside[np.abs(again) > 2]

    return _drawn(usual, shape, draw, stddev, mean)


def _drawn(usual, shape, draw, scale, shift):
    """What `draw` fills arrays with, times `scale`, plus `shift`.

    In threads, each block of numbers by a generator of its own, so that they do not
    depend on how many threads there are; and of a block so much at once as the caches
    hold.
    """
    values = _room(math.prod(shape))

    def fill(start):
        # The quickest of NumPy's.
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


def _room(size):
    """An empty array of so many numbers; for torch, which takes it as it is, one that
    starts where a cache line does.

    NumPy's own start at any 16 bytes, from which torch's products with them take up to
    1.4 times as long (benchmarks/RESULTS.md). JAX copies it to where it wants it.
    """
    if keras.backend.backend() != "torch":
        return np.empty(size, "float32")
    room = np.empty(4 * size + _LINE, "uint8")
    start = -room.ctypes.data % _LINE
    return room[start : start + 4 * size].view("float32")


def _variance_scaling(usual, shape):
    from keras.src.initializers.random_initializers import compute_fans

    fan_in, fan_out = compute_fans(shape, usual.input_axes, usual.output_axes)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    stddev = math.sqrt(usual.scale / max(1.0, fans[usual.mode]))
    if usual.distribution == "uniform":
        limit = math.sqrt(3) * stddev
        return _uniform(usual, shape, -limit, limit)
    if usual.distribution == "untruncated_normal":
        return _normal(usual, shape, 0, stddev)
    # That of a normal distribution which is cut off at 2 is 0.88 of what it was.
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
