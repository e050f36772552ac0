"""Parts of a Vision Transformer in NumPy, float64, from the weights of a model."""

import math

import keras
import numpy as np
from helpers import array


def norm(x, layer):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.epsilon)
    return x * np.float64(array(layer.gamma)) + array(layer.beta)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def gelu(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def stacked(tokens, layer):
    """The parts of a stacked projection, (batch, heads, tokens, head_dim) each."""
    parts = np.einsum("btd,dshk->sbhtk", tokens, np.float64(array(layer.kernel)))
    return parts if layer.bias is None else parts + array(layer.bias)[:, None, :, None]


def projected(attention, tokens):
    """Queries, keys and values, (batch, heads, tokens, head_dim) each."""
    qkv = stacked(tokens, attention.qkv)
    if attention.qkv_bias == "qv":
        qkv[[0, 2]] += array(attention.query_value_bias)[:, None, :, None]
    query, key, value = qkv
    if attention.qk_norm:
        query, key = norm(query, attention.query_norm), norm(key, attention.key_norm)
    return query, key, value


def turned(x, grid, frequencies):
    """Axial RoPE: neighbouring channels of the patches as complex numbers, each turned by
    its column and then its row."""
    places = [(c, r) for r in range(grid[0]) for c in range(grid[1])]
    angles = np.array(
        [[place * f for place in both for f in frequencies] for both in places]
    )
    prefix = x.shape[2] - len(places)
    pairs = (x[..., ::2] + 1j * x[..., 1::2])[:, :, prefix:] * np.exp(1j * angles)
    result = x.copy()
    result[:, :, prefix:, ::2], result[:, :, prefix:, 1::2] = pairs.real, pairs.imag
    return result


def offset_bias(layer):
    """Relative positions, one pair of tokens after the other: (heads, tokens, tokens)."""
    rows, columns = layer.grid_size
    places = [None] * layer.num_prefix
    places += [(r, c) for r in range(rows) for c in range(columns)]
    grid, bias = array(layer.grid), np.zeros((layer.num_heads, len(places), len(places)))
    for q, query in enumerate(places):
        for k, key in enumerate(places):
            if query is None or key is None:
                kind = 2 if query is key else 0 if query is None else 1
                bias[:, q, k] = array(layer.prefix)[kind]
            else:
                offset = query[0] - key[0] + rows - 1, query[1] - key[1] + columns - 1
                bias[:, q, k] = grid[offset]
    return bias


def offset_logits(layer, query):
    """Relative attention, one pair of tokens after the other: (batch, heads, …, tokens)."""
    rows, columns = layer.grid_size
    patches, width = rows * columns, query.shape[-1]
    places = [None] * layer.num_prefix + list(range(patches))
    table = np.float64(array(layer.grid)).reshape(2 * patches, -1, width)
    logits = np.zeros((*query.shape[:3], len(places)))
    for q, query_place in enumerate(places):
        for k, key_place in enumerate(places):
            if query_place is None or key_place is None:
                both = query_place is None and key_place is None
                kind = 2 if both else 0 if query_place is None else 1
                embedding = array(layer.prefix)[kind]
            else:
                embedding = table[patches + key_place - query_place]
            logits[:, :, q, k] = (query[:, :, q] * embedding).sum(-1)
    return logits / math.sqrt(width)


def scores(attention, tokens, grid=None, sizes=None):
    """(batch, heads, tokens, tokens), before the softmax."""
    query, key, _ = projected(attention, tokens)
    unturned = query
    if attention.rope:
        quarter = query.shape[-1] // 4
        frequencies = 100.0 ** (-np.arange(quarter) / quarter)
        query, key = turned(query, grid, frequencies), turned(key, grid, frequencies)
    found = query @ key.swapaxes(2, 3) / math.sqrt(query.shape[-1])
    if attention.relative_kind == "keys":
        found = found + offset_logits(attention.relative_keys, unturned)
    elif attention.relative_grid:
        found = found + offset_bias(attention.relative_position)
    return found if sizes is None else found + np.log(sizes)[:, None, None]


def attention_weights(block, tokens, grid=None, sizes=None):
    """(batch, heads, tokens, tokens), of a block's inputs."""
    inputs = tokens if block.norm_after else norm(tokens, block.attention_norm)
    return softmax(scores(block.attention, inputs, grid, sizes))


def dense(x, layer):
    return x @ np.float64(array(layer.kernel)) + array(layer.bias)


def run_block(block, tokens, weights=None):
    """Tokens after a plain block, by given attention weights or its own."""
    attention, normed = block.attention, norm(tokens, block.attention_norm)
    if weights is None:
        weights = softmax(scores(attention, normed))
    heads = weights @ projected(attention, normed)[2]  # (batch, heads, tokens, head_dim)
    kernel = np.float64(array(attention.projection.kernel))
    tokens = tokens + np.einsum("bhtk,hkd->btd", heads, kernel)
    tokens = tokens + array(attention.projection.bias)
    hidden = gelu(dense(norm(tokens, block.mlp_norm), block.mlp.dense_1))
    return tokens + dense(hidden, block.mlp.dense_2)


def outputs_of(model, *names):
    """A function of images that gives the outputs of layers of a model, in float64."""
    inner = keras.Model(model.input, [model.get_layer(name).output for name in names])

    def compute(images):
        return [np.float64(array(each)) for each in keras.tree.flatten(inner(images))]

    return compute
