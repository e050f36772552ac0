"""Forms of attention on the backend of KERAS_BACKEND, in turn.

    KERAS_BACKEND=jax python -m benchmarks.attention --rounds 21
    KERAS_BACKEND=jax python -m benchmarks.attention --rounds 21 --training

A self-attention layer with its projections, of B/16 where nothing else is said, in float32
and compiled by XLA but on torch. The medians of the ratios of each round are told, to
`keras.ops.dot_product_attention`.
"""

import argparse
import statistics
from unittest import mock

import keras
import numpy as np
from keras import ops

from benchmarks.timing import seconds
from keras_vit.layers import SelfAttention


def swap(x):
    """Swaps the axes of heads and tokens."""
    return ops.transpose(x, (0, 2, 1, 3))


def fused(query, key, value, **_):
    """Keras' operation for the backend."""
    return ops.dot_product_attention(*map(swap, (query, key, value)))


def written_out(query, key, value, **_):
    """Divided after the second product, as `keras_vit` has it on JAX."""
    query, key = query * query.shape[-1] ** -0.5, ops.transpose(key, (0, 1, 3, 2))
    scores = ops.matmul(query, key)
    largest = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
    weights = ops.exp(scores - largest)
    return swap(ops.matmul(weights, value) / ops.sum(weights, axis=-1, keepdims=True))


def with_softmax(query, key, value, **_):
    """Attention with `softmax`, which divides all weights."""
    query, key = query * query.shape[-1] ** -0.5, ops.transpose(key, (0, 1, 3, 2))
    return swap(ops.matmul(ops.softmax(ops.matmul(query, key)), value))


def einsums(query, key, value, **_):
    """Attention by einsums, with the heads behind the tokens."""
    query, key, value = map(swap, (query, key, value))
    scores = ops.einsum("bqhk,bthk->bhqt", query * query.shape[-1] ** -0.5, key)
    largest = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
    weights = ops.exp(scores - largest)
    total = swap(ops.sum(weights, axis=-1, keepdims=True))
    return ops.einsum("bhqt,bthk->bqhk", weights, value) / total


FORMS = (fused, written_out, with_softmax, einsums)


def main():
    """Measures all forms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-dim", type=int, default=768)
    parser.add_argument("--num-heads", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=197)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--training", action="store_true")
    args = parser.parse_args()
    runs = [run(form, args) for form in FORMS]
    rounds = [[seconds(one) for one in runs] for _ in range(args.rounds)]
    task = "training" if args.training else "inference"
    print(f"{keras.backend.backend()}, {task}: ms, and times as fast as {fused.__name__}")
    columns = list(zip(*rounds, strict=True))
    for form, times in zip(FORMS, columns, strict=True):
        ratios = [usual / own for usual, own in zip(columns[0], times, strict=True)]
        milliseconds, ratio = 1000 * statistics.median(times), statistics.median(ratios)
        print(f"{form.__name__:20} {milliseconds:7.1f} {ratio:6.2f}")


def run(form, args):
    """Compiles and warms up a call of the layer in one form."""
    shape = (args.tokens, args.hidden_dim)
    model = keras.Sequential([keras.Input(shape), SelfAttention(args.num_heads)])
    jit_compile = keras.backend.backend() != "torch"
    model.compile(keras.optimizers.SGD(1e-9), "mse", jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(args.batch_size, *shape)).astype("float32")

    def once():
        with mock.patch("keras_vit.layers.kernels.attend", form):  # torch looks each time
            if args.training:
                return model.train_on_batch(tokens, tokens)
            return model.predict_on_batch(tokens)

    once()
    return once


if __name__ == "__main__":
    main()
