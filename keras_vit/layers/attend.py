"""Scaled dot-product attention: the backend's own operation, or written out."""

import math

import keras
from keras import ops

# Numbers of scores: of one head, from which on parts pay, and of a part (8 MB).
LARGE, PART = 2**16, 2**21


def heads_first(stacked, number):
    """Of (batch, tokens, number, heads, head_dim), so many of (batch, heads, tokens,
    head_dim).

    TensorFlow without XLA copies for each operation: there one transposes them all. On
    torch, where they are views, Keras' own operations would take longer than torch's.
    """
    if keras.backend.backend() == "tensorflow":
        return ops.unstack(ops.transpose(stacked, (2, 0, 3, 1, 4)), number, axis=0)
    if keras.backend.backend() == "torch":
        return [each.transpose(1, 2) for each in stacked.unbind(2)]
    return [_swap(each) for each in ops.unstack(stacked, number, axis=2)]


def attend(query, key, value, *, bias=None, dropout=None, training=None):
    """Of each head, the values weighed by the softmax of `query · key / √head_dim`.

    Source: *Attention Is All You Need* (arXiv 1706.03762), section 3.2.1. torch has a
    kernel for it, JAX one on GPUs in half precision. In float32 JAX and TensorFlow have
    none, and what they compose is slower than what is written out here
    (benchmarks/RESULTS.md).

    Args:
        query: (batch, heads, queries, head_dim).
        key: (batch, heads, keys, head_dim).
        value: (batch, heads, keys, head_dim).
        bias: float32, added to the scores; its shape broadcasts to (batch, heads,
            queries, keys).
        dropout: what is applied to the weights, or `None`; no kernel knows it.
        training: bool, whether gradients are wanted.

    Returns:
        (batch, queries, heads, head_dim).
    """
    is_torch = keras.backend.backend() == "torch"
    if dropout is not None or not (is_torch or _is_half_of_a_kernel(query)):
        is_plain = bias is None and dropout is None and not training
        if is_plain and (number := _heads_in_a_part(query, key)):
            return _swap(_attend_in_parts(query, key, value, number))
        return _swap(_attend_written_out(query, key, value, bias, dropout))
    if is_torch and flash_attention() is None:
        return _attend_by_torch(query, key, value, bias)
    return ops.dot_product_attention(
        *map(_swap, (query, key, value)), bias=bias, flash_attention=flash_attention()
    )


def _attend_by_torch(query, key, value, bias):
    """By torch's function, which finds its kernel itself; Keras asks first, and copies."""
    from torch.nn.functional import scaled_dot_product_attention

    if bias is not None:
        bias = bias.to(query.dtype)
    return scaled_dot_product_attention(query, key, value, bias).transpose(1, 2)


def _swap(x):
    """The second and the third of four axes, heads and tokens."""
    return ops.transpose(x, (0, 2, 1, 3))


def _heads_in_a_part(query, key):
    """How many heads, of all images, JAX attends to at a time on a CPU; `None`: to all.

    XLA runs each step over all scores before the next one, and large ones have left the
    caches by then: B/16 at 384 pixels takes 1.15 times as long (benchmarks/RESULTS.md).
    Where devices share the images, parts of these would cross between them.
    """
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is not None:
        return None
    import jax

    batch, heads, queries, _ = query.shape
    scores = queries * key.shape[2]
    # The size of a batch may be a symbol, where a model is exported.
    if not isinstance(batch, int) or scores < LARGE or jax.default_backend() != "cpu":
        return None
    return math.gcd(batch * heads, 2 ** int(math.log2(max(PART // scores, 1))))


def _attend_in_parts(query, key, value, number):
    parts = [ops.reshape(x, (-1, number, *x.shape[2:])) for x in (query, key, value)]

    def attend_to_one(part):
        return _attend_written_out(*(x[None] for x in part), None, None)[0]

    return ops.reshape(ops.map(attend_to_one, parts), query.shape)


def _attend_written_out(query, key, value, bias, dropout):
    # The axes are in the order in which products of matrices read them, and the queries
    # scaled, not the many scores: XLA's CPU compiler makes of einsums over (batch,
    # tokens, heads) what takes twice the time.
    scores = _at_least_float32(_scores(query * query.shape[-1] ** -0.5, key))
    if bias is not None:
        scores = scores + bias
    # JAX divides the outputs, which are fewer than the weights; in halves a sum that is
    # not divided yet could overflow. The others have one operation for all of it.
    divides_outputs = keras.backend.backend() == "jax" and not _is_half(query)
    if divides_outputs:
        weights = ops.exp(scores - ops.stop_gradient(ops.max(scores, -1, keepdims=True)))
        total = ops.sum(weights, axis=-1, keepdims=True)
    else:
        weights = ops.cast(ops.softmax(scores, axis=-1), query.dtype)
    if dropout is not None:
        weights = dropout(weights)
    outputs = ops.matmul(weights, value)
    return outputs / total if divides_outputs else outputs


def _scores(query, key):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.matmul(query, key, transpose_b=True)  # which spares a copy
    return ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))


def _is_half(x):
    return keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")


def _is_half_of_a_kernel(x):
    """True for half precisions that JAX's function multiplies: not float16 on a CPU.

    XLA's CPU compiler has no product of float16 with sums in float32, as it asks for.
    """
    is_jax = keras.backend.backend() == "jax"
    if is_jax and keras.backend.standardize_dtype(x.dtype) == "float16":
        import jax

        return jax.default_backend() != "cpu"
    return _is_half(x)


def _at_least_float32(x):
    return ops.cast(x, "float32") if _is_half(x) else x


def flash_attention() -> bool | None:
    """What to ask of `keras.ops.dot_product_attention`: False, or Keras' own choice.

    On TPU, Keras 3.15 takes a kernel for token counts divisible by 128 that masks
    causally and leaves the scale out: wrong numbers.
    `keras.config.disable_flash_attention()` does not reach the operation, so it is passed
    on here.
    """
    disabled = keras.config.is_flash_attention_enabled() is False  # None: undecided
    return False if disabled or _on_tpu() else None


def _on_tpu() -> bool:
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.devices()[0].platform == "tpu"
