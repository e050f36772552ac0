"""Token merging: averages the patch tokens that are most alike, in pairs."""

import keras
from keras import ops

from keras_vit.layers import kernels, observation


def count_merged(number: int, tokens: int, num_prefix: int) -> int:
    """Number of tokens that a block merges into others.

    Args:
        number: int, how many are asked for.
        tokens: int, how many there are, the prefix included.
        num_prefix: int, number of tokens before the patches.

    Returns:
        `number`, or half of the patch tokens if that is less.
    """
    return min(number, (tokens - num_prefix) // 2)


def merge_tokens(
    tokens: keras.KerasTensor,
    keys: keras.KerasTensor,
    number: int,
    *,
    num_prefix: int = 0,
    sizes: keras.KerasTensor | None = None,
) -> tuple:
    """Merges tokens into those that are most like them, by a weighted average.

    Source: *Token Merging: Your ViT But Faster* (arXiv 2210.09461), section 3 and the
    listing in appendix D: bipartite soft matching. The tokens at even places of the
    sequence are the first set, those at odd places the second. Each token of the first set
    draws an edge to the token of the second whose key has the largest cosine similarity
    with its own. The tokens of the `number` strongest edges are merged into the tokens at
    their ends, each weighted by the number of patches that it stands for. The result has
    the rest of the first set, then the second set, both in their order.

    Args:
        tokens: (batch, tokens, hidden_dim).
        keys: (batch, tokens, head_dim), compared to find tokens that are alike. No gradient
            flows through the choice.
        number: int, number of tokens that are merged into others, see `count_merged`.
        num_prefix: int, number of tokens before the patches (class token, registers),
            which stay as they are.
        sizes: int32 (batch, tokens), how many patches each token stands for; `None` where
            nothing has been merged yet.

    Returns:
        Tokens (batch, tokens - number, hidden_dim), and their sizes (batch, tokens -
        number), int32.
    """
    number = count_merged(number, tokens.shape[1], num_prefix)
    if sizes is None:
        sizes = ops.ones_like(tokens[:, :, 0], "int32")  # (batch, tokens)
    if not number:
        return tokens, sizes
    sizes = ops.cast(sizes, "float32")
    first, second = _sets(num_prefix)
    merged, kept, ends = _match(keys[:, first], keys[:, second], number)

    order = ops.concatenate([merged, kept], axis=1)  # (batch, first), for a single gather
    source_sizes = kernels.take_tokens(sizes[:, first], order)  # (batch, first)
    target_sizes = sizes[:, second]  # (batch, second)

    edges = ops.one_hot(ends, target_sizes.shape[1])  # (batch, number, second)
    edges = edges * source_sizes[:, :number, None]
    new_sizes = target_sizes + ops.sum(edges, axis=1)  # (batch, second)

    def merge(values):  # (batch, tokens, width)
        sources = kernels.take_tokens(values[:, first], order)  # (batch, first, width)
        shares = ops.cast(edges / new_sizes[:, None], values.dtype)
        own_shares = ops.cast(target_sizes / new_sizes, values.dtype)
        added = ops.einsum("bst,bsd->btd", shares, sources[:, :number])
        targets = values[:, second] * own_shares[..., None] + added
        # (batch, tokens - number, width)
        return ops.concatenate(
            [values[:, :num_prefix], sources[:, number:], targets], axis=1
        )

    observation.show_merging(merge)
    sizes = [sizes[:, :num_prefix], source_sizes[:, number:], new_sizes]
    # (batch, tokens - number)
    return merge(tokens), ops.cast(ops.concatenate(sizes, axis=1), "int32")


def _sets(num_prefix):
    """Slices of the patch tokens at even and at odd places of the sequence."""
    even = num_prefix + num_prefix % 2
    odd = num_prefix + (num_prefix + 1) % 2
    return slice(even, None, 2), slice(odd, None, 2)


def _match(first, second, number):
    """Finds the strongest edges from the first set to the second.

    Args:
        first: (batch, first, head_dim), keys of the first set.
        second: (batch, second, head_dim), keys of the second set.
        number: int, number of edges.

    Returns:
        Places in the first set of the tokens that are merged, (batch, number), and of the
        others, (batch, first - number); places in the second set where the edges end,
        (batch, number).
    """
    first, second = (
        ops.normalize(ops.cast(ops.stop_gradient(keys), "float32"), axis=-1)
        for keys in (first, second)
    )
    similarity = ops.einsum("bsk,btk->bst", first, second)  # (batch, first, second)
    weakest_last = ops.argsort(-ops.max(similarity, axis=-1), axis=-1)  # (batch, first)
    merged = weakest_last[:, :number]
    kept = ops.sort(weakest_last[:, number:], axis=-1)
    ends = ops.argmax(similarity, axis=-1)  # (batch, first)
    return merged, kept, kernels.take_tokens(ends, merged)
